//! `davit-cowfs`: davit's copy-on-write file system as a FUSE mount, with fuse-overlayfs's command line.
//!
//! ```text
//! options (words -> Options)  ->  serve  ->  mount (/dev/fuse)
//!                                   |
//!                                 fuse (requests -> davit_cowfs::CowFs)
//! ```

pub mod crew;
pub mod fuse;
pub mod mount;
pub mod options;
pub mod serve;
