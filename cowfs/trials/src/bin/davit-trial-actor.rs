//! A process that makes the system calls which a test tells it: see [`davit_cowfs_trials::actor`].

fn main() -> std::io::Result<()> {
    let id = std::env::args().nth(1).and_then(|id| id.parse().ok()).expect("usage: davit-trial-actor UID");
    davit_cowfs_trials::actor::run(id)
}
