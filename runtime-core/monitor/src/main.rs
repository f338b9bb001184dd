//! davit-monitor: one small process a container. It owns the container's mounts, streams, log and exit record, and outlives every daemon.
//!
//! Started by runtimed as `davit-monitor RUN_DIR`; what it speaks is in docs/semantics/monitor-protocol.md. One thread, one epoll loop, no
//! blocking call but those that the kernel answers at once (and one fsync at the very end). What may take long is left to threads that exist
//! only meanwhile: writing the log, and unmounting a root that a program serves. Mounting one is waited for, because nothing runs yet.

mod clock;
mod conn;
mod health;
mod log;
mod monitor;
mod note;
mod oom;
mod reactor;
mod ring;
mod rules;
mod runtime;
mod server;
mod session;
mod staging;
mod startup;
mod stdio;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use note::note;

fn main() -> ExitCode {
    davit_sys::resident::close_inherited_descriptors();
    davit_sys::resident::keep_heap_small();
    davit_sys::resident::stop_ignoring_signals();
    let mut arguments = std::env::args_os().skip(1);
    let result = match (arguments.next(), arguments.next(), arguments.next()) {
        (Some(run_dir), None, None) => run(run_dir.into()),
        (Some(word), Some(file), None) if word == "compress" => {
            log::compress(file.as_ref()).map_err(Into::into)
        }
        _ => {
            eprintln!("usage: davit-monitor RUN_DIR (started by davit-runtimed; RUN_DIR holds monitor.json)");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            let mut text = e.to_string();
            let mut cause = e.source();
            while let Some(c) = cause {
                text = format!("{text}: {c}");
                cause = c.source();
            }
            note(format_args!("{text}"));
            ExitCode::FAILURE
        }
    }
}

fn run(run_dir: PathBuf) -> Result<(), Box<dyn Error>> {
    let run_dir = std::path::absolute(run_dir)?;
    let prepared = startup::prepare(&run_dir)?;
    monitor::Monitor::new(prepared)?.run()?;
    Ok(())
}
