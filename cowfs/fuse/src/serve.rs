//! From options to a mount that is served until it is unmounted.
//!
//! ```text
//! parent: fork ──────────── wait for "ready" or the end ── exit 0 | the child's exit code
//! child:  └ open layers ─ mount ─ INIT ─ ready ─ serve ── exit 0
//! ```
//! All that can fail happens before "ready", while standard error is still the caller's. Threads start after it.

mod background;
mod signals;

use std::io::IsTerminal as _;
use std::num::NonZero;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use davit_cowfs::{Config, CowFs};
use fuser::{Session, SessionACL};
use rustix::process::{Resource, Rlimit};

use crate::crew::Crew;
use crate::fuse::Adapter;
use crate::mount::{MountError, Place};
use crate::options::{Access, Options, Serving};

use background::{Ready, Side};

/// A mount could not be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A directory of the command line.
    #[error("cannot resolve {path:?}")]
    Resolve {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The layers.
    #[error("cannot open the layers")]
    Layers(#[from] davit_cowfs::OpenError),
    /// The mount.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// The kernel and this process have not agreed on the protocol.
    #[error("cannot begin to serve the mount")]
    Session(#[source] std::io::Error),
    /// Requests could not be read any more.
    #[error("serving the mount ended")]
    Serving(#[source] std::io::Error),
    /// The process in the background.
    #[error("cannot go to the background")]
    Background(#[source] std::io::Error),
}

/// Mounts and serves. In the background (the default) it comes back in the calling process when the mount can be used, and in the new
/// one when the mount has ended.
pub fn run(mut options: Options) -> anyhow::Result<()> {
    davit_sys::resident::keep_heap_together();
    log_to_stderr(options.debug);
    resolve(&mut options)?;
    let ready = if options.foreground {
        Ready::foreground()
    } else {
        // Whoever waits for the end of a pipe that it left open by mistake would wait for the mount's end.
        davit_sys::resident::close_inherited_descriptors();
        match background::fork().map_err(ServeError::Background)? {
            Side::Parent(code) => std::process::exit(code),
            Side::Child(ready) => ready,
        }
    };
    Ok(serve(options, ready)?)
}

fn serve(mut options: Options, mut ready: Ready) -> Result<(), ServeError> {
    let stop = signals::Stop::block();
    let place = Place::new(&options.mountpoint);
    if options.mount.auto_unmount {
        ready = background::unmount_after_death(&place, ready).map_err(ServeError::Background)?;
    }
    options.config.max_open = descriptors();
    let xattrs = options.config.xattrs;
    let fs = CowFs::open(&options.config)?;
    let device = place.mount(&options.mount)?;
    make_room(&device, options.config.max_open);
    let begun = begin(fs, xattrs, device, &options.serving, options.mount.access);
    let session = match begun {
        Ok(session) => session,
        Err(e) => {
            // The first error says what is wrong.
            let _ = place.detach();
            return Err(ServeError::Session(e));
        }
    };
    ready.announce().map_err(ServeError::Background)?;
    stop.watch(place.clone());
    session.run().map_err(|e| {
        // Nobody reads requests any more: users of the mount would wait for ever.
        let _ = place.detach();
        ServeError::Serving(e)
    })
}

fn begin(
    fs: CowFs,
    xattrs: bool,
    device: OwnedFd,
    serving: &Serving,
    access: Access,
) -> std::io::Result<Session<Adapter>> {
    let mut config = fuser::Config::default();
    let threads = serving.workers.unwrap_or_else(workers);
    config.n_threads = Some(threads);
    config.clone_fd = serving.clone_fd;
    let acl = if access == Access::OwnerAndRoot { SessionACL::RootAndOwner } else { SessionACL::All };
    let crew = Crew::new(device.try_clone()?, threads);
    let adapter = Adapter::new(fs, xattrs, serving, crew);
    let notifier = adapter.notifier();
    let session = Session::from_fd(adapter, device, acl, config)?;
    notifier.get_or_init(|| session.notifier());
    Ok(session)
}

/// How many threads serve. Each may wait for a disk, so there are more than CPUs where those are few; where clients use all CPUs, more
/// threads than CPUs gain nothing.
fn workers() -> usize {
    std::thread::available_parallelism().map_or(4, NonZero::get).clamp(4, 10)
}

/// Makes every directory absolute, as the background has another working directory.
fn resolve(options: &mut Options) -> Result<(), ServeError> {
    let absolute = |path: &mut PathBuf| match std::fs::canonicalize(&*path) {
        Ok(whole) => {
            *path = whole;
            Ok(())
        }
        Err(source) => Err(ServeError::Resolve { path: path.clone(), source }),
    };
    let Config { lowers, upper, work, .. } = &mut options.config;
    lowers.iter_mut().chain(upper).chain(work).try_for_each(absolute)?;
    absolute(&mut options.mountpoint)
}

/// Raises the limit of open files as far as it goes and answers how many the file system may keep open.
fn descriptors() -> usize {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        if let Err(e) = rustix::process::setrlimit(Resource::Nofile, raised) {
            tracing::debug!(error = %e, "the limit of open files stays");
        }
    }
    let now = rustix::process::getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    (now / 4).clamp(16, 4096) as usize
}

/// Makes the table of descriptors as big as it will become. Once there are threads, the kernel waits for all CPUs whenever it grows that
/// table (expand_fdtable in fs/file.c): some 10 ms each after 256, 512, 1024 and 2048 files.
fn make_room(any: &OwnedFd, max_open: usize) {
    // Those of the connection, the layers and directories that are being read come on top.
    let last = i32::try_from(max_open + 256).unwrap_or(i32::MAX);
    if let Err(e) = rustix::io::fcntl_dupfd_cloexec(any, last) {
        tracing::debug!(error = %e, "the table of descriptors grows later");
    }
}

fn log_to_stderr(debug: bool) {
    let level = if debug { tracing::Level::TRACE } else { tracing::Level::WARN };
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_descriptors_has_room_for_all() {
        let most = descriptors();
        make_room(&std::fs::File::open("/dev/null").unwrap().into(), most);
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let size = status.lines().find_map(|l| l.strip_prefix("FDSize:")).unwrap();
        assert!(size.trim().parse::<usize>().unwrap() > most + 256, "{size}");
    }
}
