//! Finding the executable as runc does, and the home directory. Runs inside the container's root, with the program's rights.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};

use crate::error::{Error, Result, describe};

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The path of `args[0]`: searched in the PATH of `env` unless it contains a slash.
pub fn find(args: &[String], env: &[String]) -> Result<String> {
    let Some(name) = args.first().filter(|n| !n.is_empty()) else {
        return Err(Error::Program("exec: \"\": executable file not found in $PATH".into()));
    };
    if name.contains('/') {
        return match check(name) {
            Ok(()) => Ok(name.clone()),
            // runc says which call failed for what does not exist; engines match on the ending.
            Err(Errno::ENOENT) => {
                Err(Error::Program(format!("exec: {name:?}: stat {name}: no such file or directory")))
            }
            Err(e) => Err(Error::Program(format!("exec: {name:?}: {}", describe(e as i32)))),
        };
    }
    let path = env.iter().rev().find_map(|e| e.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
    let mut denied = false;
    for directory in path.split(':') {
        let candidate =
            if directory.is_empty() { format!("./{name}") } else { format!("{directory}/{name}") };
        match check(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(Errno::EACCES) => denied = true,
            Err(_) => {}
        }
    }
    if denied {
        return Err(Error::Program(format!("exec: {name:?}: permission denied")));
    }
    Err(Error::Program(format!("exec: {name:?}: executable file not found in $PATH")))
}

fn check(path: &str) -> Result<(), Errno> {
    let meta = nix::sys::stat::stat(path)?;
    if nix::sys::stat::SFlag::from_bits_truncate(meta.st_mode & libc::S_IFMT)
        == nix::sys::stat::SFlag::S_IFDIR
    {
        return Err(Errno::EISDIR);
    }
    // faccessat(2) with the effective ids: the rights that exec will have.
    let flags = nix::fcntl::AtFlags::AT_EACCESS;
    match nix::unistd::faccessat(nix::fcntl::AT_FDCWD, path, AccessFlags::X_OK, flags) {
        Err(Errno::ENOSYS | Errno::EINVAL) => access(path, AccessFlags::X_OK),
        other => other,
    }
}

/// An image is hostile: no more than this of its file is read.
const MOST: u64 = 4 << 20;

/// The home directory in the container's /etc/passwd; `/` when it names none.
pub fn home(uid: u32) -> String {
    let text = text_of(Path::new("/etc/passwd"));
    home_in(&String::from_utf8_lossy(&text), uid).unwrap_or_else(|| "/".to_owned())
}

/// The beginning of an ordinary file; nothing of a FIFO (which would hang us) or a device.
fn text_of(path: &Path) -> Vec<u8> {
    let mut text = Vec::new();
    let opened = File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path);
    if let Some(file) = opened.ok().filter(|f| f.metadata().is_ok_and(|m| m.is_file())) {
        let _ = file.take(MOST).read_to_end(&mut text);
    }
    text
}

fn home_in(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':').skip(2);
        let found = fields.next()?.parse() == Ok(uid);
        let home = fields.nth(2)?;
        (found && !home.is_empty()).then(|| home.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(args: &[&str], env: &[&str]) -> String {
        let own = |l: &[&str]| l.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        find(&own(args), &own(env)).unwrap_err().to_string()
    }

    #[test]
    fn commands_are_found_in_the_programs_own_path() {
        assert_eq!(find(&["sh".into()], &["PATH=/nowhere:/bin".into()]).unwrap(), "/bin/sh");
        assert!(find(&["sh".into()], &[]).unwrap().ends_with("/sh"));
    }

    #[test]
    fn failures_are_worded_as_engines_expect() {
        assert!(
            message(&["frob"], &["PATH=/bin"])
                .ends_with("exec: \"frob\": executable file not found in $PATH")
        );
        assert!(message(&["/frob"], &[]).ends_with("exec: \"/frob\": stat /frob: no such file or directory"));
        assert!(message(&["/etc/passwd"], &[]).ends_with("exec: \"/etc/passwd\": permission denied"));
        assert!(message(&["/etc"], &[]).ends_with("is a directory"));
        assert!(message(&["etc"], &["PATH=/"]).ends_with("not found in $PATH"));
        assert!(message(&[], &[]).ends_with("not found in $PATH"));
    }

    #[test]
    fn a_hostile_file_neither_hangs_nor_floods() {
        let dir = std::env::temp_dir().join(format!("davit-lookup-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let fifo = dir.join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(text_of(&fifo).is_empty() && text_of(Path::new("/dev/zero")).is_empty());
        let sparse = dir.join("sparse");
        File::create(&sparse).unwrap().set_len(1 << 40).unwrap();
        assert_eq!(text_of(&sparse).len() as u64, MOST);
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn homes_are_read_from_broken_files_too() {
        let text = "root:x:0:0:root:/root:/bin/sh\nbroken\na:x:7\nb:x:7:7:::\nc:x:8:8:c:/home/c:/bin/sh";
        assert_eq!(home_in(text, 0).as_deref(), Some("/root"));
        assert_eq!(home_in(text, 7), None);
        assert_eq!(home_in(text, 8).as_deref(), Some("/home/c"));
    }
}
