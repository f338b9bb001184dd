//! The runner's own executable must not be reachable for writing from a container (CVE-2019-5736).
//!
//! Until it execs the program, a container's process has the runner as /proc/self/exe; an image whose program is `#!/proc/self/exe`
//! gets it executed, and could then open it for writing. So whatever clones into a container runs from a read-only mount of the
//! executable: if the file was not started from one (davit-monitor sees to that, as does a read-only /usr), the runner clones the mount of its own file,
//! makes the clone read-only and executes itself again from there. Such a clone is attached nowhere, so nobody can remount it.

use std::ffi::CString;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use davit_sys::rootfs::{self as sys, MountAttributes};
use rustix::fs::{Mode, OFlags};

use crate::cli::Command;
use crate::error::{Context, Error, Result};

const MARK: &str = "_DAVIT_RUNNER_PROTECTED";

/// Goes on in a protected process; only for commands that enter containers.
pub fn ensure(command: &Command) -> Result<()> {
    if !matches!(command, Command::Create(_) | Command::Run { .. } | Command::Exec(_)) {
        return Ok(());
    }
    let own = Path::new("/proc/self/exe");
    let exe = rustix::fs::open(own, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .context(|| "open /proc/self/exe")?;
    if sys::is_read_only(exe.as_fd()).context(|| "look at the mount of /proc/self/exe")? || is_sealed(own) {
        return Ok(());
    }
    if std::env::var_os(MARK).is_some() {
        return Err(Error::Config("the runner could not protect its own executable".into()));
    }
    let attributes = MountAttributes { set: sys::ATTR_RDONLY, ..MountAttributes::default() };
    let read_only = sys::clone_tree_at(own, false)
        .and_then(|tree| sys::set_attributes(tree.as_fd(), attributes, false).map(|()| tree));
    let program = match read_only {
        Ok(tree) => tree,
        // Without the right to clone mounts: a sealed copy in memory.
        Err(_) => sealed_copy(own).context(|| "copy the runner's executable")?,
    };
    let text = |s: std::ffi::OsString| CString::new(s.into_vec()).expect("argv and environment hold no NUL");
    let args: Vec<CString> = std::env::args_os().map(text).collect();
    let env = std::env::vars_os().map(|(mut k, v)| {
        k.push("=");
        k.push(v);
        text(k)
    });
    let env: Vec<CString> = env.chain([text(format!("{MARK}=1").into())]).collect();
    let failed = sys::exec_fd(
        program.as_fd(),
        &args.iter().map(CString::as_c_str).collect::<Vec<_>>(),
        &env.iter().map(CString::as_c_str).collect::<Vec<_>>(),
    );
    Err(failed).context(|| "execute the protected runner")
}

fn sealed_copy(own: &Path) -> std::io::Result<std::os::fd::OwnedFd> {
    use rustix::fs::{MemfdFlags, SealFlags};
    let copy = rustix::fs::memfd_create("davit-runner", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut file = std::fs::File::from(copy);
    std::io::copy(&mut std::fs::File::open(own)?, &mut file)?;
    rustix::fs::fcntl_add_seals(
        &file,
        SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE,
    )?;
    Ok(file.into())
}

fn is_sealed(own: &Path) -> bool {
    use rustix::fs::SealFlags;
    let Ok(file) = std::fs::File::open(own) else { return false };
    rustix::fs::fcntl_get_seals(&file).is_ok_and(|s| s.contains(SealFlags::WRITE))
}
