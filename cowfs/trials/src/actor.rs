//! Processes that act: each with descriptors, locks and an identity of its own.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde::{Deserialize, Serialize};

use crate::act::Act;
use crate::host::binary;
use crate::op::{Op, Outcome};

/// What an actor is told, a line of JSON each; every one has an answer.
#[derive(Debug, Serialize, Deserialize)]
enum Request {
    /// From now on acts on these trees.
    Trees(Vec<PathBuf>),
    /// Makes a call on each of the trees of these numbers, in turn.
    Make(Vec<usize>, Op),
    /// Lets go of all descriptors and mappings.
    Release,
}

/// A process that acts. It ends with this value.
#[derive(Debug)]
pub struct Actor {
    child: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Actor {
    /// Starts one with this user and group id, without other groups, in the namespaces of the calling thread.
    pub fn start(id: u32) -> Self {
        let mut command = Command::new(binary("davit-trial-actor"));
        let mut child =
            command.arg(id.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (ask, answers) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, ask, answers }
    }

    /// Acts on these trees from now on; numbers count from 0.
    pub fn trees(&mut self, roots: &[&Path]) {
        let roots = roots.iter().map(|r| r.to_path_buf()).collect();
        self.send(&Request::Trees(roots));
    }

    /// Makes a call on each of these trees.
    pub fn make(&mut self, trees: &[usize], op: &Op) -> Vec<Outcome> {
        self.send(&Request::Make(trees.to_vec(), op.clone()))
    }

    /// Makes a call on the first tree.
    pub fn one(&mut self, op: &Op) -> Outcome {
        self.one_of(0, op)
    }

    /// Makes a call on one tree.
    pub fn one_of(&mut self, tree: usize, op: &Op) -> Outcome {
        self.make(&[tree], op).pop().unwrap()
    }

    /// Lets go of everything that is held.
    pub fn release(&mut self) {
        self.send(&Request::Release);
    }

    fn send(&mut self, request: &Request) -> Vec<Outcome> {
        let mut line = serde_json::to_string(request).unwrap();
        line.push('\n');
        self.ask.write_all(line.as_bytes()).unwrap();
        line.clear();
        self.answers.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("the actor died at {request:?}: {e}"))
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The life of such a process. It takes its identity by itself: the program may lie where only root can start it.
pub fn run(id: u32) -> std::io::Result<()> {
    if id != 0 {
        davit_sys::fork::set_ids(id, id, Some(&[]))?;
    }
    let mut act = Act::default();
    for line in std::io::stdin().lock().lines() {
        let answer = match serde_json::from_str(&line?)? {
            Request::Trees(roots) => {
                act = Act::new(roots);
                Vec::new()
            }
            Request::Make(trees, op) => trees.into_iter().map(|tree| act.make(tree, &op)).collect(),
            Request::Release => {
                act.release();
                Vec::new()
            }
        };
        let mut line = serde_json::to_string(&answer)?;
        line.push('\n');
        std::io::stdout().write_all(line.as_bytes())?;
        std::io::stdout().flush()?;
    }
    Ok(())
}
