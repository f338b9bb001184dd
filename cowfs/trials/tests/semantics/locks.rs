//! Locks between processes.

use davit_cowfs_trials::fs::{Fs, on_both};
use davit_cowfs_trials::mount::Manner;
use davit_cowfs_trials::op::{Lock, Op, Outcome};
use rustix::io::Errno;

const HELD: Outcome = Outcome::Failed(Errno::AGAIN.raw_os_error());

fn open() -> Op {
    Op::Open { path: "file".into(), slot: 0, flags: 2, mode: 0 }
}

#[test]
fn flock_holds_between_processes() {
    on_both(Manner::ROOT, "echo x > file", |fs: &mut Fs<'_>| {
        let (mut one, mut two) = (fs.actor(0), fs.actor(0));
        let lock = |lock| Op::Flock { slot: 0, lock };
        for actor in [&mut one, &mut two] {
            assert_eq!(actor.one(&open()), Outcome::Done);
        }
        assert_eq!(one.one(&lock(Lock::Exclusive)), Outcome::Done);
        assert_eq!(two.one(&lock(Lock::Shared)), HELD);
        assert_eq!(one.one(&lock(Lock::Shared)), Outcome::Done);
        assert_eq!(two.one(&lock(Lock::Shared)), Outcome::Done);
        assert_eq!(two.one(&lock(Lock::Exclusive)), HELD);
        // The end of a process ends its lock.
        drop(one);
        assert_eq!(two.one(&lock(Lock::Exclusive)), Outcome::Done);
    });
}

#[test]
fn posix_locks_hold_ranges_between_processes() {
    on_both(Manner::ROOT, "echo 0123456789 > file", |fs| {
        let (mut one, mut two) = (fs.actor(0), fs.actor(0));
        let lock = |at, len, lock| Op::Lock { slot: 0, at, len, lock };
        for actor in [&mut one, &mut two] {
            assert_eq!(actor.one(&open()), Outcome::Done);
        }
        assert_eq!(one.one(&lock(0, 5, Lock::Exclusive)), Outcome::Done);
        assert_eq!(two.one(&lock(4, 1, Lock::Shared)), HELD);
        assert_eq!(two.one(&lock(5, 5, Lock::Exclusive)), Outcome::Done);
        // A write that copies the file up changes nothing about it.
        assert_eq!(one.one(&Op::Write { slot: 0, len: 3, seed: 1 }), Outcome::Count(3));
        assert_eq!(two.one(&lock(0, 1, Lock::Shared)), HELD);
        assert_eq!(one.one(&lock(0, 5, Lock::Unlock)), Outcome::Done);
        assert_eq!(two.one(&lock(0, 1, Lock::Shared)), Outcome::Done);
    });
}
