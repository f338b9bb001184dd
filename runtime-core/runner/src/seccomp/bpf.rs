//! From ranges of system calls to classic BPF instructions.

use davit_sys::seccomp::Instruction;

use super::action;
use super::names::Architecture;

/// A range of system call numbers: from `start` to the next segment's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// First number.
    pub start: u32,
    /// What happens to them.
    pub leaf: Leaf,
}

/// What happens to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leaf {
    /// This, always.
    Return(u32),
    /// The action of the first list whose conditions all hold, else the last.
    Check(Vec<(Vec<Condition>, u32)>, u32),
}

/// A comparison of an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Condition {
    /// Which argument.
    pub index: u32,
    /// How.
    pub operator: Operator,
    /// With what.
    pub value: u64,
}

/// How an argument is compared; unsigned, 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `==`
    Equal,
    /// `>=`
    GreaterOrEqual,
    /// `>`
    Greater,
    /// `(argument & mask) == value`
    MaskedEqual {
        /// Which bits count.
        mask: u64,
    },
}

pub(super) const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
pub(super) const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
pub(super) const JEQ: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
pub(super) const JGT: u16 = 0x25; // BPF_JMP | BPF_JGT | BPF_K
pub(super) const JGE: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
pub(super) const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
pub(super) const RETURN: u16 = 0x06; // BPF_RET | BPF_K

/// Offsets in struct seccomp_data.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGS: u32 = 16;

const X32_BIT: u32 = 0x4000_0000;

fn plain(code: u16, k: u32) -> Instruction {
    Instruction { code, jt: 0, jf: 0, k }
}

fn branch(code: u16, k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction { code, jt, jf, k }
}

/// The whole program.
pub fn assemble(blocks: &[(&Architecture, Vec<Segment>)]) -> Vec<Instruction> {
    let mut out = vec![plain(LOAD, ARCH)];
    for (architecture, segments) in blocks {
        let mut body = vec![plain(LOAD, NUMBER)];
        if architecture.x32 {
            // Number -1 is a call that a tracer cancelled; anything else that high is x32 and foreign.
            body.push(branch(JGE, X32_BIT, 0, 2));
            body.push(branch(JEQ, u32::MAX, 1, 0));
            body.push(plain(RETURN, action::KILL_PROCESS));
        }
        search(segments, &mut body);
        out.push(branch(JEQ, architecture.audit, 1, 0));
        out.push(plain(JUMP, body.len() as u32));
        out.append(&mut body);
    }
    out.push(plain(RETURN, action::KILL_PROCESS));
    out
}

/// Binary search; the number is in the accumulator.
fn search(segments: &[Segment], out: &mut Vec<Instruction>) {
    let [only] = segments else {
        let (left, right) = segments.split_at(segments.len() / 2);
        let mut low = Vec::new();
        search(left, &mut low);
        let start = right[0].start;
        if let Ok(skip) = u8::try_from(low.len()) {
            out.push(branch(JGE, start, skip, 0));
        } else {
            out.push(branch(JGE, start, 0, 1));
            out.push(plain(JUMP, low.len() as u32));
        }
        out.append(&mut low);
        return search(right, out);
    };
    match &only.leaf {
        Leaf::Return(act) => out.push(plain(RETURN, *act)),
        Leaf::Check(lists, otherwise) => {
            for (conditions, act) in lists {
                check(conditions, *act, out);
            }
            out.push(plain(RETURN, *otherwise));
        }
    }
}

/// Marks in jump offsets until the length of the list is known. Real offsets within one list stay far below.
const PASS: u8 = 254;
const FAIL: u8 = 255;

fn check(conditions: &[Condition], act: u32, out: &mut Vec<Instruction>) {
    let mut list: Vec<Instruction> = Vec::new();
    for condition in conditions {
        let mut code = compare(*condition);
        let length = code.len();
        for (at, instruction) in code.iter_mut().enumerate() {
            let to_next = (length - at - 1) as u8;
            for target in [&mut instruction.jt, &mut instruction.jf] {
                if *target == PASS {
                    *target = to_next;
                }
            }
        }
        list.append(&mut code);
    }
    list.push(plain(RETURN, act));
    let length = list.len();
    for (at, instruction) in list.iter_mut().enumerate() {
        let past_end = (length - at - 1) as u8;
        for target in [&mut instruction.jt, &mut instruction.jf] {
            if *target == FAIL {
                *target = past_end;
            }
        }
    }
    out.append(&mut list);
}

/// Code that goes on behind itself when the condition holds and to FAIL when not.
fn compare(condition: Condition) -> Vec<Instruction> {
    let offset = ARGS + 8 * condition.index;
    let (low, high) =
        if cfg!(target_endian = "little") { (offset, offset + 4) } else { (offset + 4, offset) };
    let (lo, hi) = (condition.value as u32, (condition.value >> 32) as u32);
    let two_words = |high_tests: &[Instruction], low_test: Instruction| {
        let mut code = vec![plain(LOAD, high)];
        code.extend_from_slice(high_tests);
        code.push(plain(LOAD, low));
        code.push(low_test);
        code
    };
    match condition.operator {
        Operator::Equal => two_words(&[branch(JEQ, hi, 0, FAIL)], branch(JEQ, lo, PASS, FAIL)),
        Operator::NotEqual => two_words(&[branch(JEQ, hi, 0, PASS)], branch(JEQ, lo, FAIL, PASS)),
        Operator::Greater => {
            two_words(&[branch(JGT, hi, PASS, 0), branch(JEQ, hi, 0, FAIL)], branch(JGT, lo, PASS, FAIL))
        }
        Operator::GreaterOrEqual => {
            two_words(&[branch(JGT, hi, PASS, 0), branch(JEQ, hi, 0, FAIL)], branch(JGE, lo, PASS, FAIL))
        }
        Operator::Less => {
            two_words(&[branch(JGT, hi, FAIL, 0), branch(JEQ, hi, 0, PASS)], branch(JGE, lo, FAIL, PASS))
        }
        Operator::LessOrEqual => {
            two_words(&[branch(JGT, hi, FAIL, 0), branch(JEQ, hi, 0, PASS)], branch(JGT, lo, FAIL, PASS))
        }
        Operator::MaskedEqual { mask } => {
            let (mask_low, mask_high) = (mask as u32, (mask >> 32) as u32);
            vec![
                plain(LOAD, high),
                plain(AND, mask_high),
                branch(JEQ, hi & mask_high, 0, FAIL),
                plain(LOAD, low),
                plain(AND, mask_low),
                branch(JEQ, lo & mask_low, PASS, FAIL),
            ]
        }
    }
}
