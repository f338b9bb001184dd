//! Which processes were commands of ours. iptables over nf_tables has its changes told with the number of its process, so
//! that they are known from others'.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// How many are remembered: whoever listens is no more than a change or two behind.
const KEPT: usize = 64;

/// The last processes; clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Children(Arc<Mutex<VecDeque<u32>>>);

impl Children {
    /// Remembers one.
    pub fn note(&self, pid: u32) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() == KEPT {
            all.pop_front();
        }
        all.push_back(pid);
    }

    /// Whether it was one of ours lately.
    pub fn have(&self, pid: u32) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&pid)
    }
}
