//! Interfaces removed behind the caller's back: the kernel takes some 20 ms to unregister a device, which nobody should
//! wait for when a container ends.
//!
//! A thread of its own removes them, one after another. Their addresses stay taken until they are gone. No record is
//! needed meanwhile: after a kill the interfaces bear our mark and no record names them, so the next start removes them.

use std::sync::mpsc;
use std::thread;

use super::{Engine, EngineError};
use crate::driver::bridge;
use crate::endpoint::Endpoint;
use crate::netlink::{Protocol, Socket};

/// The thread, and what it has not reported yet.
#[derive(Debug)]
pub(super) struct Sweeper {
    jobs: mpsc::Sender<Vec<Endpoint>>,
    done: mpsc::Receiver<Vec<Endpoint>>,
    pending: usize,
}

impl Sweeper {
    /// Starts the thread in the caller's network namespace.
    pub(super) fn start() -> Result<Self, EngineError> {
        let socket = Socket::open(Protocol::Route)?;
        let (jobs, queue) = mpsc::channel::<Vec<Endpoint>>();
        let (report, done) = mpsc::channel();
        let work = move || {
            for endpoints in queue {
                for endpoint in endpoints.iter().filter(|e| e.is_wired()) {
                    if let Err(error) = bridge::remove(&socket, &endpoint.host_interface) {
                        tracing::warn!(interface = %endpoint.host_interface, %error, "left until the next start");
                    }
                }
                let _ = report.send(endpoints);
            }
        };
        thread::Builder::new()
            .name("netd-sweeper".into())
            .stack_size(128 << 10)
            .spawn(work)
            .map_err(EngineError::Thread)?;
        Ok(Self { jobs, done, pending: 0 })
    }
}

impl Engine {
    /// Hands endpoints over; their addresses are free once their interfaces are gone.
    pub(super) fn sweep(&mut self, endpoints: Vec<Endpoint>) {
        self.collect_swept();
        if endpoints.is_empty() {
            return;
        }
        self.sweeper.pending += 1;
        self.sweeper.jobs.send(endpoints).expect("the thread lives as long as its queue");
    }

    fn collect_swept(&mut self) {
        while let Ok(endpoints) = self.sweeper.done.try_recv() {
            self.swept(&endpoints);
        }
    }

    fn swept(&mut self, endpoints: &[Endpoint]) {
        self.sweeper.pending -= 1;
        for endpoint in endpoints {
            self.release_addresses(endpoint);
        }
    }

    /// Waits until everything that was handed over is gone; whether there was anything.
    pub(super) fn settle(&mut self) -> bool {
        let any = self.sweeper.pending > 0;
        while self.sweeper.pending > 0 {
            let Ok(endpoints) = self.sweeper.done.recv() else { return any };
            self.swept(&endpoints);
        }
        any
    }
}
