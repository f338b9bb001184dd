//! Somebody who runs, enters, stops, kills and removes containers of their own, and knows what each of them must end with.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use davit_tests::{Host, Ran};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};

/// docker's code for a program that SIGKILL ended.
const KILLED: i32 = 137;

/// What is known of a container.
#[derive(Debug, Default, Clone, Copy)]
struct Known {
    /// Somebody sent it SIGKILL, or `run` was cut short: it need not have told its code.
    killed: bool,
    /// It was told to end: it does not run any more, or not for long.
    ended: bool,
}

/// One who acts.
#[derive(Debug)]
pub struct Crew<'h> {
    host: &'h Host,
    number: usize,
    most: usize,
    random: SmallRng,
    there: BTreeMap<String, Known>,
    made: usize,
    /// Commands given.
    pub done: usize,
}

impl<'h> Crew<'h> {
    pub fn new(host: &'h Host, number: usize, most: usize, seed: u64) -> Self {
        let random = SmallRng::seed_from_u64(seed ^ (number as u64 + 1) << 32);
        Self { host, number, most, random, there: BTreeMap::new(), made: 0, done: 0 }
    }

    /// One command.
    pub fn act(&mut self) {
        self.done += 1;
        let Some(name) = self.any() else { return self.run() };
        match self.random.random_range(0..100) {
            0..40 if self.there.len() < self.most => self.run(),
            0..60 => self.exec(&name),
            60..70 => self.stop(&name),
            70..75 => self.kill(&name),
            75..80 => self.read(&name),
            80..85 => self.look_at(&name),
            _ => self.remove(&name),
        }
    }

    fn any(&mut self) -> Option<String> {
        let count = self.there.len();
        (count > 0)
            .then(|| self.random.random_range(0..count))
            .and_then(|n| self.there.keys().nth(n).cloned())
    }

    fn told(&self, name: &str) -> PathBuf {
        self.host.work(&format!("told-{name}"))
    }

    fn davit(&self, words: &[&str]) -> Ran {
        let ran = self.host.davit(words);
        assert!(!ran.stderr.contains("panicked"), "{ran}");
        assert!(ran.code == 0 || !ran.stderr.is_empty() || words[0] == "exec", "a silent failure: {ran}");
        ran
    }

    /// A program that ends by itself after a while, or soon after SIGTERM, each with a code that it writes down first.
    fn run(&mut self) {
        self.made += 1;
        let name = format!("c{}-{}", self.number, self.made);
        let (own, asked) = (self.random.random_range(0..100), self.random.random_range(100..120));
        let turns = if self.random.random_bool(0.5) { self.random.random_range(0..20) } else { 100_000 };
        let script = format!(
            "end() {{ echo $1 > /told; exit $1; }}; trap 'end {asked}' TERM; echo here; i=0; \
             while [ $i -lt {turns} ]; do sleep 0.2 & wait $!; i=$((i+1)); done; end {own}"
        );
        let told = self.told(&name);
        fs::write(&told, "").expect("the test's own directory");
        let volume = format!("{}:/told", told.display());
        let net = if self.random.random_bool(0.5) { "sea" } else { "none" };
        let ran = self.davit(&[
            "run",
            "-d",
            "--name",
            &name,
            "--net",
            net,
            "-v",
            &volume,
            "busybox:1",
            "sh",
            "-c",
            &script,
        ]);
        let known = Known { killed: ran.code != 0, ended: ran.code != 0 || turns < 100_000 };
        self.there.insert(name, known);
    }

    fn exec(&mut self, name: &str) {
        let code = self.random.random_range(1..100);
        let ran = self.davit(&["exec", name, "sh", "-c", &format!("echo out; exit {code}")]);
        let known = self.there[name];
        // A daemon died under it, which it says; or the container ended meanwhile and took it along.
        let cut = (!ran.stderr.is_empty() && ran.code != 0) || (known.ended && ran.code == KILLED);
        assert!(cut || (ran.code == code && ran.text() == "out"), "{known:?} {ran}");
    }

    fn stop(&mut self, name: &str) {
        self.mark(name, |k| k.ended = true);
        // Long enough for a program that has to be woken on a machine full of work.
        let ran = self.davit(&["stop", "-t", "60", name]);
        if ran.code == 0 {
            self.look_at(name);
        }
    }

    fn kill(&mut self, name: &str) {
        self.mark(name, |k| *k = Known { killed: true, ended: true });
        self.davit(&["kill", name]);
    }

    fn read(&mut self, name: &str) {
        let ran = self.davit(&["logs", name]);
        if ran.code == 0 && !self.there[name].killed {
            assert!(ran.text().is_empty() || ran.text() == "here", "{ran}");
        }
    }

    fn remove(&mut self, name: &str) {
        self.mark(name, |k| *k = Known { killed: true, ended: true });
        if self.davit(&["rm", "-f", name]).code == 0 {
            self.forget(name);
        }
    }

    fn mark(&mut self, name: &str, change: impl FnOnce(&mut Known)) {
        if let Some(known) = self.there.get_mut(name) {
            change(known);
        }
    }

    fn forget(&mut self, name: &str) {
        self.there.remove(name);
        let _ = fs::remove_file(self.told(name));
    }

    /// Compares how it stands with what its program has written down.
    fn look_at(&mut self, name: &str) {
        let format = "{{.State.Status}} {{.State.ExitCode}} {{.State.StartedAt}} {{.State.FinishedAt}} {{.State.Error}}";
        let ran = self.davit(&["inspect", "--type", "container", "-f", format, name]);
        let known = self.there[name];
        if ran.code != 0 {
            // A `run` that failed may have made nothing.
            assert!(known.killed || !ran.stderr.contains("No such"), "{known:?} {ran}");
            return;
        }
        let words: Vec<&str> = ran.text().split(' ').collect();
        let code: i32 = words[1].parse().unwrap_or_else(|e| panic!("{e}: {ran}"));
        let told = fs::read_to_string(self.told(name)).expect("made with it");
        match (words[0], told.trim().parse::<i32>().ok()) {
            ("exited", Some(told)) => {
                assert!(code == told || (known.killed && code == KILLED), "it told {told}: {known:?} {ran}");
                assert!(words[2] <= words[3] && !words[3].starts_with("0001"), "{ran}");
            }
            ("exited", None) => assert!(known.killed && code == KILLED, "{known:?} {ran}"),
            // It is about to end.
            ("running", Some(_)) => {}
            ("running", None) => assert_eq!(code, 0, "{ran}"),
            ("created", None) => assert!(known.killed, "{known:?} {ran}"),
            (other, told) => panic!("{other}, told {told:?}, {known:?}: {ran}"),
        }
    }

    /// After the storm: nothing may fail any more.
    pub fn look_at_all(&mut self) {
        for name in self.there.keys().cloned().collect::<Vec<_>>() {
            self.look_at(&name);
            let known = self.there[&name];
            if !known.ended {
                self.host.davit(["exec", &name, "sh", "-c", "exit 9"]).exits(9);
                self.host.davit(["stop", "-t", "60", &name]).ok();
                self.host.davit(["wait", &name]).ok();
                self.look_at(&name);
            }
        }
    }

    pub fn remove_all(&mut self) {
        for name in self.there.keys().cloned().collect::<Vec<_>>() {
            let ran = self.host.davit(["rm", "-f", &name]);
            assert!(ran.code == 0 || self.there[&name].killed, "{ran}");
            self.forget(&name);
        }
    }
}
