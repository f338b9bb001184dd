//! Compiles the OCI seccomp section into classic BPF.
//!
//! The program first tells architectures apart (a foreign one is killed, as libseccomp does), then finds the system call's number by binary
//! search over ranges of equal treatment, then checks arguments where a rule has conditions:
//!
//! ```text
//! load arch -> x86_64? -> load nr -> search -> return ACTION
//!           -> i386?   -> load nr -> search -> conditions -> return ACTION
//!           -> kill
//! ```
//!
//! Semantics: of the rules that name a call, those with conditions are tried in order and the first that holds decides; then the rule without
//! conditions; then the default. Several conditions on one argument in one rule are alternatives (what runc makes of them). Calls beyond
//! the newest that the profile names get ENOSYS instead of a denying default, so that programs fall back to older calls.

use std::collections::HashMap;
use std::path::Path;

use davit_sys::seccomp::Instruction;

use crate::error::{Context, Result};
use crate::spec::seccomp::{Arg, Rule, Seccomp};

pub mod bpf;
pub mod names;

use bpf::{Condition, Leaf, Operator, Segment};
use names::Architecture;

/// A profile that cannot be compiled.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SeccompError {
    /// No SCMP_ACT_* of this name.
    #[error("seccomp: unknown action {0:?}")]
    Action(String),
    /// No SCMP_CMP_* of this name.
    #[error("seccomp: unknown comparison {0:?}")]
    Operator(String),
    /// No SECCOMP_FILTER_FLAG_* of this name.
    #[error("seccomp: unknown flag {0:?}")]
    Flag(String),
    /// A system call has six arguments.
    #[error("seccomp: there is no argument {0}: they are numbered 0 to 5")]
    Argument(u32),
    /// Beyond the kernel's limit.
    #[error("seccomp: the profile makes a program of {0} instructions; the kernel takes 4096")]
    TooLong(usize),
    /// A notification listener for a profile that never notifies, or the reverse.
    #[error("seccomp: SCMP_ACT_NOTIFY needs listenerPath")]
    NoListener,
}

/// A compiled filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// The program.
    pub program: Vec<Instruction>,
    /// SECCOMP_FILTER_FLAG_* for loading.
    pub flags: u32,
}

const ENOSYS: u32 = 38;
const EPERM: u32 = 1;

/// What the kernel does (SECCOMP_RET_*), data included.
pub(crate) mod action {
    pub const KILL_PROCESS: u32 = 0x8000_0000;
    pub const KILL_THREAD: u32 = 0;
    pub const TRAP: u32 = 0x0003_0000;
    pub const ERRNO: u32 = 0x0005_0000;
    pub const NOTIFY: u32 = 0x7fc0_0000;
    pub const TRACE: u32 = 0x7ff0_0000;
    pub const LOG: u32 = 0x7ffc_0000;
    pub const ALLOW: u32 = 0x7fff_0000;
}

/// Compiles a profile for this machine's architecture and those that the profile adds.
pub fn compile(profile: &Seccomp) -> Result<Filter, SeccompError> {
    let default = parse_action(&profile.default_action, profile.default_errno_ret)?;
    let rules = by_name(&profile.syscalls)?;
    let notifies =
        default == action::NOTIFY || profile.syscalls.iter().any(|r| r.action == "SCMP_ACT_NOTIFY");
    if notifies && profile.listener_path.is_none() {
        return Err(SeccompError::NoListener);
    }
    let architectures = names::selected(&profile.architectures);
    let blocks: Vec<_> = architectures.iter().map(|a| (*a, segments(a, &rules, default))).collect();
    let program = bpf::assemble(&blocks);
    if program.len() > 4096 {
        return Err(SeccompError::TooLong(program.len()));
    }
    let mut flags = parse_flags(&profile.flags)?;
    if notifies {
        flags |= davit_sys::seccomp::FLAG_NEW_LISTENER;
    }
    Ok(Filter { program, flags })
}

#[derive(Default)]
struct Treatment {
    conditional: Vec<(Vec<Condition>, u32)>,
    always: Option<u32>,
}

fn by_name(rules: &[Rule]) -> Result<HashMap<&str, Treatment>, SeccompError> {
    let mut map: HashMap<&str, Treatment> = HashMap::with_capacity(512);
    for rule in rules {
        let act = parse_action(&rule.action, rule.errno_ret)?;
        let alternatives = conditions(&rule.args)?;
        for name in &rule.names {
            let entry = map.entry(name).or_default();
            if alternatives.is_empty() {
                entry.always.get_or_insert(act);
            }
            entry.conditional.extend(alternatives.iter().map(|c| (c.clone(), act)));
        }
    }
    Ok(map)
}

/// One list of conditions that all must hold; or several lists with one each where an argument is named twice.
fn conditions(args: &[Arg]) -> Result<Vec<Vec<Condition>>, SeccompError> {
    let parsed = args.iter().map(parse_condition).collect::<Result<Vec<_>, _>>()?;
    if parsed.is_empty() {
        return Ok(Vec::new());
    }
    let twice = parsed.iter().enumerate().any(|(i, a)| parsed[..i].iter().any(|b| b.index == a.index));
    Ok(if twice { parsed.into_iter().map(|c| vec![c]).collect() } else { vec![parsed] })
}

fn parse_condition(arg: &Arg) -> Result<Condition, SeccompError> {
    let operator = match arg.op.as_str() {
        "SCMP_CMP_NE" => Operator::NotEqual,
        "SCMP_CMP_LT" => Operator::Less,
        "SCMP_CMP_LE" => Operator::LessOrEqual,
        "SCMP_CMP_EQ" => Operator::Equal,
        "SCMP_CMP_GE" => Operator::GreaterOrEqual,
        "SCMP_CMP_GT" => Operator::Greater,
        "SCMP_CMP_MASKED_EQ" => Operator::MaskedEqual { mask: arg.value },
        other => return Err(SeccompError::Operator(other.to_owned())),
    };
    let masked = matches!(operator, Operator::MaskedEqual { .. });
    if arg.index > 5 {
        return Err(SeccompError::Argument(arg.index));
    }
    Ok(Condition { index: arg.index, operator, value: if masked { arg.value_two } else { arg.value } })
}

fn parse_action(name: &str, errno: Option<u32>) -> Result<u32, SeccompError> {
    let data = errno.unwrap_or(EPERM) & 0xffff;
    Ok(match name {
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => action::KILL_THREAD,
        "SCMP_ACT_KILL_PROCESS" => action::KILL_PROCESS,
        "SCMP_ACT_TRAP" => action::TRAP,
        "SCMP_ACT_ERRNO" => action::ERRNO | data,
        "SCMP_ACT_TRACE" => action::TRACE | data,
        "SCMP_ACT_ALLOW" => action::ALLOW,
        "SCMP_ACT_LOG" => action::LOG,
        "SCMP_ACT_NOTIFY" => action::NOTIFY,
        other => return Err(SeccompError::Action(other.to_owned())),
    })
}

fn parse_flags(names: &[String]) -> Result<u32, SeccompError> {
    names.iter().try_fold(0, |flags, name| {
        Ok(flags
            | match name.as_str() {
                "SECCOMP_FILTER_FLAG_TSYNC" => 0, // one thread: nothing to synchronise
                "SECCOMP_FILTER_FLAG_LOG" => davit_sys::seccomp::FLAG_LOG,
                "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => davit_sys::seccomp::FLAG_SPEC_ALLOW,
                "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" => 1 << 5,
                other => return Err(SeccompError::Flag(other.to_owned())),
            })
    })
}

/// The ranges of system call numbers of equal treatment, from 0 up.
fn segments(architecture: &Architecture, rules: &HashMap<&str, Treatment>, default: u32) -> Vec<Segment> {
    let denies =
        !matches!(default & 0xffff_0000, action::ALLOW | action::LOG | action::TRACE | action::NOTIFY);
    let mut newest = 0;
    let mut out: Vec<Segment> = Vec::new();
    for (number, name) in architecture.names.iter().enumerate() {
        let treatment = name.and_then(|n| rules.get(n));
        if treatment.is_some() {
            newest = number as u32;
        }
        let leaf = match treatment {
            None => Leaf::Return(default),
            Some(t) if t.conditional.is_empty() => Leaf::Return(t.always.unwrap_or(default)),
            Some(t) => Leaf::Check(t.conditional.clone(), t.always.unwrap_or(default)),
        };
        if out.last().is_none_or(|s| s.leaf != leaf) {
            out.push(Segment { start: number as u32, leaf });
        }
    }
    let end = if denies { action::ERRNO | ENOSYS } else { default };
    if denies {
        out.retain(|s| s.start <= newest);
    }
    let after = if denies { newest + 1 } else { architecture.names.len() as u32 };
    if out.last().is_none_or(|s| s.leaf != Leaf::Return(end)) {
        out.push(Segment { start: after, leaf: Leaf::Return(end) });
    }
    out
}

/// Keeps a filter for later processes of the container: its instructions as the kernel takes them.
pub fn save(filter: &Filter, path: &Path) -> Result<()> {
    let bytes: Vec<u8> = filter
        .program
        .iter()
        .flat_map(|i| {
            let [c0, c1] = i.code.to_ne_bytes();
            let [k0, k1, k2, k3] = i.k.to_ne_bytes();
            [c0, c1, i.jt, i.jf, k0, k1, k2, k3]
        })
        .collect();
    std::fs::write(path, bytes).context(|| format!("write {}", path.display()))
}

/// Reads what [`save`] wrote; none when the container has no filter.
pub fn load(path: &Path, flags: u32) -> Result<Option<Filter>> {
    let bytes = match std::fs::read(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.context(|| format!("read {}", path.display()))?,
    };
    let instruction = |b: &[u8; 8]| Instruction {
        code: u16::from_ne_bytes([b[0], b[1]]),
        jt: b[2],
        jf: b[3],
        k: u32::from_ne_bytes([b[4], b[5], b[6], b[7]]),
    };
    let program = bytes.as_chunks::<8>().0.iter().map(instruction).collect();
    Ok(Some(Filter { program, flags }))
}

#[cfg(test)]
mod interpreter;
#[cfg(test)]
mod tests;
