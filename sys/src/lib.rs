//! The kernel behind one fence: the only crate of davit that may use `unsafe`.
//!
//! Functions take and return [`std::os::fd::OwnedFd`] and [`std::os::fd::BorrowedFd`], never numbers. Errors name the operation and
//! what it was done to. Each file is one topic of the kernel's interface and cites the man page it follows.

#![allow(unsafe_code)]

pub mod apart;
pub mod beneath;
pub mod bpf;
pub mod caps;
pub mod cgroup;
pub mod chmod;
pub mod datagrams;
pub mod failpoint;
pub mod file_handle;
pub mod fork;
pub mod fs_ids;
pub mod landlock;
pub mod loopback;
pub mod mapping;
pub mod mount;
pub mod netns;
pub mod pages;
pub mod private_mounts;
pub mod process;
pub mod pty;
pub mod resident;
pub mod rootfs;
pub mod scheduling;
pub mod seccomp;
pub mod served;
pub mod service;
pub mod socket;
pub mod userns;
pub mod xattr;
pub mod xtables;
