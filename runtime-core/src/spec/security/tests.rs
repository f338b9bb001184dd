use super::*;

fn read(list: &[&str]) -> Result<SecurityOptions, RuntimeError> {
    let security_opt = list.iter().map(ToString::to_string).collect();
    options(&Security { security_opt, ..Security::default() })
}

#[test]
fn the_words_are_dockers() {
    let o = read(&[
        "no-new-privileges",
        "seccomp=unconfined",
        "apparmor:x",
        "label=type:spc_t",
        "systempaths=unconfined",
    ])
    .unwrap();
    assert!(o.no_new_privileges && o.filter == Filter::Unconfined && o.plain_system_paths);
    assert_eq!((o.apparmor.as_str(), o.label[2].as_str()), ("x", "spc_t"));
    assert!(!read(&["no-new-privileges", "no-new-privileges:false"]).unwrap().no_new_privileges);
    assert!(read(&["no-new-privileges=true"]).unwrap().no_new_privileges);
    assert_eq!(read(&["seccomp=builtin"]).unwrap().filter, Filter::Default);
    assert!(matches!(
        read(&[r#"seccomp={"defaultAction":"SCMP_ACT_ALLOW"}"#]).unwrap().filter,
        Filter::Given(_)
    ));
    assert!(read(&["label=disable"]).unwrap().label_disabled);
    assert!(read(&["writable-cgroups=true"]).unwrap().writable_cgroups);
}

#[test]
fn other_words_are_refused_and_named() {
    for bad in [
        "x",
        "x=y",
        "no-new-privileges:perhaps",
        "seccomp=/a/file",
        "apparmor=",
        "label=x:y",
        "label=user:",
        "systempaths=all",
        "mask=rel",
        "landlock=",
        "landlock=ro:rel",
        "landlock=wx:/",
        "landlock=ro:/a,",
        "landlock=/a",
    ] {
        let e = read(&[bad]).unwrap_err().to_string();
        assert!(!e.contains('\n') && e.len() > 10, "{bad}: {e}");
    }
    assert_eq!(read(&["x=y"]).unwrap_err().to_string(), "invalid --security-opt 2: \"x=y\"");
}

#[test]
fn paths_are_masked_and_unmasked() {
    let paths = |list: &[&str]| system_paths(&read(list).unwrap(), false);
    let (masked, read_only) = paths(&[]);
    assert_eq!((masked.len(), read_only.len()), (mounts::MASKED.len(), mounts::READ_ONLY.len()));
    assert_eq!(paths(&["systempaths=unconfined"]), (vec![], vec![]));
    assert_eq!(
        paths(&["unmask=ALL", "mask=/proc/kcore:/x"]),
        (vec!["/proc/kcore".into(), "/x".into()], vec![])
    );
    let (masked, read_only) = paths(&["unmask=/proc/*"]);
    assert_eq!((masked.len(), read_only.len()), (2, 0), "only what is in /sys is left");
    let (masked, _) = paths(&["unmask=/sys/firmware:/proc/s*g"]);
    assert!(!masked.iter().any(|m| m == "/sys/firmware" || m == "/proc/sched_debug"));
    assert!(system_paths(&read(&[]).unwrap(), true).0.is_empty());
}

#[test]
fn patterns_stay_within_a_name() {
    assert!(fits("/proc/*", "/proc/kcore") && fits("/a*c/", "/abbc") && fits("/*b*", "/abc"));
    assert!(!fits("/proc/*", "/proc/a/b") && !fits("/a*c", "/abd") && !fits("/a", "/a/b"));
}

#[test]
fn what_the_host_lacks_is_refused_when_named() {
    let none = Modules::default();
    let refused =
        |list: &[&str], modules: Modules, runtime| possible(&read(list).unwrap(), modules, runtime).is_err();
    assert!(refused(&["apparmor=mine"], none, None) && !refused(&["apparmor=unconfined"], none, None));
    assert!(!refused(&["apparmor=mine"], Modules { apparmor: true, ..none }, None));
    let with = Modules { landlock: 4, ..none };
    assert!(
        refused(&["landlock=ro:/"], none, None) && !refused(&["landlock=ro:/"], with, Some(BUILT_IN_RUNTIME))
    );
    assert!(refused(&["landlock=ro:/"], with, Some("runc")) && !refused(&[], none, Some("runc")));
}

#[test]
fn selinux_labels_take_the_policys_parts_where_none_is_asked_for() {
    let mut host = Host::of_tests();
    let of = |list: &[&str], host: &Host| process_label(&read(list).unwrap(), host);
    assert_eq!(of(&["label=type:spc_t"], &host), "");
    host.modules.selinux = true;
    host.container_label = "system_u:system_r:container_t:s0".into();
    assert_eq!(of(&["label=type:spc_t", "label=level:s0:c1,c2"], &host), "system_u:system_r:spc_t:s0:c1,c2");
    assert_eq!(of(&["label=type:spc_t", "label=disable"], &host), "");
    assert_eq!(of(&[], &host), "");
}
