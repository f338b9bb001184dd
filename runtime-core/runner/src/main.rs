//! davit-runner: the OCI runtime of davit, with runc's command line.
//!
//! It is an executable that lives for milliseconds and owns nothing but ROOT/ID ([`state`]); whoever calls it (davit-monitor, conmon, a containerd
//! shim) is the parent of the container. One thread, no async runtime, no C library beyond libc.
//!
//! ```text
//! cli -> commands -> launch (runner's side) -- clone --> init (first process) -> program -> execve
//!                 -> exec   (runner's side) -- clone -->                         program -> execve
//! ```

pub mod cgroup;
pub mod cli;
pub mod commands;
pub mod error;
pub mod hooks;
pub mod init;
pub mod launch;
pub mod message;
pub mod program;
pub mod protect;
pub mod rootfs;
pub mod seccomp;
pub mod spec;
pub mod state;

use std::fs::OpenOptions;
use std::io::Write;

fn main() {
    let args: Vec<String> = std::env::args_os().skip(1).map(|a| a.to_string_lossy().into_owned()).collect();
    let (outcome, log) = match cli::invocation(&args) {
        Ok(invocation) => {
            let outcome = protect::ensure(&invocation.command).and_then(|()| commands::run(&invocation));
            (outcome, Some(invocation.global))
        }
        Err(e) => (Err(e), cli::global_of(&args)),
    };
    let code = outcome.unwrap_or_else(|e| {
        report(&e.chain(), log.as_ref());
        1
    });
    std::process::exit(code)
}

/// One line to stderr, and to the log file where one was named.
fn report(message: &str, global: Option<&cli::Global>) {
    let time = state::clock::now();
    let json = global.is_none_or(|g| g.log_json);
    let line = if json {
        serde_json::json!({ "level": "error", "msg": message, "time": time }).to_string()
    } else {
        format!("time={time:?} level=error msg={message:?}")
    };
    if let Some(path) = global.and_then(|g| g.log.as_ref())
        && let Ok(mut file) = OpenOptions::new().create(true).append(true).open(path)
    {
        let _ = writeln!(file, "{line}");
    }
    let _ = writeln!(std::io::stderr(), "{line}");
}
