//! The ids that a thread's file operations are done with (setfsuid(2), setfsgid(2)).

use nix::unistd::{Gid, Uid, setfsgid, setfsuid};

/// Runs `work` with other file-system ids, in this thread. What it makes is theirs, and it may do what they may: a change from 0 takes
/// the capabilities that override file permissions away for as long. Without the right to change ids nothing changes.
pub fn with<T>(uid: u32, gid: u32, work: impl FnOnce() -> T) -> T {
    struct Restore(Uid, Gid);
    impl Drop for Restore {
        fn drop(&mut self) {
            setfsuid(self.0);
            setfsgid(self.1);
        }
    }
    let before_gid = setfsgid(Gid::from_raw(gid));
    let before_uid = setfsuid(Uid::from_raw(uid));
    let _restore = Restore(before_uid, before_gid);
    work()
}

/// The same without losing those capabilities: for work on a file system where only these ids exist.
pub fn with_power<T>(uid: u32, gid: u32, work: impl FnOnce() -> T) -> T {
    with(uid, gid, || {
        if let Ok((_, permitted, inheritable)) = crate::caps::get() {
            let _ = crate::caps::set(permitted, permitted, inheritable);
        }
        work()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn what_is_made_belongs_to_the_ids_given() {
        let dir = tempdir();
        std::fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        let owner = with(1234, 4321, || {
            std::fs::write(dir.join("f"), "").unwrap();
            let meta = std::fs::metadata(dir.join("f")).unwrap();
            (meta.uid(), meta.gid())
        });
        std::fs::write(dir.join("g"), "").unwrap();
        let after = std::fs::metadata(dir.join("g")).unwrap();
        let own = (Uid::effective().as_raw(), Gid::effective().as_raw());
        assert_eq!((after.uid(), after.gid()), own);
        assert_eq!(owner, if Uid::effective().is_root() { (1234, 4321) } else { own });
        std::fs::remove_dir_all(dir).unwrap();
    }

    fn tempdir() -> std::path::PathBuf {
        let dir = std::env::temp_dir().join(format!("davit-fs-ids-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        dir
    }
}
