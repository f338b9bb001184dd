//! The first process of a container with `--init`, as bytes.
//!
//! The program (`program/main.rs`) is linked statically, so that it runs in an image that has nothing, and is part of whoever places it:
//! there is no file more to install. It starts the command that follows `--`, hands it every signal that it gets itself, waits for
//! whatever else ends in the container, and ends as the command does: with its code, 128+n after signal n, 127 when it is not
//! found, 126 when it cannot be run. Without a command it only waits, until SIGTERM or SIGINT.

/// The program: a static executable of the target that this was built for.
pub const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/davit-init"));

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::process::ExitStatusExt as _;
    use std::path::PathBuf;
    use std::process::{Command, Stdio};

    fn program(dir: &tempfile::TempDir) -> PathBuf {
        let path = dir.path().join("init");
        let mut file = fs::File::create(&path).unwrap();
        file.write_all(super::PROGRAM).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn it_ends_as_its_command_does() {
        let dir = tempfile::tempdir().unwrap();
        let init = program(&dir);
        for (command, code) in [
            (&["sh", "-c", "exit 7"][..], 7),
            (&["sh", "-c", "kill -9 $$"], 137),
            (&["no-such-program"], 127),
            (&["/etc/passwd"], 126),
        ] {
            let ran = Command::new(&init).arg("--").args(command).stderr(Stdio::null()).status().unwrap();
            assert_eq!(ran.code(), Some(code), "{command:?}");
        }
    }

    #[test]
    fn signals_reach_the_command_and_alone_it_waits() {
        let dir = tempfile::tempdir().unwrap();
        let init = program(&dir);
        let script = "trap 'exit 5' USR1; echo up; while :; do sleep 0.05; done";
        let mut child =
            Command::new(&init).args(["--", "sh", "-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        let mut up = [0; 3];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut up).unwrap();
        let send = |signal: &str, pid: u32| {
            Command::new("kill").args([signal, &pid.to_string()]).status().unwrap();
        };
        send("-USR1", child.id());
        assert_eq!(child.wait().unwrap().code(), Some(5));
        let mut alone = Command::new(&init).spawn().unwrap();
        send("-USR1", alone.id());
        std::thread::sleep(std::time::Duration::from_millis(100));
        assert!(alone.try_wait().unwrap().is_none());
        send("-TERM", alone.id());
        let ended = alone.wait().unwrap();
        // Before it has blocked the signal, its default action ends it just as well.
        assert!(ended.success() || ended.signal() == Some(15));
    }

    #[test]
    fn it_needs_nothing_of_its_image() {
        // ELF64: the program headers name neither an interpreter (3) nor anything dynamic (2).
        let b = super::PROGRAM;
        let u16_at = |at: usize| usize::from(u16::from_le_bytes([b[at], b[at + 1]]));
        let start = usize::try_from(u64::from_le_bytes(b[32..40].try_into().unwrap())).unwrap();
        for n in 0..u16_at(56) {
            let at = start + n * u16_at(54);
            let kind = u32::from_le_bytes(b[at..at + 4].try_into().unwrap());
            assert!(kind != 3 && kind != 2, "program header {n} is of type {kind}");
        }
        assert!(b.len() < 2 << 20, "{} bytes", b.len());
    }
}
