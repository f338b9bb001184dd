//! Container logs: what is asked for, and reading what the monitor writes.
//!
//! The monitor writes; this only reads, so it needs no agreement with the writer but the formats, and that a rotation renames `X` to `X.1`,
//! `X.1` to `X.2`, and compresses `X.1` to `X.1.gz`. Files are opened newest first and told apart by inode, or by their beginnings where one
//! was compressed, so that a rotation at any moment neither repeats nor skips a file.

pub mod follow;
pub mod journal;
pub mod line;
pub mod local;
pub mod options;
pub mod part;
pub mod reader;
pub mod tag;
