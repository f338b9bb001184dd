//! `davit-cowfs`: davit's copy-on-write file system as a FUSE mount, with fuse-overlayfs's command line.
//!
//! ```text
//! options (words -> Options)  ->  serve  ->  mount (/dev/fuse)
//!                                   |
//!                                 fuse (requests -> davit_cowfs::CowFs), threads placed by placement
//! ```

pub mod fuse;
pub mod mount;
pub mod options;
pub mod placement;
pub mod serve;
