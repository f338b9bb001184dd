//! A real registry, over HTTP and HTTPS: pull, push, login and logout as a person types them.

use std::fs;
use std::path::Path;

use davit_tests::{Host, Registry, fixture};

#[test]
fn an_image_is_pulled_over_http_from_loopback() {
    let host = Host::new();
    let registry = Registry::http(&host);
    let layered = registry.image("layered:1");
    host.davit(["image", "pull", &layered]).ok();
    host.davit(["run", "--rm", "--net", "none", &layered]).ok().prints("entry: defaults");
    host.davit(["image", "ls"]).ok().says("127.0.0.1:5000/layered");
}

#[test]
fn run_pulls_what_is_missing() {
    let host = Host::new();
    let registry = Registry::http(&host);
    let busybox = registry.image("busybox:1");
    host.davit(["run", "--rm", "--net", "none", "--pull", "never", &busybox, "true"]).refused(&["busybox:1"]);
    host.davit(["run", "--rm", "--net", "none", &busybox, "echo", "pulled"]).ok().prints("pulled");
}

#[test]
fn an_image_is_pulled_by_digest() {
    let host = Host::new();
    let registry = Registry::http(&host);
    let url = format!("docker://{}", registry.image("busybox:1"));
    let digest = host.sh(&format!("skopeo inspect --tls-verify=false {url} | jq -r .Digest")).ok();
    let reference = format!("{}@{}", registry.image("busybox"), digest.text());
    host.davit(["image", "pull", &reference]).ok();
    host.davit(["run", "--rm", "--net", "none", &reference, "true"]).ok();
}

#[test]
fn an_image_is_pulled_over_https_with_an_authority_of_ones_own() {
    let host = Host::new();
    let registry = Registry::https(&host);
    let busybox = registry.image("busybox:1");
    let authority = registry.authority().to_string_lossy().into_owned();
    host.leaves_nothing(|| {
        host.davit(["image", "pull", &busybox]).refused(&["registry.test", "certificate"])
    });
    host.davit(["image", "pull", "--ca-file", &authority, &busybox]).ok();
    host.davit(["run", "--rm", "--net", "none", &busybox, "true"]).ok();
    host.davit(["image", "rm", &busybox]).ok();
    host.davit(["image", "pull", "--tls-verify=false", &busybox]).ok();
}

#[test]
fn a_second_pull_finds_all_layers_there() {
    let host = Host::with_busybox();
    let registry = Registry::http(&host);
    host.davit(["image", "pull", &registry.image("busybox:1")]).ok();
    host.davit(["image", "pull", &registry.image("busybox:1")]).ok();
    host.davit(["image", "pull", &registry.image("layered:1")]).ok();
}

#[test]
fn what_a_registry_lacks_is_named() {
    let host = Host::new();
    let registry = Registry::http(&host);
    for name in ["busybox:9", "nothing:1"] {
        let reference = registry.image(name);
        host.leaves_nothing(|| host.davit(["image", "pull", &reference]).refused(&[name]));
    }
}

#[test]
fn an_unreachable_registry_is_named() {
    let host = Host::new();
    host.leaves_nothing(|| {
        host.davit(["image", "pull", "127.0.0.1:5999/busybox:1"]).refused(&["127.0.0.1:5999"])
    });
    host.leaves_nothing(|| {
        host.davit(["image", "pull", "no-such-host.test/busybox:1"]).refused(&["no-such-host.test"])
    });
}

#[test]
fn a_blob_of_another_content_than_its_digest_is_refused() {
    let host = Host::new();
    let storage = host.work("storage");
    host.sh(&format!("cp -a {} {}", fixture::registry().registry(), storage.display())).ok();
    spoil_the_largest_blob(&host, &storage);
    let registry = Registry::writable(&host, &storage);
    let layered = registry.image("layered:1");
    host.leaves_nothing(|| host.davit(["image", "pull", &layered]).refused(&["digest"]));
}

const REGISTRY: &str = "127.0.0.1:5000";

fn log_in(host: &Host, password: &str) -> davit_tests::Ran {
    let args = ["login", "-u", "user", "--password-stdin", REGISTRY];
    host.command("davit").args(args).stdin(format!("{password}\n")).start().wait()
}

#[test]
fn a_person_logs_in_pushes_pulls_and_logs_out() {
    let host = Host::with_busybox();
    let registry = Registry::with_password(&host, &host.work("storage"));
    let name = registry.image("team/app:1");
    host.davit(["tag", "busybox:1", &name]).ok();
    host.davit(["push", "-q", &name]).refused(&["authentication required", "davit login 127.0.0.1:5000"]);
    log_in(&host, "wrong").refused(&[REGISTRY, "refuses the login", "unauthorized"]);
    let config = host.path().join("root/.docker/config.json");
    assert!(!config.exists());
    let ran = log_in(&host, "secret").ok().prints("Login Succeeded");
    assert!(ran.stderr.contains("stored unencrypted"), "{ran}");
    let kept: serde_json::Value = serde_json::from_slice(&fs::read(&config).expect("kept")).expect("JSON");
    assert_eq!(kept["auths"][REGISTRY]["auth"], "dXNlcjpzZWNyZXQ=");

    let pushed = host.davit(["push", &name]).ok();
    let lines: Vec<&str> = pushed.stdout.lines().collect();
    assert_eq!(lines[0], "The push refers to repository [127.0.0.1:5000/team/app]");
    assert!(lines[1].ends_with(": Pushed") && lines[2].starts_with("1: digest: sha256:"), "{pushed}");
    host.davit(["push", &name]).ok().says(": Layer already exists");
    host.davit(["push", "-q", &name]).ok().prints(&name);
    let skopeo =
        format!("skopeo inspect --tls-verify=false --creds user:secret docker://{name} | jq -r .Digest");
    let digest = host.sh(&skopeo).ok();
    assert!(lines[2].contains(digest.text()), "{digest} {pushed}");

    host.davit(["rmi", &name, "busybox:1"]).ok();
    host.davit(["pull", &name]).ok().says(&format!("Status: Downloaded newer image for {name}"));
    host.davit(["run", "--rm", "--net", "none", &name, "echo", "pulled"]).ok().prints("pulled");
    host.davit(["login", REGISTRY])
        .ok()
        .says("existing credentials... [Username: user]")
        .says("Login Succeeded");
    host.davit(["logout", REGISTRY]).ok().prints("Removing login credentials for 127.0.0.1:5000");
    host.davit(["rmi", &name]).ok();
    host.davit(["pull", "-q", &name]).refused(&["authentication required"]);
    // Nobody is there to type.
    host.davit(["login", REGISTRY]).code_is_not_zero();
}

#[test]
fn a_password_is_typed_unseen() {
    let host = Host::new();
    let _registry = Registry::with_password(&host, &host.work("storage"));
    let mut terminal = host.terminal(24, 80, ["login", REGISTRY]);
    terminal.shows("Username: ");
    terminal.types("user\n");
    terminal.shows("Password: ");
    // With a mistake, taken back.
    terminal.types("secrex\x7ft\r");
    terminal.shows("Login Succeeded");
    assert!(!terminal.screen().contains("secre"), "{}", terminal.screen());
    assert_eq!(terminal.exit_code(), 0);
}

#[test]
fn a_credential_helper_keeps_the_password() {
    let host = Host::with_busybox();
    let registry = Registry::with_password(&host, &host.work("storage"));
    let (bin, config) = (host.work("helpers"), host.work("docker"));
    let helper = r#"#!/bin/sh
kept="$(dirname "$0")/kept"
case $1 in
get) test -e "$kept" && cat "$kept" || { echo "credentials not found in native keychain"; exit 1; } ;;
store) cat > "$kept" ;;
erase) rm -f "$kept" ;;
esac
"#;
    fs::create_dir_all(&bin).expect("ours");
    fs::create_dir_all(&config).expect("ours");
    fs::write(bin.join("docker-credential-test"), helper).expect("ours");
    fs::write(config.join("config.json"), r#"{"credsStore":"test","psFormat":"kept"}"#).expect("ours");
    host.sh(&format!("chmod 755 {}/docker-credential-test", bin.display())).ok();
    let davit = |args: &[&str]| {
        let path = format!("{}:{}/bin:/usr/sbin:/usr/bin:/sbin:/bin", bin.display(), host.path().display());
        let command = host.command("davit").args(args).env("PATH", path);
        command.env("DOCKER_CONFIG", config.to_string_lossy()).stdin("secret").start().wait()
    };
    davit(&["login", "-u", "user", "--password-stdin", REGISTRY]).ok().prints("Login Succeeded");
    let text = fs::read_to_string(config.join("config.json")).expect("there");
    assert!(text.contains("psFormat") && !text.contains("dXNlcjpz"), "{text}");
    let name = registry.image("app:1");
    host.davit(["tag", "busybox:1", &name]).ok();
    davit(&["push", &name]).ok().says(": Pushed");
    davit(&["logout", REGISTRY]).ok();
    assert!(!bin.join("kept").exists());
    davit(&["push", "-q", &name]).refused(&["authentication required"]);
}

/// Changes one byte in the middle, so that the size stays.
fn spoil_the_largest_blob(host: &Host, storage: &Path) {
    let find = format!("find {} -name data -size +500k", storage.display());
    for path in host.sh(&find).ok().stdout.lines() {
        let mut bytes = fs::read(path).expect("just found");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(path, bytes).expect("the copy is ours");
    }
}
