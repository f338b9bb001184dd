use super::*;
use davit_contracts::runtime::Security;

fn host(rootless: bool) -> Host {
    Host { rootless, ..Host::of_tests() }
}

fn build(spec: &ContainerSpec, host: &Host, change: impl FnOnce(&mut Input<'_>)) -> serde_json::Value {
    let program = Program {
        argv: vec!["true".into()],
        env: vec!["PATH=/bin".into(), "HOME=/root".into()],
        cwd: "/".into(),
        user: String::new(),
    };
    let mut input = Input {
        id: "c0ffee",
        spec,
        program: &program,
        user: User { uid: 0, gid: 0, additional_gids: vec![0] },
        hostname: "c0ffee",
        points: &[],
        files: Path::new("/run/c"),
        net: Source::Path("/proc/7/ns/net".into()),
        pid: Source::New,
        ipc: Source::New,
        uts: Source::New,
        cgroup: Source::New,
        time: Source::Host,
        userns: None,
        shm: Some(mounts::Shm::Own),
        plain_sysctls: false,
        init: None,
        runtime: "",
        host,
    };
    change(&mut input);
    let (config, _) = config(&input).unwrap();
    serde_json::to_value(config).unwrap()
}

/// The whole default configuration: a change of any default must be made here too, on purpose.
#[test]
fn the_default_configuration_is_the_golden_one() {
    let mut got = build(&ContainerSpec::default(), &host(false), |_| {});
    // The profile has tests of its own; here only that there is one.
    let seccomp = got["linux"].as_object_mut().unwrap().remove("seccomp").unwrap();
    assert_eq!(seccomp["defaultAction"], "SCMP_ACT_ERRNO");
    let golden: serde_json::Value = serde_json::from_str(include_str!("golden.json")).unwrap();
    let text = serde_json::to_string_pretty(&got).unwrap();
    assert!(got == golden, "the configuration differs from golden.json; it is now:\n{text}");
}

#[test]
fn privileged_unmasks_everything() {
    let spec = ContainerSpec {
        security: Some(Security { privileged: true, ..Security::default() }),
        ..ContainerSpec::default()
    };
    let got = build(&spec, &host(false), |_| {});
    assert!(got["linux"].get("seccomp").is_none() && got["linux"].get("maskedPaths").is_none());
    assert_eq!(got["process"]["capabilities"]["bounding"].as_array().unwrap().len(), 41);
    let rules = got["linux"]["resources"]["devices"].as_array().unwrap();
    assert_eq!(rules.last().unwrap(), &serde_json::json!({"allow": true, "access": "rwm"}));
}

#[test]
fn host_namespaces_are_absent_and_never_renamed() {
    let got = build(&ContainerSpec::default(), &host(false), |i| {
        i.net = Source::Host;
        i.uts = Source::Host;
        i.pid = Source::Path("/proc/9/ns/pid".into());
    });
    let list = got["linux"]["namespaces"].as_array().unwrap();
    assert!(!list.iter().any(|n| n["type"] == "network" || n["type"] == "uts"));
    assert!(list.contains(&serde_json::json!({"type": "pid", "path": "/proc/9/ns/pid"})));
    assert_eq!(got["hostname"], "");
    assert!(got["linux"].get("sysctl").is_none());
}

#[test]
fn a_plain_user_has_no_capabilities_and_a_rootless_instance_no_cgroup() {
    let got = build(&ContainerSpec::default(), &host(true), |i| i.user.uid = 1000);
    assert_eq!(got["process"]["capabilities"]["effective"], serde_json::json!([]));
    assert_eq!(got["process"]["capabilities"]["bounding"].as_array().unwrap().len(), 14);
    assert!(got["linux"].get("cgroupsPath").is_none());
    let mounts = got["mounts"].as_array().unwrap();
    assert!(!mounts.iter().any(|m| m["destination"] == "/sys/fs/cgroup"));
}

#[test]
fn security_options_reach_the_configuration() {
    let with = |opts: &[&str], privileged| {
        let security_opt = opts.iter().map(ToString::to_string).collect();
        let security = Some(Security { security_opt, privileged, ..Security::default() });
        build(&ContainerSpec { security, ..ContainerSpec::default() }, &host(false), |_| {})
    };
    let got = with(&["landlock=ro:/,rw:/tmp"], false);
    assert_eq!(got["annotations"]["org.davit.landlock"], "ro:/,rw:/tmp");
    assert_eq!(got["process"]["noNewPrivileges"], true, "what Landlock needs");
    assert!(with(&["seccomp=unconfined"], false)["linux"].get("seccomp").is_none());
    let given =
        with(&[r#"seccomp={"defaultAction":"SCMP_ACT_LOG","syscalls":[]}"#, "systempaths=unconfined"], true);
    assert_eq!(
        given["linux"]["seccomp"]["defaultAction"], "SCMP_ACT_LOG",
        "a given profile is for privileged ones too"
    );
    assert!(given["linux"].get("readonlyPaths").is_none());
    let cgroup = |got: &serde_json::Value| {
        let all = got["mounts"].as_array().unwrap().clone();
        all.into_iter().find(|m| m["type"] == "cgroup").unwrap()["options"].to_string()
    };
    assert!(
        cgroup(&with(&["writable-cgroups=true"], false)).contains("rw")
            && cgroup(&with(&[], false)).contains("ro")
    );
    let nodes = with(&[], true)["linux"]["devices"].as_array().unwrap().len();
    assert!(nodes > 5, "all devices of the host");
}
