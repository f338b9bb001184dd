//! `cargo xtask demo`: the suite's main job, as the commands that a person would type.
//!
//! As root it runs on a private host (namespaces of its own), so that it cannot disturb the machine; `--on-host` uses the
//! machine itself. As a plain user it runs rootless.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use davit_tests::Ran;

use crate::cargo;

mod left;
mod stage;

use stage::Stage;
pub use stage::get;

/// How to run it.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Use the machine's own network, mounts and processes (root; without it a private host is made)
    #[arg(long)]
    on_host: bool,
    /// Build and use the release profile (the default is the debug profile, which builds faster)
    #[arg(long)]
    release: bool,
    /// Use the programs in this directory and build nothing
    #[arg(long)]
    bin_dir: Option<PathBuf>,
}

/// The port that the demo publishes.
const PORT: u16 = 18080;
/// What goes into the image: programs that every Debian has.
const PROGRAMS: &[&str] = &["sh", "cat", "ls", "id", "uname", "sleep", "getent", "perl"];

/// Runs the demo; an error says which step failed.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let binaries = match &options.bin_dir {
        Some(dir) => dir.canonicalize().with_context(|| format!("cannot find {}", dir.display()))?,
        None => cargo::build(options.release)?,
    };
    davit_tests::host::use_binaries(&binaries);
    let stage = Stage::set(&binaries, options.on_host)?;
    println!("\n{}\n", stage.describe());
    let before = stage.inventory()?;
    let played = play(&stage);
    if played.is_err() {
        stage.clear();
    }
    played?;
    left::assert_nothing(&stage, &before)?;
    println!("\nThe demo is complete.");
    Ok(())
}

fn play(stage: &Stage) -> anyhow::Result<()> {
    let srv = stage.write_programs()?;
    title("The three daemons (any command starts them; here by name, to look at them)");
    stage.davit(&["up"])?;
    let status = stage.davit(&["status"])?;
    for daemon in ["davit-storaged", "davit-netd", "davit-runtimed"] {
        says(&status, daemon)?;
    }
    title("An image of this machine's own programs");
    let programs = PROGRAMS.iter().map(|p| find(p)).collect::<anyhow::Result<Vec<_>>>()?;
    let mut words = vec!["image", "from-host", "-t", "tools"];
    words.extend(programs.iter().map(String::as_str));
    stage.davit(&words)?;
    says(&stage.davit(&["image", "ls"])?, "tools")?;
    title("Two containers on a network of their own");
    stage.davit(&["net", "create", "my-bridge"])?;
    let volume = format!("{}:/srv:ro", srv.display());
    let publish = format!("{PORT}:80");
    let shared = ["--net", "my-bridge", "-v", &volume];
    stage.davit(&[&["run", "-d", "--name", "db"][..], &shared, &["tools", "perl", "/srv/db.pl"]].concat())?;
    let web =
        [&["run", "-d", "--name", "web", "-p", &publish][..], &shared, &["tools", "perl", "/srv/web.pl"]];
    stage.davit(&web.concat())?;
    stage.logs_until("db", "ready")?;
    stage.logs_until("web", "ready")?;
    let listed = stage.davit(&["ps"])?;
    says(&listed, "db")?;
    says(&listed, "web")?;
    title("web resolves db by name, and reaches it");
    says(&stage.davit(&["exec", "web", "getent", "hosts", "db"])?, "db")?;
    title("The published port answers on the host");
    let page = stage.fetch(PORT)?;
    ensure!(page.contains("7 ships in the harbour"), "the page is not what db told: {page:?}");
    title("Logs, and a look inside");
    says(&stage.davit(&["logs", "web"])?, "web: asked db")?;
    says(&stage.davit(&["logs", "db"])?, "db: answered")?;
    let inside = "id; uname -n; echo \"process 1 is $(cat /proc/1/comm)\"; echo processes: /proc/[0-9]*";
    says(&stage.davit(&["exec", "web", "sh", "-c", inside])?, "process 1 is perl")?;
    title("Stopping all of it");
    stage.davit(&["stop", "web", "db"])?;
    stage.davit(&["rm", "web", "db"])?;
    ensure!(stage.davit(&["ps", "-a", "-q"])?.text().is_empty(), "containers are left");
    stage.davit(&["net", "rm", "my-bridge"])?;
    stage.davit(&["image", "rm", "tools"])?;
    stage.davit(&["down"])?;
    Ok(())
}

fn title(text: &str) {
    println!("# {text}");
}

fn says(ran: &Ran, part: &str) -> anyhow::Result<()> {
    if ran.stdout.contains(part) {
        return Ok(());
    }
    bail!("`{}` did not mention {part:?}", ran.line)
}

/// The path of a program as a person would name it.
fn find(program: &str) -> anyhow::Result<String> {
    let found =
        ["/bin", "/usr/bin"].iter().map(|dir| format!("{dir}/{program}")).find(|p| Path::new(p).is_file());
    found.with_context(|| {
        format!("the demo puts {program} into its image, but this machine has none; install it")
    })
}
