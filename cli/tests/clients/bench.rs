//! A test's own directories, stand-ins and `davit`.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::MutexGuard;
use std::time::{Duration, Instant};

use super::daemons::{Book, Serving, Shared};

/// Directories and stand-ins of one test.
pub struct Bench {
    dir: tempfile::TempDir,
    book: Shared,
    pub serving: Serving,
}

impl Bench {
    /// With the image `tools`.
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("davit-cli").tempdir_in("/tmp").unwrap();
        let book = Shared::default();
        book.lock().unwrap().images.insert("tools".into());
        let serving = Serving::start(dir.path(), &book);
        Self { dir, book, serving }
    }

    pub fn run_dir(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    pub fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap()
    }

    /// `davit ARGS`, which starts no daemons.
    pub fn davit(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_davit"));
        self.prepare(&mut command);
        command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// The environment of a `davit`.
    pub fn prepare(&self, command: &mut Command) {
        for key in ["DAVIT_RUN_DIR", "DAVIT_STATE_DIR", "DAVIT_CONFIG_DIR"] {
            command.env(key, self.dir.path());
        }
        command.env("DAVIT_NO_AUTOSTART", "1").env("HOME", self.dir.path()).env_remove("DOCKER_CONFIG");
    }
}

/// Exit code, standard output, standard error.
pub fn told(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

/// Waits until it is so.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let give_up = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < give_up, "never came about: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
