use super::*;

#[test]
fn a_shell_comes_with_its_loader_libraries_and_links() {
    let shell = collect(&["/bin/sh".into()], &[]).unwrap();
    let real = Path::new("/bin/sh").canonicalize().unwrap();
    assert_eq!(shell.nodes.get(&real), Some(&Node::File));
    if Path::new("/bin").is_symlink() {
        assert!(matches!(shell.nodes.get(Path::new("/bin")), Some(Node::Symlink(_))));
    }
    let elf = Elf::read(&real).unwrap().unwrap();
    let loader = elf.interpreter.unwrap().canonicalize().unwrap();
    assert_eq!(shell.nodes.get(&loader), Some(&Node::File));
    assert!(shell.nodes.keys().any(|p| p.to_string_lossy().contains("/libc.so")));
    assert_eq!(shell.nodes.get(Path::new("/tmp")), Some(&Node::Directory(0o1777)));
    assert_eq!(shell.command(), ["/bin/sh"]);
}

#[test]
fn the_layer_is_the_same_every_time() {
    let tar = || {
        let mut out = Vec::new();
        collect(&["/bin/sh".into()], &[]).unwrap().write_tar(&mut out).unwrap();
        out
    };
    assert!(tar() == tar());
}

#[test]
fn scripts_bring_their_interpreter_and_nonsense_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let tmp = tempfile::tempdir().unwrap();
    let make = |name: &str, text: &str| {
        let path = tmp.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path.display().to_string()
    };
    let script = collect(&[make("good", "#!/bin/sh -e\ntrue\n")], &[]).unwrap();
    assert!(script.nodes.contains_key(&Path::new("/bin/sh").canonicalize().unwrap()));
    let env = collect(&[make("env", "#!/usr/bin/env -S sh -e\n")], &[]).unwrap();
    assert!(env.nodes.keys().any(|p| p.ends_with("env")));
    let fails = |p: String| collect(&[p], &[]).err().unwrap().to_string();
    assert!(fails(make("bad", "hello")).contains("neither"));
    assert!(fails(make("lost", "#!/no/such/thing\n")).contains("/no/such/thing"));
    assert!(fails("/no/such/program".into()).contains("not found"));
    assert!(fails("no-such-program-anywhere".into()).contains("not found"));
    assert!(fails("./relative".into()).contains("absolute"));
    assert!(
        fails(make("elf", "\x7fELF garbage that is long enough to look like a header of an ELF file......."))
            .contains("not a program")
    );
    assert!(collect(&[], &[]).is_err());
}
