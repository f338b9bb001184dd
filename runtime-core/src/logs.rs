//! Reading a container's docker json-file log, rotated files included, and following it.
//!
//! The monitor writes; this only reads, so it needs no agreement with the writer but the format: one JSON object a line, rotation by
//! renaming `X` to `X.1`, `X.1` to `X.2`. Files are opened newest first and told apart by inode, so that a rotation at any moment neither
//! repeats nor skips a file.

pub mod follow;
pub mod line;
pub mod reader;
