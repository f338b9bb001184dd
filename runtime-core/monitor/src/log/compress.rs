//! Rotated files are compressed by a child, this program itself as `davit-monitor compress FILE`: the monitor stays as small as it is.
//!
//! `X` becomes `X.gz` by rename, then `X` goes: a crash in between leaves both, and either is complete.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::queue::Shared;

/// How often a file that grows is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// A compressor that gets nothing done for this long is not waited for.
const PATIENCE: u32 = 50;

/// A child that compresses a file. The loop reaps it.
#[derive(Debug)]
pub struct Compressor {
    /// Ends with it.
    output: std::process::ChildStdout,
    new: PathBuf,
}

impl Compressor {
    /// Begins.
    pub fn start(path: &Path) -> io::Result<Self> {
        let mut command = Command::new("/proc/self/exe");
        command.arg("compress").arg(path).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let output = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        Ok(Self { output, new: temporary(path) })
    }

    /// Waits for its end as long as it makes progress.
    pub fn wait(self, shared: &Shared) {
        let look = Timespec { tv_sec: 0, tv_nsec: LOOK.subsec_nanos().into() };
        let (mut size, mut idle) = (0, 0);
        while idle < PATIENCE {
            if !matches!(poll(&mut [PollFd::new(&self.output, PollFlags::IN)], Some(&look)), Ok(0)) {
                return;
            }
            let now = fs::metadata(&self.new).map_or(0, |m| m.len());
            if now == size {
                idle += 1;
            } else {
                (size, idle) = (now, 0);
                shared.progressed();
            }
        }
    }
}

fn temporary(path: &Path) -> PathBuf {
    let mut name = path.to_owned().into_os_string();
    name.push(".gz.new");
    name.into()
}

/// The child's work.
pub fn run(path: &Path) -> io::Result<()> {
    let new = temporary(path);
    let result = write(path, &new).and_then(|()| {
        let mut name = path.to_owned().into_os_string();
        name.push(".gz");
        fs::rename(&new, PathBuf::from(name))
    });
    if result.is_err() {
        let _ = fs::remove_file(&new);
        return result;
    }
    fs::remove_file(path)
}

fn write(path: &Path, new: &Path) -> io::Result<()> {
    let mut from = File::open(path)?;
    let to = File::create(new)?;
    to.set_permissions(from.metadata()?.permissions())?;
    let mut encoder = GzEncoder::new(to, Compression::new(3));
    let mut buffer = vec![0; 64 << 10];
    loop {
        match from.read(&mut buffer)? {
            0 => return encoder.finish().map(drop),
            n => encoder.write_all(&buffer[..n])?,
        }
    }
}
