use super::*;
use std::os::unix::fs::PermissionsExt as _;

fn auth(username: &str, password: &str) -> RegistryAuth {
    RegistryAuth { username: username.into(), password: password.into(), identity_token: String::new() }
}

fn config(text: &str) -> (tempfile::TempDir, Config) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), text).unwrap();
    let config = Config::at(dir.path()).unwrap();
    (dir, config)
}

#[test]
fn credentials_are_found_by_registry() {
    let (_dir, c) = config(
        r#"{"auths":{"reg:5000":{"auth":"dXNlcjpwYTpzcw=="},"https://index.docker.io/v1/":{"identitytoken":"t"},
            "x.y":{},"https://old.y/v2/":{"auth":"YTpi"},"plain":{"username":"u","password":"p"},"bad":{"auth":"!"}}}"#,
    );
    assert_eq!(c.get(registry_of("reg:5000/a/b:1")).unwrap(), Some(auth("user", "pa:ss")));
    assert_eq!(c.get(registry_of("busybox")).unwrap().unwrap().identity_token, "t");
    assert_eq!(c.get("x.y").unwrap(), None);
    assert_eq!(c.get("old.y").unwrap(), Some(auth("a", "b")));
    assert_eq!(c.get("plain").unwrap(), Some(auth("u", "p")));
    assert_eq!(c.get("bad").unwrap(), None);
    assert_eq!(registry_of("team/app"), "docker.io");
    assert_eq!(registry_of("localhost/app"), "localhost");
}

#[test]
fn registries_have_many_names() {
    for hub in ["", "docker.io", "index.docker.io", "https://index.docker.io/v1/", "registry-1.docker.io"] {
        assert_eq!((host_of(hub), key_of(hub)), ("docker.io", HUB), "{hub}");
    }
    assert_eq!(key_of("https://reg:5000/v2/"), "reg:5000");
}

#[test]
fn keeping_and_forgetting_change_nothing_else() {
    let (dir, mut c) = config(
        r#"{"auths":{"other":{"auth":"YTpi"},"https://reg:5000":{"auth":"eDp5"}},"psFormat":"x","n":{"a":[1]}}"#,
    );
    let path = dir.path().join("config.json");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(c.keep("reg:5000", &auth("user", "pass")).unwrap(), Kept::InFile(path.clone()));
    let read = || serde_json::from_str::<Value>(&std::fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(
        read(),
        json!({"auths":{"other":{"auth":"YTpi"},"reg:5000":{"auth":"dXNlcjpwYXNz"}},"psFormat":"x","n":{"a":[1]}})
    );
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let token = RegistryAuth { identity_token: "tok".into(), ..auth("user", "pass") };
    c.keep("reg:5000", &token).unwrap();
    let again = Config::at(dir.path()).unwrap().get("reg:5000").unwrap().unwrap();
    assert_eq!((again.password.as_str(), again.identity_token.as_str()), ("", "tok"));
    assert!(c.forget("reg:5000").unwrap());
    assert!(!c.forget("reg:5000").unwrap());
    assert_eq!(read(), json!({"auths":{"other":{"auth":"YTpi"}},"psFormat":"x","n":{"a":[1]}}));
    // Nothing but the file is left.
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_new_file_is_made_with_its_directory_and_a_link_stays_a_link() {
    let dir = tempfile::tempdir().unwrap();
    let mut c = Config::at(&dir.path().join("a/b")).unwrap();
    c.keep("", &auth("u", "p")).unwrap();
    assert!(std::fs::read_to_string(dir.path().join("a/b/config.json")).unwrap().contains(HUB));
    let linked = dir.path().join("linked");
    std::fs::create_dir(&linked).unwrap();
    std::os::unix::fs::symlink(dir.path().join("a/b/config.json"), linked.join("config.json")).unwrap();
    Config::at(&linked).unwrap().keep("reg:1", &auth("u", "p")).unwrap();
    assert!(linked.join("config.json").is_symlink());
    assert!(Config::at(&dir.path().join("a/b")).unwrap().get("reg:1").unwrap().is_some());
}

#[test]
fn a_broken_file_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    for text in ["{", "[]", "\"x\""] {
        std::fs::write(dir.path().join("config.json"), text).unwrap();
        assert!(Config::at(dir.path()).is_err(), "{text}");
    }
    let (dir, mut c) = config(r#"{"auths":[]}"#);
    assert!(c.keep("reg:1", &auth("u", "p")).is_err());
    assert_eq!(std::fs::read_to_string(dir.path().join("config.json")).unwrap(), r#"{"auths":[]}"#);
}

/// A helper that keeps one secret in a file, by an absolute path in the place of a name.
fn fake_helper(dir: &Path) -> String {
    let program = dir.join("docker-credential-fake");
    let script = r#"#!/bin/sh
kept="$(dirname "$0")/kept"
case $1 in
get) read -r key; grep -qF "\"$key\"" "$kept" 2>/dev/null || { echo "credentials not found in native keychain"; exit 1; }; cat "$kept" ;;
store) cat > "$kept" ;;
erase) read -r key; grep -qF "\"$key\"" "$kept" 2>/dev/null || { echo "credentials not found in native keychain"; exit 1; }; rm "$kept" ;;
*) echo "no such word"; exit 2 ;;
esac
"#;
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    program.to_string_lossy().into_owned()
}

#[test]
fn a_helper_keeps_gives_and_forgets() {
    let dir = tempfile::tempdir().unwrap();
    let helper = Helper::at(fake_helper(dir.path()));
    assert_eq!(helper.get("reg:5000").unwrap(), None);
    helper.store("reg:5000", &auth("user", "pa\"ss")).unwrap();
    assert_eq!(helper.get("reg:5000").unwrap(), Some(auth("user", "pa\"ss")));
    assert_eq!(helper.get("reg:5001").unwrap(), None);
    let token = RegistryAuth { identity_token: "tok".into(), ..auth("user", "pass") };
    helper.store("reg:5000", &token).unwrap();
    assert_eq!(helper.get("reg:5000").unwrap().unwrap().identity_token, "tok");
    assert!(helper.erase("reg:5000").unwrap());
    assert!(!helper.erase("reg:5000").unwrap());
}

#[test]
fn a_helper_that_is_missing_or_fails_is_named() {
    let missing = Helper::new("surely-not-installed").get("x").unwrap_err();
    let Failure::Told(e) = missing else { panic!("{missing:?}") };
    assert!(e.to_string().contains("docker-credential-surely-not-installed"), "{e}");
    let (_dir, mut c) = config(r#"{"credsStore":"surely-not-installed"}"#);
    assert!(c.keep("reg:1", &auth("u", "p")).is_err());
    // A registry's own helper outweighs the one for all; an empty name means none.
    let (_dir, c) = config(
        r#"{"credsStore":"surely-not-installed","credHelpers":{"reg:1":""},"auths":{"reg:1":{"auth":"YTpi"}}}"#,
    );
    assert_eq!(c.get("reg:1").unwrap(), Some(auth("a", "b")));
    assert!(c.get("reg:2").is_err());
}
