use super::*;

/// What the kernel would answer: a machine for the handful of instructions above.
fn run(program: &[Instruction], kind: i32, wanted: i32, major: i32, minor: i32) -> bool {
    let context = [wanted << 16 | kind, major, minor];
    let mut registers = [0i64; 6];
    let mut at = 0usize;
    // Jumps only go forward: it ends, or runs off its end and panics.
    loop {
        let i = program[at];
        let (to, from) = (usize::from(i.registers & 15), usize::from(i.registers >> 4));
        at += 1;
        let mut skip = |condition: bool| at = if condition { at + i.offset as usize } else { at };
        match i.code {
            LOAD => registers[to] = i64::from(context[i.offset as usize / 4]),
            COPY => registers[to] = registers[from],
            SET => registers[to] = i64::from(i.immediate),
            SHIFT => registers[to] >>= i.immediate,
            AND => registers[to] &= i64::from(i.immediate),
            JUMP => skip(true),
            UNLESS_EQUAL => skip(registers[to] != i64::from(i.immediate)),
            IF_ANY => skip(registers[to] & i64::from(i.immediate) != 0),
            EXIT => return registers[0] != 0,
            other => panic!("instruction {other:#x}"),
        }
    }
}

fn rules(json: &str) -> Vec<DeviceRule> {
    serde_json::from_str(json).unwrap()
}

#[test]
fn the_last_rule_that_names_a_kind_of_access_decides_about_it() {
    let program = compile(&rules(
        r#"[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","access":"m"},{"allow":true,"type":"c","major":1,"minor":3,"access":"rwm"},
            {"allow":true,"type":"c","major":10,"access":"r"},{"allow":true,"type":"c","major":10,"minor":7,"access":"w"},
            {"allow":true,"type":"b","major":8,"access":"rwm"},{"allow":false,"type":"b","major":8,"minor":1,"access":"w"}]"#,
    ));
    let ask = |kind, wanted, major, minor| run(&program, kind, wanted, major, minor);
    assert!(ask(CHARACTER, READ | WRITE, 1, 3) && ask(CHARACTER, MKNOD, 77, 0));
    assert!(!ask(CHARACTER, READ, 77, 0) && !ask(BLOCK, MKNOD, 77, 0) && !ask(BLOCK, READ, 1, 3));
    // Read by one rule and write by another make both.
    assert!(
        ask(CHARACTER, READ | WRITE, 10, 7) && ask(CHARACTER, READ, 10, 8) && !ask(CHARACTER, WRITE, 10, 8)
    );
    assert!(ask(BLOCK, READ | WRITE, 8, 0) && ask(BLOCK, READ, 8, 1) && !ask(BLOCK, READ | WRITE, 8, 1));
}

#[test]
fn all_allowed_all_denied_and_none_named() {
    let all = compile(&rules(r#"[{"allow":false},{"allow":true}]"#));
    assert!(run(&all, BLOCK, READ | WRITE, 8, 0));
    let none =
        compile(&rules(r#"[{"allow":true,"type":"c","major":1},{"allow":false,"type":"a","access":"r"}]"#));
    assert!(!run(&none, CHARACTER, WRITE, 1, 3), "a rule about all devices is about all access, as on v1");
    assert!(!run(&compile(&[]), CHARACTER, READ, 1, 3));
    let far = compile(&rules(r#"[{"allow":true,"type":"c","major":4294967297}]"#));
    assert!(!run(&far, CHARACTER, READ, 1, 3));
}

#[test]
fn the_instructions_are_these_bytes() {
    let program = compile(&rules(r#"[{"allow":true,"type":"b","minor":5,"access":"rw"}]"#));
    let bytes: Vec<[u8; 8]> = program
        .iter()
        .map(|i| {
            let (o, k) = (i.offset.to_le_bytes(), i.immediate.to_le_bytes());
            [i.code, i.registers, o[0], o[1], k[0], k[1], k[2], k[3]]
        })
        .collect();
    let want: [[u8; 8]; 14] = [
        [0x61, 0x12, 0, 0, 0, 0, 0, 0],             // r2 = *(u32 *)(r1 + 0)
        [0xbf, 0x23, 0, 0, 0, 0, 0, 0],             // r3 = r2
        [0x77, 0x03, 0, 0, 16, 0, 0, 0],            // r3 >>= 16
        [0x57, 0x02, 0, 0, 0xff, 0xff, 0, 0],       // r2 &= 0xffff
        [0x61, 0x14, 4, 0, 0, 0, 0, 0],             // r4 = *(u32 *)(r1 + 4)
        [0x61, 0x15, 8, 0, 0, 0, 0, 0],             // r5 = *(u32 *)(r1 + 8)
        [0x55, 0x02, 5, 0, 1, 0, 0, 0],             // if r2 != 1 goto +5
        [0x55, 0x05, 4, 0, 5, 0, 0, 0],             // if r5 != 5 goto +4
        [0x57, 0x03, 0, 0, 0xf9, 0xff, 0xff, 0xff], // r3 &= ~6
        [0x55, 0x03, 2, 0, 0, 0, 0, 0],             // if r3 != 0 goto +2
        [0xb7, 0x00, 0, 0, 1, 0, 0, 0],             // r0 = 1
        [0x95, 0x00, 0, 0, 0, 0, 0, 0],             // exit
        [0xb7, 0x00, 0, 0, 0, 0, 0, 0],             // r0 = 0
        [0x95, 0x00, 0, 0, 0, 0, 0, 0],             // exit
    ];
    assert_eq!(bytes, want);
}

/// The kernel's verifier is the judge; without the right to ask it (no CAP_BPF, no root) it says EPERM, which is none of ours.
#[test]
fn the_verifier_takes_them() {
    for json in [
        "[]",
        r#"[{"allow":false},{"allow":true}]"#,
        r#"[{"allow":true,"type":"b","access":"m"},{"allow":false,"type":"b","major":8,"access":"w"},{"allow":true,"type":"c","minor":1}]"#,
    ] {
        let loaded = davit_sys::bpf::load_device_program(&compile(&rules(json)));
        assert!(
            loaded.is_ok() || loaded.as_ref().is_err_and(|e| e.raw_os_error() == Some(libc::EPERM)),
            "{json}: {loaded:?}"
        );
    }
}
