//! A store under load: several workers whose promises are kept in mind, and a check of them after a death.
#![allow(dead_code, clippy::unwrap_used)] // each test file uses its part

#[path = "corpus.rs"]
pub mod corpus;
#[path = "registry.rs"]
pub mod registry;
#[path = "verify.rs"]
pub mod verify;
#[path = "worker.rs"]
pub mod worker;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use corpus::Corpus;
use tokio::task::JoinHandle;
use worker::{Answer, Known, Taste, Worker};

use crate::host::{Clients, Host};

/// How many of them there are.
pub const WORKERS: usize = 3;

pub struct Storm {
    pub corpus: Arc<Corpus>,
    pub known: Vec<Arc<Mutex<Known>>>,
    /// Names in a registry, with their layers.
    pub pulled: Vec<(String, Vec<usize>)>,
    seed: u64,
    round: u64,
}

/// Workers at work.
pub struct Load {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Storm {
    pub fn new(seed: u64) -> Self {
        let known = (0..WORKERS).map(|_| Arc::default()).collect();
        Self { corpus: Arc::new(Corpus::new()), known, pulled: Vec::new(), seed, round: 0 }
    }

    /// Forgets all, with a state that is gone.
    pub fn forget(&mut self) {
        self.known.iter_mut().for_each(|k| *k = Arc::default());
    }

    /// Workers begin, each until the daemon dies, or after `steps`.
    pub fn begin(&mut self, clients: &Clients, taste: Taste, steps: usize) -> Load {
        self.round += 1;
        let stop = Arc::new(AtomicBool::new(false));
        let tasks = (0..WORKERS)
            .map(|id| {
                let seed = self.seed.wrapping_add(self.round << 8);
                let known = Arc::clone(&self.known[id]);
                let mut worker = Worker::new(id, Arc::clone(&self.corpus), clients.clone(), known, seed);
                worker.taste = taste;
                worker.pulled = self.pulled.iter().skip(id).step_by(WORKERS).cloned().collect();
                let stop = Arc::clone(&stop);
                tokio::spawn(async move {
                    for _ in 0..steps {
                        if stop.load(Ordering::SeqCst) || worker.step().await == Answer::Died {
                            break;
                        }
                    }
                })
            })
            .collect();
        Load { stop, tasks }
    }

    /// Checks what is known, and goes on from what is there.
    pub async fn verify(&mut self, host: &Host, death: verify::Death) {
        let mut known: Vec<Known> = self.known.iter().map(|k| k.lock().unwrap().clone()).collect();
        verify::verify(host, &self.corpus, &mut known, death).await;
        for (mine, is) in self.known.iter().zip(known) {
            *mine.lock().unwrap() = is;
        }
    }
}

impl Load {
    /// Whether all workers have ended by themselves.
    pub fn is_over(&self) -> bool {
        self.tasks.iter().all(JoinHandle::is_finished)
    }

    /// Lets each finish what it is at.
    pub async fn end(self) {
        self.stop.store(true, Ordering::SeqCst);
        for task in self.tasks {
            tokio::time::timeout(Duration::from_secs(60), task).await.expect("a worker hangs").unwrap();
        }
    }
}
