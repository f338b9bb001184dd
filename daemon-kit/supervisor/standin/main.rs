//! A stand-in for a daemon: answers every connection on its socket with a line about itself.
//!
//! `PID DIR-OF-BINARY STORED-NAMES`. What it does besides is told by files in DAVIT_STATE_DIR: `NAME.crash` ends it at once with an error
//! line, `NAME.store` makes it store a descriptor before it is ready, `NAME.deaf` makes it ignore SIGTERM.

use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use davit_sys::socket;

/// The socket of one that nobody supervises.
fn own_socket(name: &str) -> UnixListener {
    let run = PathBuf::from(std::env::var_os("DAVIT_RUN_DIR").expect("set for whoever runs alone"));
    let short = name.trim_start_matches("davit-");
    UnixListener::bind(run.join(format!("{short}.sock"))).expect("the socket is nobody's")
}

fn main() {
    let exe = std::env::args().next().map(PathBuf::from).unwrap_or_default();
    let name = exe.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let state = PathBuf::from(std::env::var_os("DAVIT_STATE_DIR").expect("the supervisor sets it"));
    let told = |what: &str| state.join(format!("{name}.{what}")).exists();
    if told("crash") {
        eprintln!("{name}: told to crash");
        std::process::exit(3);
    }
    if told("deaf") {
        let mut set = nix::sys::signal::SigSet::empty();
        set.add(nix::sys::signal::Signal::SIGTERM);
        set.thread_block().expect("a valid set");
    }
    let mut fds = socket::take_listen_fds().into_iter();
    let handed = fds.next();
    let alone = handed.is_none();
    let listener = handed.map_or_else(|| own_socket(&name), |handed| UnixListener::from(handed.fd));
    let stored: Vec<String> = fds.map(|fd| fd.name).collect();
    if told("store") && stored.is_empty() {
        let null = std::fs::File::open("/dev/null").expect("it exists");
        socket::store_fds("warm", &[null.as_fd()]).expect("the supervisor listens");
    }
    if !alone {
        socket::notify("READY=1").expect("the supervisor listens");
    }
    let dir = exe.parent().map(|p| p.display().to_string()).unwrap_or_default();
    for stream in listener.incoming().flatten() {
        let _ = writeln!(&stream, "{} {dir} {}", std::process::id(), stored.join(","));
    }
}
