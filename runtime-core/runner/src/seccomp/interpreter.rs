//! A tiny classic BPF machine, only for tests: runs a program on a `struct seccomp_data`.

use davit_sys::seccomp::Instruction;

use super::bpf::{AND, JEQ, JGE, JGT, JUMP, LOAD, RETURN};

/// What the kernel would do with this call.
pub fn run(program: &[Instruction], arch: u32, number: u32, args: [u64; 6]) -> u32 {
    let mut data = Vec::new();
    data.extend(number.to_ne_bytes());
    data.extend(arch.to_ne_bytes());
    data.extend(0u64.to_ne_bytes());
    for a in args {
        data.extend(a.to_ne_bytes());
    }
    let (mut at, mut accumulator) = (0usize, 0u32);
    loop {
        let i = program[at];
        at += 1;
        let mut jump = |condition: bool| at += usize::from(if condition { i.jt } else { i.jf });
        match i.code {
            LOAD => accumulator = u32::from_ne_bytes(data[i.k as usize..][..4].try_into().unwrap()),
            AND => accumulator &= i.k,
            JEQ => jump(accumulator == i.k),
            JGT => jump(accumulator > i.k),
            JGE => jump(accumulator >= i.k),
            JUMP => at += i.k as usize,
            RETURN => return i.k,
            other => panic!("instruction {other:#x}"),
        }
    }
}
