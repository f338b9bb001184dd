//! What the measuring process is told, and what it answers.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::engine::Engine;

/// As root of the machine, and as root of a user namespace.
pub const PRIVILEGES: [&str; 2] = ["root", "userns"];

/// All that is to be measured.
#[derive(Debug, Serialize, Deserialize)]
pub struct Plan {
    /// In this order.
    pub ops: Vec<Op>,
    /// Real work, in this order.
    pub works: Vec<Op>,
    /// A tar of a Debian root and a directory of packages, if there is real work.
    pub sources: Option<(String, String)>,
    /// In turn.
    pub engines: Vec<Engine>,
    /// `one`, `free`.
    pub placements: Vec<String>,
    /// How often.
    pub rounds: usize,
    /// Amounts of work are divided by it.
    pub part: usize,
    /// Files to walk for the look at memory.
    pub memory: usize,
    /// `davit-fs-ops`.
    pub program: PathBuf,
    /// An empty directory, for a tmpfs.
    pub at: PathBuf,
}

/// One operation, as `davit-fs-ops list` has it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Op {
    /// What it is called.
    pub name: String,
    /// What is counted.
    pub unit: String,
    /// What is done.
    pub about: String,
}

/// One result.
#[derive(Debug, Serialize, Deserialize)]
pub enum Line {
    /// An operation took this long.
    Sample {
        /// `root` or `userns`.
        privilege: String,
        /// `one` or `free`.
        placement: String,
        /// Which operation.
        op: String,
        /// On which engine.
        engine: String,
        /// Wall time of all units.
        nanos: u64,
        /// How many.
        units: u64,
    },
    /// What a server holds; kilobytes.
    Memory {
        /// `root` or `userns`.
        privilege: String,
        /// Which engine's.
        engine: String,
        /// Files and directories that were walked.
        files: u64,
        /// Resident size after the walk.
        walked: u64,
        /// Resident size after the kernel has forgotten them.
        forgotten: u64,
    },
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sample { privilege, placement, op, engine, nanos, units } => {
                let each = nanos / units.max(&1);
                write!(f, "{privilege} {placement:4} {op:18} {engine:20} {each:>9} ns x {units}")
            }
            Self::Memory { privilege, engine, files, walked, forgotten } => {
                write!(
                    f,
                    "{privilege} {engine}: {walked} kB after {files} files, {forgotten} kB once forgotten"
                )
            }
        }
    }
}
