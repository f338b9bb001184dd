//! The commands: iptables-restore for whole changes, iptables for single rules in chains that are everybody's. The crate
//! `iptables` finds the command and what it understands; since the crate waits for the lock without end, the calls are made here.
//!
//! Every call ends: the lock that all these commands take is waited for a few seconds, and a command that does not end is
//! killed. The engine's only thread waits meanwhile.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::AsFd as _;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::children::Children;
use crate::firewall::FirewallError;

/// How long the lock is waited for, in seconds.
pub const LOCK_WAIT: &str = "5";
/// How long a command may take, the wait for the lock included.
const PATIENCE: Duration = Duration::from_secs(15);
/// The most that is kept of what a command complains.
const LARGEST_COMPLAINT: usize = 16 << 10;

/// The commands of one IP version.
#[derive(Debug)]
pub struct Tool {
    /// `iptables` or `ip6tables`, or that of one variant.
    command: &'static str,
    /// The same with `-restore`.
    restore: String,
    /// Whether it knows `--wait`.
    waits: bool,
    children: Children,
}

/// What a command did.
struct Done {
    status: ExitStatus,
    out: String,
    complaint: String,
}

impl Done {
    fn succeeded(&self, command: &str) -> Result<(), FirewallError> {
        if self.status.success() {
            return Ok(());
        }
        let line = self.complaint.lines().next().unwrap_or("it failed without a word").trim();
        Err(FirewallError::Command { command: command.to_owned(), reason: line.to_owned() })
    }
}

impl Tool {
    /// The host's own choice of variant; its processes are noted in `children`.
    pub fn of(ipv6: bool, children: Children) -> Result<Self, FirewallError> {
        Self::named(if ipv6 { "ip6tables" } else { "iptables" }, ipv6, children)
    }

    /// The variant that does without nf_tables.
    pub fn legacy(ipv6: bool) -> Result<Self, FirewallError> {
        Self::named(if ipv6 { "ip6tables-legacy" } else { "iptables-legacy" }, ipv6, Children::default())
    }

    fn named(command: &'static str, ipv6: bool, children: Children) -> Result<Self, FirewallError> {
        let missing = |e: Box<dyn std::error::Error>| FirewallError::NoCommand {
            command: command.to_owned(),
            reason: e.to_string(),
        };
        let found = iptables::new(ipv6).map_err(missing)?;
        Ok(Self { command, restore: format!("{command}-restore"), waits: found.has_wait, children })
    }

    /// Which kernel interface the command writes to: `nf_tables` or `legacy`.
    pub fn variant(&self) -> &'static str {
        let out = Command::new(self.command).arg("--version").stdin(Stdio::null()).output();
        let nft = out.is_ok_and(|o| String::from_utf8_lossy(&o.stdout).contains("nf_tables"));
        if nft { "nf_tables" } else { "legacy" }
    }

    /// Makes a change. Others' rules stay; each table changes whole or not at all.
    pub fn restore(&self, script: &str) -> Result<(), FirewallError> {
        let done = self.run(&self.restore, &["--noflush"], script)?;
        done.succeeded(&self.restore)
    }

    fn run(&self, command: &str, args: &[&str], input: &str) -> Result<Done, FirewallError> {
        let failed =
            |e: io::Error| FirewallError::Command { command: command.to_owned(), reason: e.to_string() };
        let mut process = Command::new(command);
        process.args(args);
        if self.waits {
            process.args(["--wait", LOCK_WAIT]);
        }
        let out = memory("").map_err(failed)?;
        let mut child = process
            .stdin(memory(input).map_err(failed)?)
            .stdout(out.try_clone().map_err(failed)?)
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        self.children.note(child.id());
        let complaint = match child.stderr.take().map(|stderr| until_closed(stderr, PATIENCE)) {
            Some(Ok(Some(text))) => text,
            Some(Err(e)) => format!("what it says cannot be read: {e}"),
            None => String::new(),
            Some(Ok(None)) => {
                end(&mut child);
                return Err(FirewallError::Late { command: command.to_owned(), after: PATIENCE });
            }
        };
        let status = child.wait().map_err(failed)?;
        let out = contents(out).map_err(failed)?;
        if !status.success() && complaint.contains("xtables lock") {
            return Err(FirewallError::Locked { command: command.to_owned() });
        }
        Ok(Done { status, out, complaint })
    }

    /// A command about a table; `rest` is in words, of which some are in single quotes.
    fn about(&self, table: &str, rest: &str) -> Result<Done, FirewallError> {
        let rest = words(rest);
        let mut args = vec!["-t", table];
        args.extend(rest.iter().map(String::as_str));
        self.run(self.command, &args, "")
    }

    /// Whether a chain holds a rule.
    pub fn has(&self, table: &str, chain: &str, rule: &str) -> Result<bool, FirewallError> {
        Ok(self.about(table, &format!("-C {chain} {rule}"))?.status.success())
    }

    /// The rules of a chain as the command prints them; none when there is no such chain.
    pub fn rules(&self, table: &str, chain: &str) -> Vec<String> {
        self.added(table, &format!("-S {chain}"))
    }

    /// The rules of all chains of a table as the command prints them; none when it cannot be asked.
    pub fn table(&self, table: &str) -> Vec<String> {
        self.added(table, "-S")
    }

    fn added(&self, table: &str, list: &str) -> Vec<String> {
        let Ok(done) = self.about(table, list) else { return Vec::new() };
        done.out.lines().filter(|l| l.starts_with("-A ")).map(str::to_owned).collect()
    }

    /// Puts a rule before all others of a chain, unless it is there.
    pub fn ensure(&self, table: &str, chain: &str, rule: &str) -> Result<(), FirewallError> {
        if self.has(table, chain, rule)? {
            return Ok(());
        }
        let done = self.about(table, &format!("-I {chain} 1 {rule}"))?;
        done.succeeded(self.command)
    }

    /// Whether a rule is in a chain, and all that is behind it are `alike`, which may want to be last as well.
    pub fn is_last(&self, table: &str, chain: &str, rule: &str, alike: impl Fn(&str) -> bool) -> bool {
        let (rules, line) = (self.rules(table, chain), format!("-A {chain} {rule}"));
        let first = rules.iter().position(|r| r.trim_end() == line);
        first.is_some_and(|at| rules[at..].iter().all(|r| r.trim_end() == line || alike(r)))
    }

    /// Puts a rule behind all others of a chain but those that are `alike`; it is there at any time.
    pub fn ensure_last(
        &self,
        table: &str,
        chain: &str,
        rule: &str,
        alike: impl Fn(&str) -> bool,
    ) -> Result<(), FirewallError> {
        if self.is_last(table, chain, rule, &alike) {
            return Ok(());
        }
        self.about(table, &format!("-A {chain} {rule}"))?.succeeded(self.command)?;
        // What is taken out is the first of them.
        while !self.is_last(table, chain, rule, &alike) {
            self.about(table, &format!("-D {chain} {rule}"))?.succeeded(self.command)?;
        }
        Ok(())
    }

    /// Takes a rule out, however often it is there.
    pub fn drop_all(&self, table: &str, chain: &str, rule: &str) -> Result<(), FirewallError> {
        while self.has(table, chain, rule)? {
            let done = self.about(table, &format!("-D {chain} {rule}"))?;
            done.succeeded(self.command)?;
        }
        Ok(())
    }

    /// Whether a table has a chain.
    pub fn has_chain(&self, table: &str, chain: &str) -> Result<bool, FirewallError> {
        Ok(self.about(table, &format!("-S {chain}"))?.status.success())
    }

    /// Whether a chain of the kernel drops what no rule takes.
    pub fn drops(&self, table: &str, chain: &str) -> Result<bool, FirewallError> {
        let policy = format!("-P {chain} DROP");
        Ok(self.about(table, &format!("-S {chain}"))?.out.lines().any(|l| l.trim() == policy))
    }
}

/// A file in memory: a command neither waits for us to write, nor we for it to read.
fn memory(text: &str) -> io::Result<File> {
    let mut file = File::from(memfd_create(c"davit-iptables", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(text.as_bytes())?;
    file.rewind()?;
    Ok(file)
}

fn contents(mut file: File) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// What is written into a pipe until its other end is closed, as it is when a process ends; `None` when that takes too long.
fn until_closed(mut pipe: ChildStderr, patience: Duration) -> io::Result<Option<String>> {
    let end = Instant::now() + patience;
    let (mut kept, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        let wait = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)], wait) {
            Ok(0) | Err(nix::errno::Errno::EINTR) => continue,
            Ok(_) => {}
            Err(e) => return Err(e.into()),
        }
        match pipe.read(&mut buffer)? {
            0 => return Ok(Some(String::from_utf8_lossy(&kept).into_owned())),
            n if kept.len() < LARGEST_COMPLAINT => kept.extend_from_slice(&buffer[..n]),
            _ => {}
        }
    }
}

fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

/// Words apart at spaces, except within single quotes, which go.
fn words(text: &str) -> Vec<String> {
    let mut all = Vec::new();
    for (n, part) in text.split('\'').enumerate() {
        if n % 2 == 1 {
            all.push(part.to_owned());
        } else {
            all.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, patience: Duration) -> Option<String> {
        let mut child = Command::new("sh").args(["-c", script]).stderr(Stdio::piped()).spawn().unwrap();
        let said = until_closed(child.stderr.take().unwrap(), patience).unwrap();
        end(&mut child);
        said
    }

    #[test]
    fn a_command_that_does_not_end_is_given_up() {
        assert_eq!(shell("exec sleep 1000", Duration::from_millis(50)), None);
        assert_eq!(shell("echo no >&2", Duration::from_secs(60)).as_deref(), Some("no\n"));
    }

    #[test]
    fn quoted_words_stay_together() {
        assert_eq!(
            words("-I FORWARD 1  --comment 'a b' -j X"),
            ["-I", "FORWARD", "1", "--comment", "a b", "-j", "X"]
        );
    }
}
