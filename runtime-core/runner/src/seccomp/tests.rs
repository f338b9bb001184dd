use super::interpreter::run;
use super::names::{I386, NATIVE};
use super::*;

fn profile(text: &str) -> Seccomp {
    serde_json::from_str(text).unwrap()
}

fn number(architecture: &Architecture, name: &str) -> u32 {
    architecture.names.iter().position(|n| *n == Some(name)).unwrap() as u32
}

const DOCKERLIKE: &str = r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":1,
  "architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86","SCMP_ARCH_X32"],
  "syscalls":[
   {"names":["read","write","openat","exit_group","futex","clock_gettime64","no_such_call"],"action":"SCMP_ACT_ALLOW"},
   {"names":["personality"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":0,"op":"SCMP_CMP_EQ"}]},
   {"names":["personality"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":4294967295,"op":"SCMP_CMP_EQ"}]},
   {"names":["clone"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":2114060288,"valueTwo":0,"op":"SCMP_CMP_MASKED_EQ"}]},
   {"names":["clone3"],"action":"SCMP_ACT_ERRNO","errnoRet":38}
  ]}"#;

#[test]
fn a_profile_like_dockers_decides_every_call_of_both_architectures() {
    let filter = compile(&profile(DOCKERLIKE)).unwrap();
    let (allow, eperm, enosys) = (action::ALLOW, action::ERRNO | 1, action::ERRNO | ENOSYS);
    for architecture in [&NATIVE, &I386] {
        let newest = number(architecture, "clone3");
        for (nr, name) in architecture.names.iter().enumerate() {
            let want = match name {
                Some(
                    "read" | "write" | "openat" | "exit_group" | "futex" | "clock_gettime64" | "personality"
                    | "clone",
                ) => allow,
                Some("clone3") => enosys,
                _ if nr as u32 > newest => enosys,
                _ => eperm,
            };
            let got = run(&filter.program, architecture.audit, nr as u32, [0; 6]);
            assert_eq!(got, want, "{name:?} ({nr}) of {:#x}", architecture.audit);
        }
    }
}

#[test]
fn conditions_look_at_all_64_bits() {
    let filter = compile(&profile(DOCKERLIKE)).unwrap();
    let call = |name: &str, first: u64| {
        run(&filter.program, NATIVE.audit, number(&NATIVE, name), [first, 0, 0, 0, 0, 0])
    };
    assert_eq!(call("personality", 0xffff_ffff), action::ALLOW);
    assert_eq!(call("personality", 0x1_0000_0000), action::ERRNO | 1);
    assert_eq!(call("personality", 8), action::ERRNO | 1);
    assert_eq!(call("clone", 0x11), action::ALLOW);
    assert_eq!(call("clone", 0x1000_0000), action::ERRNO | 1); // CLONE_NEWUSER
}

type Test = fn(u64, u64) -> bool;

#[test]
fn every_operator_agrees_with_arithmetic() {
    let values = [0u64, 1, 5, 0xffff_ffff, 0x1_0000_0000, 0x1_0000_0005, 0x5_0000_0001, u64::MAX];
    let operators: [(&str, Test); 6] = [
        ("SCMP_CMP_NE", |a, b| a != b),
        ("SCMP_CMP_LT", |a, b| a < b),
        ("SCMP_CMP_LE", |a, b| a <= b),
        ("SCMP_CMP_EQ", |a, b| a == b),
        ("SCMP_CMP_GE", |a, b| a >= b),
        ("SCMP_CMP_GT", |a, b| a > b),
    ];
    for (op, test) in operators {
        for b in values {
            let arg = Arg { index: 3, value: b, value_two: 0, op: op.into() };
            let rule = Rule {
                names: vec!["read".into()],
                action: "SCMP_ACT_TRAP".into(),
                args: vec![arg],
                ..Rule::default()
            };
            let p = Seccomp {
                default_action: "SCMP_ACT_ALLOW".into(),
                syscalls: vec![rule],
                ..Seccomp::default()
            };
            let program = compile(&p).unwrap().program;
            for a in values {
                let got = run(&program, NATIVE.audit, number(&NATIVE, "read"), [9, 9, 9, a, 9, 9]);
                assert_eq!(got == action::TRAP, test(a, b), "{a:#x} {op} {b:#x}");
            }
        }
    }
}

#[test]
fn all_conditions_of_a_rule_must_hold_but_those_on_one_argument_are_alternatives() {
    let p = profile(
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
        {"names":["socket"],"action":"SCMP_ACT_ERRNO","errnoRet":22,"args":[
          {"index":0,"value":16,"op":"SCMP_CMP_EQ"},{"index":2,"value":9,"op":"SCMP_CMP_EQ"}]},
        {"names":["ioctl"],"action":"SCMP_ACT_ERRNO","args":[
          {"index":1,"value":1,"op":"SCMP_CMP_EQ"},{"index":1,"value":2,"op":"SCMP_CMP_EQ"}]}]}"#,
    );
    let program = compile(&p).unwrap().program;
    let call = |name: &str, args| run(&program, NATIVE.audit, number(&NATIVE, name), args);
    assert_eq!(call("socket", [16, 3, 9, 0, 0, 0]), action::ERRNO + 22);
    assert_eq!(call("socket", [16, 3, 0, 0, 0, 0]), action::ALLOW);
    assert_eq!(call("socket", [2, 3, 9, 0, 0, 0]), action::ALLOW);
    assert_eq!(call("ioctl", [0, 2, 0, 0, 0, 0]), action::ERRNO | 1);
    assert_eq!(call("ioctl", [0, 3, 0, 0, 0, 0]), action::ALLOW);
}

#[test]
fn foreign_architectures_and_x32_are_killed() {
    let program = compile(&profile(r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[]}"#)).unwrap().program;
    assert_eq!(run(&program, NATIVE.audit, 0, [0; 6]), action::ALLOW);
    assert_eq!(run(&program, NATIVE.audit, 100_000, [0; 6]), action::ALLOW);
    assert_eq!(run(&program, I386.audit, 3, [0; 6]), action::KILL_PROCESS);
    assert_eq!(run(&program, NATIVE.audit, 0x4000_0000, [0; 6]), action::KILL_PROCESS);
    assert_eq!(run(&program, NATIVE.audit, u32::MAX, [0; 6]), action::ALLOW);
}

#[test]
fn a_long_profile_stays_correct_beyond_short_jumps() {
    // Every second call has its own errno: no two neighbours can share a range, so the tree is far longer than 255 instructions.
    let rules = NATIVE.names.iter().enumerate().filter(|(n, _)| n % 2 == 0).filter_map(|(n, name)| {
        let arg = Arg { index: 1, value: n as u64, op: "SCMP_CMP_EQ".into(), ..Arg::default() };
        let (names, action) = (vec![(*name)?.to_owned()], "SCMP_ACT_ERRNO".to_owned());
        Some(Rule { names, action, errno_ret: Some(n as u32 + 1), args: vec![arg] })
    });
    let p =
        Seccomp { default_action: "SCMP_ACT_ALLOW".into(), syscalls: rules.collect(), ..Seccomp::default() };
    let program = compile(&p).unwrap().program;
    assert!(program.len() > 1000);
    for (n, name) in NATIVE.names.iter().enumerate() {
        let named = n % 2 == 0 && name.is_some();
        let want = if named { action::ERRNO | (n as u32 + 1) } else { action::ALLOW };
        assert_eq!(run(&program, NATIVE.audit, n as u32, [0, n as u64, 0, 0, 0, 0]), want, "{n}");
        assert_eq!(
            run(&program, NATIVE.audit, n as u32, [0, n as u64 + 1, 0, 0, 0, 0]),
            action::ALLOW,
            "{n}"
        );
    }
}

#[test]
fn nonsense_is_refused_by_name() {
    let bad = |text: &str| compile(&profile(text)).unwrap_err();
    assert_eq!(bad(r#"{"defaultAction":"ALLOW"}"#), SeccompError::Action("ALLOW".into()));
    let text = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_KILL","args":[{"index":6,"op":"SCMP_CMP_EQ"}]}]}"#;
    assert_eq!(bad(text), SeccompError::Argument(6));
    assert_eq!(bad(r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#), SeccompError::NoListener);
}
