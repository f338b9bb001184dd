//! `run/supervisor.log`: our lines and the daemons' output, bounded in size.
//!
//! The daemons write to the file themselves (O_APPEND), so that nothing is lost when we die. When it is over the bound its content moves
//! to `supervisor.log.1` and the file is cut to nothing in place, because the daemons hold it open.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};

const BOUND: u64 = 4 << 20;

/// The open log.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    file: File,
    bound: u64,
}

impl Log {
    /// Opens it for appending.
    pub fn open(path: &Path) -> Result<Self> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        Ok(Self { path: path.to_owned(), file, bound: BOUND })
    }

    /// For the daemons' output.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// One line of ours.
    pub fn line(&self, text: impl AsRef<str>) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let line = format!("{}.{:03} supervisor: {}\n", now.as_secs(), now.subsec_millis(), text.as_ref());
        // A full disk must not end the supervisor.
        let _ = (&self.file).write_all(line.as_bytes());
    }

    /// Moves the content away when it has grown over the bound.
    pub fn keep_bounded(&self) {
        let Ok(meta) = self.file.metadata() else { return };
        if meta.len() <= self.bound {
            return;
        }
        let old = self.path.with_extension("log.1");
        if fs::copy(&self.path, &old).is_err() {
            let _ = fs::remove_file(&old);
        }
        let _ = self.file.set_len(0);
    }

    /// The line that a daemon's end may be explained by: the last one that names it (`davit-netd: ...`), else the last of all.
    pub fn last_words(&self, daemon: &str) -> String {
        let text = fs::read(&self.path).unwrap_or_default();
        let tail = &text[text.len().saturating_sub(4096)..];
        let tail = String::from_utf8_lossy(tail);
        let said = || tail.lines().rev().filter(|l| !l.trim().is_empty() && !l.contains(" supervisor: "));
        let name = format!("davit-{daemon}");
        let line = said().find(|l| l.contains(&name)).or_else(|| said().next());
        line.unwrap_or("").trim().to_owned()
    }

    /// Lets go of whoever started us: stdin becomes /dev/null, stdout and stderr this log.
    pub fn take_over_stdio(&self) -> Result<()> {
        let null = File::open("/dev/null").context("cannot open /dev/null")?;
        rustix::stdio::dup2_stdin(&null).context("cannot replace stdin")?;
        rustix::stdio::dup2_stdout(&self.file).context("cannot replace stdout")?;
        rustix::stdio::dup2_stderr(&self.file).context("cannot replace stderr")?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_stays_under_its_bound_and_the_old_content_is_kept_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Log::open(&dir.path().join("supervisor.log")).unwrap();
        log.bound = 100;
        for n in 0..10 {
            log.line(format!("line {n}"));
        }
        log.keep_bounded();
        assert_eq!(log.file.metadata().unwrap().len(), 0);
        assert!(fs::read_to_string(dir.path().join("supervisor.log.1")).unwrap().contains("line 9"));
        log.line("after");
        assert!(fs::read_to_string(&log.path).unwrap().ends_with("after\n"));
    }

    #[test]
    fn the_last_line_is_the_daemons_not_ours() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(&dir.path().join("supervisor.log")).unwrap();
        (&log.file).write_all(b"davit-netd: no such option\n").unwrap();
        log.line("netd ended");
        assert_eq!(log.last_words("netd"), "davit-netd: no such option");
        (&log.file).write_all(b"davit-storaged: hello\n").unwrap();
        assert_eq!(log.last_words("netd"), "davit-netd: no such option");
        assert_eq!(log.last_words("runtimed"), "davit-storaged: hello");
    }
}
