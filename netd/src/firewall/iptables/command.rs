//! The commands: iptables-restore for whole changes, iptables (by the crate of that name) for single rules in chains that
//! are everybody's.

use std::io::Write as _;
use std::process::{Command, Stdio};

use iptables::IPTables;

use crate::firewall::FirewallError;

/// The commands of one IP version.
pub struct Tool {
    /// `iptables-restore` or `ip6tables-restore`, or those of one variant.
    restore: String,
    rules: IPTables,
}

impl std::fmt::Debug for Tool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Tool").field(&self.rules.cmd).finish()
    }
}

impl Tool {
    /// The host's own choice of variant.
    pub fn of(ipv6: bool) -> Result<Self, FirewallError> {
        let command = if ipv6 { "ip6tables" } else { "iptables" };
        Self::named(command, ipv6)
    }

    /// The variant that does without nf_tables.
    pub fn legacy(ipv6: bool) -> Result<Self, FirewallError> {
        Self::named(if ipv6 { "ip6tables-legacy" } else { "iptables-legacy" }, ipv6)
    }

    fn named(command: &'static str, ipv6: bool) -> Result<Self, FirewallError> {
        let missing = |e: Box<dyn std::error::Error>| FirewallError::NoCommand {
            command: command.to_owned(),
            reason: e.to_string(),
        };
        let mut rules = iptables::new(ipv6).map_err(missing)?;
        rules.cmd = command;
        rules.set_numeric(true);
        Ok(Self { restore: format!("{command}-restore"), rules })
    }

    /// Which kernel interface the command writes to: `nf_tables` or `legacy`.
    pub fn variant(&self) -> &'static str {
        let out = Command::new(self.rules.cmd).arg("--version").stdin(Stdio::null()).output();
        let nft = out.is_ok_and(|o| String::from_utf8_lossy(&o.stdout).contains("nf_tables"));
        if nft { "nf_tables" } else { "legacy" }
    }

    /// Makes a change. Others' rules stay; each table changes whole or not at all.
    pub fn restore(&self, script: &str) -> Result<(), FirewallError> {
        let failed = |reason: String| FirewallError::Command { command: self.restore.clone(), reason };
        let io = |e: std::io::Error| failed(e.to_string());
        let mut child = Command::new(&self.restore)
            .args(["--noflush", "--wait"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(io)?;
        let written = child.stdin.take().map(|mut pipe| pipe.write_all(script.as_bytes()));
        let out = child.wait_with_output().map_err(io)?;
        if out.status.success() {
            return written.unwrap_or(Ok(())).map_err(io);
        }
        let text = String::from_utf8_lossy(&out.stderr);
        Err(failed(text.lines().next().unwrap_or("it failed without a word").trim().to_owned()))
    }

    fn failed(&self, error: &dyn std::error::Error) -> FirewallError {
        let reason = error.to_string().lines().next().unwrap_or_default().to_owned();
        FirewallError::Command { command: self.rules.cmd.to_owned(), reason }
    }

    /// Whether a chain holds a rule.
    pub fn has(&self, table: &str, chain: &str, rule: &str) -> Result<bool, FirewallError> {
        self.rules.exists(table, chain, rule).map_err(|e| self.failed(&*e))
    }

    /// The rules of a chain as the command prints them; none when there is no such chain.
    pub fn rules(&self, table: &str, chain: &str) -> Vec<String> {
        let Ok(out) = self.rules.execute(table, &format!("-S {chain}")) else { return Vec::new() };
        let text = String::from_utf8_lossy(&out.stdout);
        text.lines().filter(|l| l.starts_with("-A ")).map(str::to_owned).collect()
    }

    /// Puts a rule before all others of a chain, unless it is there.
    pub fn ensure(&self, table: &str, chain: &str, rule: &str) -> Result<(), FirewallError> {
        if self.has(table, chain, rule)? {
            return Ok(());
        }
        self.rules.insert(table, chain, rule, 1).map_err(|e| self.failed(&*e))
    }

    /// Takes a rule out, however often it is there.
    pub fn drop_all(&self, table: &str, chain: &str, rule: &str) -> Result<(), FirewallError> {
        self.rules.delete_all(table, chain, rule).map_err(|e| self.failed(&*e))
    }

    /// Whether a table has a chain.
    pub fn has_chain(&self, table: &str, chain: &str) -> bool {
        self.rules.chain_exists(table, chain).unwrap_or(false)
    }

    /// Whether a chain of the kernel drops what no rule takes.
    pub fn drops(&self, table: &str, chain: &str) -> bool {
        self.rules.get_policy(table, chain).is_ok_and(|p| p == "DROP")
    }
}
