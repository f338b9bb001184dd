//! The inside of a private host: its mounts, and the server that runs commands.
//!
//! Invariant: every child is reaped by [`reap`] alone, which looks before it reaps, so that a command's own status is
//! never lost and an orphan never stays a zombie.

use std::collections::HashMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;

use super::protocol::{self, Answer};

/// Where the commands' statuses go.
type Waiting = Arc<Mutex<HashMap<i32, Sender<i32>>>>;

/// Becomes the host whose files are below `root`; returns when stdin closes.
pub fn run(root: &Path) -> anyhow::Result<()> {
    prepare(root)?;
    let listener = UnixListener::bind(root.join("init.sock")).context("cannot listen")?;
    let waiting = Waiting::default();
    let reaper = Arc::clone(&waiting);
    std::thread::spawn(move || reap(&reaper));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let waiting = Arc::clone(&waiting);
            std::thread::spawn(move || {
                // An error means that the test dropped the connection, and with it its interest.
                let _ = serve(&stream, &waiting);
            });
        }
    });
    println!("ready");
    let mut nothing = Vec::new();
    std::io::stdin().read_to_end(&mut nothing)?;
    Ok(())
}

/// Private /run, /dev/shm, cgroup mounts and files of /etc; loopback up.
fn prepare(root: &Path) -> anyhow::Result<()> {
    let none = None::<&str>;
    for (target, options) in [("/run", "mode=755"), ("/dev/shm", "mode=1777")] {
        mount(Some("tmpfs"), target, Some("tmpfs"), MsFlags::empty(), Some(options))
            .with_context(|| format!("cannot mount {target}"))?;
    }
    if root.join("state-on-tmpfs").exists() {
        let options = fs::read_to_string(root.join("state-on-tmpfs"))?;
        let state = root.join("state");
        mount(Some("tmpfs"), &state, Some("tmpfs"), MsFlags::empty(), Some(options.as_str()))
            .context("cannot mount the state directory")?;
    }
    for entry in fs::read_dir(root.join("etc"))? {
        let entry = entry?;
        let target = Path::new("/etc").join(entry.file_name());
        if target.exists() {
            mount(Some(&entry.path()), &target, none, MsFlags::MS_BIND, none)
                .with_context(|| format!("cannot bind {}", target.display()))?;
        }
    }
    mount(Some(&super::binaries()), &root.join("bin"), none, MsFlags::MS_BIND, none)
        .context("cannot bind the binaries")?;
    mount_cgroups()?;
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).status().context("cannot run ip")?;
    ensure!(up.success(), "cannot bring loopback up");
    Ok(())
}

/// Mounts each hierarchy again: in this cgroup namespace its root is the host's own.
fn mount_cgroups() -> anyhow::Result<()> {
    let mut again = Vec::new();
    for line in fs::read_to_string("/proc/self/mountinfo")?.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let mut right = right.split(' ');
        let (fstype, _source, options) = (right.next(), right.next(), right.next());
        if let (Some(fstype @ ("cgroup" | "cgroup2")), Some(target)) = (fstype, left.split(' ').nth(4)) {
            again.push((fstype.to_owned(), target.to_owned(), options.unwrap_or_default().to_owned()));
        }
    }
    for (fstype, target, options) in again {
        let words = options.split(',').filter(|o| !matches!(*o, "rw" | "ro") && !o.contains("delegate"));
        let data = words.collect::<Vec<_>>().join(",");
        let data = if fstype == "cgroup2" { None } else { Some(data.as_str()) };
        // The same file system is refused on top of itself.
        umount2(target.as_str(), MntFlags::MNT_DETACH).with_context(|| format!("cannot unmount {target}"))?;
        mount(Some("cgroup"), target.as_str(), Some(fstype.as_str()), MsFlags::empty(), data)
            .with_context(|| format!("cannot mount {fstype} at {target}"))?;
        // A whole v2 tree refuses controllers for children while its root has processes: move to a leaf, as init systems do.
        if fstype == "cgroup2" && target == "/sys/fs/cgroup" {
            fs::create_dir_all("/sys/fs/cgroup/init")?;
            fs::write("/sys/fs/cgroup/init/cgroup.procs", "0").context("cannot move to the init cgroup")?;
        }
    }
    Ok(())
}

fn locked(waiting: &Waiting) -> MutexGuard<'_, HashMap<i32, Sender<i32>>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs one command for one connection.
fn serve(stream: &UnixStream, waiting: &Waiting) -> anyhow::Result<()> {
    let (request, [stdin, stdout, stderr]) = protocol::receive(stream)?;
    let (ended, end) = channel();
    let started = {
        let mut waiting = locked(waiting);
        let mut command = Command::new(&request.argv[0]);
        command.args(&request.argv[1..]).env_clear().envs(request.env).current_dir(&request.cwd);
        command.stdin(Stdio::from(stdin)).stdout(Stdio::from(stdout)).stderr(Stdio::from(stderr));
        command.spawn().map(|child| {
            waiting.insert(child.id() as i32, ended);
            child.id() as i32
        })
    };
    let pid = match started {
        Ok(pid) => pid,
        Err(error) => return say(stream, &Answer::Failed(format!("{}: {error}", request.argv[0]))),
    };
    say(stream, &Answer::Started(pid))?;
    let mut signals = stream.try_clone()?;
    std::thread::spawn(move || {
        let mut byte = [0u8];
        while signals.read_exact(&mut byte).is_ok() {
            if let Ok(signal) = Signal::try_from(i32::from(byte[0])) {
                let _ = kill(Pid::from_raw(pid), signal);
            }
        }
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    });
    let code = end.recv().context("the reaper is gone")?;
    say(stream, &Answer::Ended(code))?;
    stream.shutdown(std::net::Shutdown::Read)?;
    Ok(())
}

fn say(mut stream: &UnixStream, answer: &Answer) -> anyhow::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    Ok(())
}

/// Reaps children for ever and hands on the statuses of commands.
fn reap(waiting: &Waiting) {
    loop {
        let seen = waitid(Id::All, WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT);
        let Some(pid) = seen.ok().and_then(|s| s.pid()) else {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        };
        let mut waiting = locked(waiting);
        let code = match waitpid(pid, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(_, code)) => code,
            Ok(WaitStatus::Signaled(_, signal, _)) => 128 + signal as i32,
            // Reaped by std, whose program did not exist; or nothing that ends a process.
            Ok(_) | Err(_) => continue,
        };
        if let Some(ended) = waiting.remove(&pid.as_raw()) {
            let _ = ended.send(code);
        }
    }
}
