//! Where the serving threads run and how many of them wait for requests.

use fuser::Request;

/// The serving threads.
#[derive(Debug, Default)]
pub struct Crew {}

/// A thread's work on one request, until after its answer.
#[derive(Debug)]
pub struct Turn<'a> {
    _crew: &'a Crew,
}

impl Crew {
    /// Begins a request that is over soon.
    pub fn turn(&self, _req: &Request) -> Turn<'_> {
        Turn { _crew: self }
    }

    /// Begins a request that may wait for a disk.
    pub fn long_turn(&self, _req: &Request) -> Turn<'_> {
        Turn { _crew: self }
    }
}
