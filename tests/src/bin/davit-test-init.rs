//! The first process of a private host: prepares its mounts, then runs commands that tests send over a socket.
//!
//! `davit-test-init host ROOT` is started by [`davit_tests::Host`] through unshare(1); `davit-test-init inventory` prints
//! what the machine it runs on has. It reaps orphans as an init must, and ends (and with it the whole host) when its stdin
//! closes, that is, when the test is gone in whatever way.

use anyhow::{Context as _, bail};

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["host", root] => davit_tests::host::init::run(root.as_ref()),
        ["inventory"] => {
            let inventory = davit_tests::Inventory::take().context("cannot take the inventory")?;
            println!("{}", serde_json::to_string(&inventory)?);
            Ok(())
        }
        _ => bail!("usage: davit-test-init host ROOT | inventory"),
    }
}
