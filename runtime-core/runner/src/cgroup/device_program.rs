//! Device rules as an eBPF program for cgroup v2.
//!
//! The kernel calls it for every open and mknod of a device with the device's type and number and what is wanted of it (read, write,
//! mknod). Of the rules that fit a device the last one that names a kind of access decides about that kind; what no rule names is denied.
//! So the program walks the rules from the last to the first: one that denies any of what is still wanted ends it, one that allows takes
//! its kinds off, and nothing left to ask for is a yes.

use davit_sys::bpf::Instruction;

use crate::spec::resources::DeviceRule;

/// Kinds of access as the kernel numbers them.
const MKNOD: i32 = 1;
const READ: i32 = 2;
const WRITE: i32 = 4;
const BLOCK: i32 = 1;
const CHARACTER: i32 = 2;

/// Registers: 0 is the answer, 1 the context (struct bpf_cgroup_dev_ctx).
const TYPE: u8 = 2;
const WANTED: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

pub(super) const LOAD: u8 = 0x61; // BPF_LDX | BPF_MEM | BPF_W
pub(super) const COPY: u8 = 0xbf; // BPF_ALU64 | BPF_MOV | BPF_X
pub(super) const SET: u8 = 0xb7; // BPF_ALU64 | BPF_MOV | BPF_K
pub(super) const SHIFT: u8 = 0x77; // BPF_ALU64 | BPF_RSH | BPF_K
pub(super) const AND: u8 = 0x57; // BPF_ALU64 | BPF_AND | BPF_K
pub(super) const JUMP: u8 = 0x05; // BPF_JMP | BPF_JA
pub(super) const UNLESS_EQUAL: u8 = 0x55; // BPF_JMP | BPF_JNE | BPF_K
pub(super) const IF_ANY: u8 = 0x45; // BPF_JMP | BPF_JSET | BPF_K
pub(super) const EXIT: u8 = 0x95; // BPF_JMP | BPF_EXIT

fn plain(code: u8, register: u8, immediate: i32) -> Instruction {
    Instruction { code, registers: register, offset: 0, immediate }
}

fn jump(code: u8, register: u8, immediate: i32, offset: usize) -> Instruction {
    let offset = i16::try_from(offset).expect("a rule is a dozen instructions");
    Instruction { code, registers: register, offset, immediate }
}

fn load(register: u8, offset: i16) -> Instruction {
    Instruction { code: LOAD, registers: register | 1 << 4, offset, immediate: 0 }
}

/// The program for rules in order.
pub fn compile(rules: &[DeviceRule]) -> Vec<Instruction> {
    // struct bpf_cgroup_dev_ctx: u32 access_type (kind of access << 16 | type of device), major, minor.
    let mut out = vec![
        load(TYPE, 0),
        Instruction { code: COPY, registers: WANTED | TYPE << 4, offset: 0, immediate: 0 },
        plain(SHIFT, WANTED, 16),
        plain(AND, TYPE, 0xffff),
        load(MAJOR, 4),
        load(MINOR, 8),
    ];
    for rule in rules.iter().rev() {
        let (conditions, body) = (conditions(rule), body(rule));
        // The verifier refuses what cannot be reached: nothing counts before a rule that decides everything.
        let last = conditions.is_empty() && access(rule) == READ | WRITE | MKNOD;
        let length = conditions.len() + body.len();
        for (at, (register, value)) in conditions.iter().enumerate() {
            out.push(jump(UNLESS_EQUAL, *register, *value, length - at - 1));
        }
        out.extend(body);
        if last {
            return out;
        }
    }
    out.extend(answer(false));
    out
}

fn answer(allowed: bool) -> [Instruction; 2] {
    [plain(SET, 0, i32::from(allowed)), plain(EXIT, 0, 0)]
}

/// What must be equal for a rule to fit.
fn conditions(rule: &DeviceRule) -> Vec<(u8, i32)> {
    let mut out = Vec::new();
    match rule.kind.as_str() {
        "b" => out.push((TYPE, BLOCK)),
        "c" | "u" => out.push((TYPE, CHARACTER)),
        // "a" names all devices, whatever its numbers say, as on v1.
        _ => return out,
    }
    for (register, number) in [(MAJOR, rule.major), (MINOR, rule.minor)] {
        if let Some(n) = number.filter(|n| *n >= 0) {
            // No device has a number beyond 32 bits: such a rule fits none.
            out.push((register, i32::try_from(n).unwrap_or(i32::MAX)));
        }
    }
    out
}

/// What to do with a device that fits; runs on behind itself when more is to be asked.
fn body(rule: &DeviceRule) -> Vec<Instruction> {
    let (kinds, every) = (access(rule), access(rule) == READ | WRITE | MKNOD);
    let mut out = match (rule.allow, every) {
        (_, true) => Vec::new(),
        (false, false) => vec![jump(IF_ANY, WANTED, kinds, 1), jump(JUMP, 0, 0, 2)],
        (true, false) => vec![plain(AND, WANTED, !kinds), jump(UNLESS_EQUAL, WANTED, 0, 2)],
    };
    out.extend(answer(rule.allow));
    out
}

fn access(rule: &DeviceRule) -> i32 {
    if rule.access.is_empty() || rule.kind.is_empty() || rule.kind == "a" {
        return READ | WRITE | MKNOD;
    }
    let kind = |letter: char| match letter {
        'r' => READ,
        'w' => WRITE,
        'm' => MKNOD,
        _ => 0,
    };
    rule.access.chars().map(kind).fold(0, |all, k| all | k)
}

#[cfg(test)]
mod tests;
