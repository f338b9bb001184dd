//! Pulling from Debian's docker-registry on loopback, and from servers that lie.
#![allow(clippy::unwrap_used)]

#[path = "host/private.rs"]
mod host;

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use davit_contracts::Kind;
use davit_contracts::storage as pb;
use host::{Host, busybox_layout, sh};

/// A docker-registry of one test.
struct Registry {
    port: u16,
    process: Child,
}

impl Registry {
    fn start(dir: &Path, tls: Option<(&Path, &Path)>, htpasswd: Option<&Path>) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}/registry}}}}\nhttp:\n  addr: 127.0.0.1:{port}\n",
            dir.display()
        );
        if let Some((cert, key)) = tls {
            let _ = writeln!(config, "  tls: {{certificate: {}, key: {}}}", cert.display(), key.display());
        }
        if let Some(file) = htpasswd {
            let _ = writeln!(config, "auth: {{htpasswd: {{realm: test, path: {}}}}}", file.display());
        }
        let path = dir.join(format!("registry-{port}.yml"));
        std::fs::write(&path, config).unwrap();
        let mut process = Command::new("docker-registry")
            .arg("serve")
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        for _ in 0..500 {
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Self { port, process };
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let _ = process.kill();
        let _ = process.wait();
        panic!("docker-registry does not start");
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn request(reference: &str) -> pb::PullRequest {
    pb::PullRequest { reference: reference.into(), ..Default::default() }
}

#[tokio::test]
async fn an_image_is_pulled_over_plain_http_from_loopback() {
    let host = Host::new().await;
    let layout = busybox_layout(host.tmp.path());
    let registry = Registry::start(host.tmp.path(), None, None);
    let name = format!("127.0.0.1:{}/team/app", registry.port);
    for tag in ["base", "two"] {
        sh(&format!(
            "skopeo copy -q --insecure-policy --dest-tls-verify=false oci:{}:{tag} docker://{name}:{tag}",
            layout.display()
        ));
    }
    // As a multi-platform index, too, in docker's schema 2.
    sh(&format!(
        "skopeo copy -q --insecure-policy --src-tls-verify=false --dest-tls-verify=false --format v2s2 docker://{name}:two docker://{name}:v2s2"
    ));

    let (one, two) =
        tokio::join!(host.pull(request(&format!("{name}:base"))), host.pull(request(&format!("{name}:two"))));
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!(one.references, [format!("{name}:base")]);
    // The shared layer came once.
    assert_eq!(host.names("layers").len(), 3);
    let prepared = host.prepare("c1", &format!("{name}:two")).await.unwrap();
    assert!(host.in_mount(&prepared.mounts, "chroot $ROOT /bin/cat /dir/above").1.contains("above"));

    let pinned = format!("{name}@{}", two.manifest_digest);
    let by_digest = host.pull(request(&pinned)).await.unwrap();
    assert_eq!(by_digest.image_id, two.image_id);
    assert_eq!(host.inspect(&pinned).await.unwrap().image.unwrap().digests, std::slice::from_ref(&pinned));
    // The same config under another manifest is the same image.
    let v2s2 = host.pull(request(&format!("{name}:v2s2"))).await.unwrap();
    assert_eq!(host.inspect(&v2s2.image_id).await.unwrap().image.unwrap().diff_ids.len(), 3);

    let e = host.pull(request(&format!("{name}:nope"))).await.unwrap_err();
    assert_eq!(
        (e.kind(), e.message()),
        (Kind::NotFound, format!("{name}:nope does not exist in its registry").as_str())
    );
    drop(registry);
    let e = host.pull(request(&format!("{name}:two"))).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Unavailable);
    assert!(
        e.message().contains("cannot reach registry") && e.message().contains("connection refused"),
        "{e}"
    );
    let e = host.pull(request("registry.invalid/x")).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Unavailable, "{e}");
}

#[tokio::test]
async fn certificates_are_verified_unless_told_otherwise() {
    let host = Host::new().await;
    let dir = host.tmp.path();
    let layout = busybox_layout(dir);
    sh(&format!(
        "cd {}; openssl req -x509 -newkey rsa:2048 -nodes -days 2 -keyout ca.key -out ca.crt -subj /CN=ca -addext basicConstraints=critical,CA:TRUE 2>/dev/null
         openssl req -newkey rsa:2048 -nodes -keyout srv.key -out srv.csr -subj /CN=localhost 2>/dev/null
         printf 'subjectAltName=DNS:localhost,IP:127.0.0.1' > ext
         openssl x509 -req -in srv.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out srv.crt 2>/dev/null
         openssl req -x509 -newkey rsa:2048 -nodes -days 2 -keyout self.key -out self.crt -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1 2>/dev/null",
        dir.display()
    ));
    let registry = Registry::start(dir, Some((&dir.join("srv.crt"), &dir.join("srv.key"))), None);
    let name = format!("127.0.0.1:{}/app:1", registry.port);
    sh(&format!(
        "skopeo copy -q --insecure-policy --dest-tls-verify=false oci:{}:two docker://{name}",
        layout.display()
    ));

    let e = host.pull(request(&name)).await.unwrap_err();
    assert!(e.message().contains("certificate that is not trusted"), "{e}");
    assert!(e.hint().contains(&format!("certs.d/127.0.0.1:{}/ca.crt", registry.port)), "{}", e.hint());
    let e = host.pull(pb::PullRequest { ca_pem: b"nonsense".to_vec(), ..request(&name) }).await.unwrap_err();
    assert_eq!(e.kind(), Kind::InvalidArgument, "{e}");

    let ca_pem = std::fs::read(dir.join("ca.crt")).unwrap();
    host.pull(pb::PullRequest { ca_pem, ..request(&name) }).await.unwrap();
    host.remove(&name, false).await.unwrap();
    host.pull(pb::PullRequest { skip_tls_verify: true, ..request(&name) }).await.unwrap();
    host.remove(&name, false).await.unwrap();
    let certs = dir.join(format!("config/certs.d/127.0.0.1:{}", registry.port));
    std::fs::create_dir_all(&certs).unwrap();
    std::fs::copy(dir.join("ca.crt"), certs.join("ca.crt")).unwrap();
    host.pull(request(&name)).await.unwrap();
    host.remove(&name, false).await.unwrap();
    host.assert_empty();

    // A certificate that is its own authority, as `openssl req -x509` makes them.
    let own = Registry::start(dir, Some((&dir.join("self.crt"), &dir.join("self.key"))), None);
    let name = format!("127.0.0.1:{}/app:1", own.port);
    sh(&format!(
        "skopeo copy -q --insecure-policy --dest-tls-verify=false oci:{}:two docker://{name}",
        layout.display()
    ));
    let ca_pem = std::fs::read(dir.join("self.crt")).unwrap();
    host.pull(pb::PullRequest { ca_pem, ..request(&name) }).await.unwrap();
}

#[tokio::test]
async fn credentials_are_asked_for_and_used() {
    let host = Host::new().await;
    let dir = host.tmp.path();
    let layout = busybox_layout(dir);
    // bcrypt of "secret".
    let hash = "$2y$05$kIBxPuE1zmJNEU8Lf0xqyuKMwe1E9eyRRrVvFKVz4zmwPLKAqJGfG";
    let made = Command::new("htpasswd").args(["-nbB", "user", "secret"]).output();
    let line = made
        .ok()
        .filter(|o| o.status.success())
        .map_or(format!("user:{hash}"), |o| String::from_utf8(o.stdout).unwrap());
    std::fs::write(dir.join("htpasswd"), line.trim()).unwrap();
    let registry = Registry::start(dir, None, Some(&dir.join("htpasswd")));
    let name = format!("localhost:{}/app:1", registry.port);
    let e = host.pull(request(&name)).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Unauthenticated);
    let auth = pb::RegistryAuth { username: "user".into(), password: "wrong".into(), ..Default::default() };
    let e = host.pull(pb::PullRequest { auth: Some(auth), ..request(&name) }).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Unauthenticated);
    let push = format!(
        "skopeo copy -q --insecure-policy --dest-creds user:secret --dest-tls-verify=false oci:{}:two docker://{name}",
        layout.display()
    );
    sh(&push);
    let auth = pb::RegistryAuth { username: "user".into(), password: "secret".into(), ..Default::default() };
    host.pull(pb::PullRequest { auth: Some(auth), ..request(&name) }).await.unwrap();
}

/// A server that answers from a table, cuts connections, and wants a bearer token.
fn liar(dir: &Path, answer: impl Fn(&str, &str) -> Vec<u8> + Send + 'static) -> u16 {
    let _ = dir;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut bytes = Vec::new();
            let mut buf = [0; 4096];
            while !bytes.windows(4).any(|w| w == b"\r\n\r\n") && (bytes.is_empty() || bytes[0] == b'G') {
                match stream.read(&mut buf) {
                    Ok(n) if n > 0 => bytes.extend(&buf[..n]),
                    _ => break,
                }
            }
            if !bytes.starts_with(b"GET ") {
                // The greeting of TLS.
                let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
                continue;
            }
            let head = String::from_utf8_lossy(&bytes).into_owned();
            let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
            let _ = stream.write_all(&answer(&path, &head));
        }
    });
    port
}

fn ok(body: &[u8]) -> Vec<u8> {
    let mut out = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len())
        .into_bytes();
    out.extend(body);
    out
}

#[tokio::test]
async fn a_registry_that_lies_is_found_out_and_one_that_cuts_is_asked_again() {
    let host = Host::new().await;
    let layout = busybox_layout(host.tmp.path());
    let digest_of = |tag: &str| {
        sh(&format!("skopeo inspect --format '{{{{.Digest}}}}' oci:{}:{tag}", layout.display()))
            .trim()
            .to_owned()
    };
    let blobs = layout.join("blobs/sha256");
    let manifest = digest_of("two");
    let read = move |digest: &str| std::fs::read(blobs.join(digest.trim_start_matches("sha256:"))).ok();
    let manifest_bytes = read(&manifest).unwrap();

    // Blobs are answered honestly, but the connection is cut after a part; the rest is given by range. A token is wanted.
    let (r, m) = (read.clone(), manifest_bytes.clone());
    let cutting = liar(host.tmp.path(), move |path, head| {
        let head = head.to_lowercase();
        if path.starts_with("/token") {
            assert!(path.contains("scope=repository%3Aapp%3Apull") && path.contains("service=me"), "{path}");
            return ok(br#"{"token":"tok"}"#);
        }
        if !head.contains("authorization: bearer tok") {
            let host =
                head.lines().find_map(|l| l.strip_prefix("host: ")).unwrap_or_default().trim().to_owned();
            return format!("HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer realm=\"http://{host}/token\",service=\"me\",scope=\"repository:app:pull\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").into_bytes();
        }
        let name = path.rsplit('/').next().unwrap();
        if path.contains("/manifests/") {
            return ok(&m);
        }
        let body = r(name).unwrap();
        if let Some(range) = head.lines().find_map(|l| l.strip_prefix("range: bytes=")) {
            let from: usize = range.trim().trim_end_matches('-').parse().unwrap();
            let rest = &body[from..];
            let mut out = format!(
                "HTTP/1.1 206 Partial Content\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                rest.len()
            )
            .into_bytes();
            out.extend(&rest[..rest.len().min(400_000)]);
            return out;
        }
        let mut out = ok(&body);
        if body.len() > 10_000 {
            out.truncate(out.len() / 2);
        }
        out
    });
    host.pull(request(&format!("127.0.0.1:{cutting}/app:1"))).await.unwrap();
    host.remove(&format!("127.0.0.1:{cutting}/app:1"), false).await.unwrap();
    host.assert_empty();

    // Layers of the right size with a changed byte.
    let (r, m) = (read.clone(), manifest_bytes.clone());
    let lying = liar(host.tmp.path(), move |path, _| {
        if path.contains("/manifests/") {
            return ok(&m);
        }
        let mut body = r(path.rsplit('/').next().unwrap()).unwrap();
        if body.len() > 10_000 {
            let middle = body.len() / 2;
            body[middle] ^= 1;
        }
        ok(&body)
    });
    let e = host.pull(request(&format!("127.0.0.1:{lying}/app:1"))).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Corrupt, "{e}");
    assert!(e.to_string().contains("its digest is"), "{e}");
    host.assert_empty();

    // A manifest that is not the one that was asked for.
    let other = format!("127.0.0.1:{lying}/app@sha256:{}", "0".repeat(64));
    let e = host.pull(request(&other)).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Corrupt, "{e}");

    for (body, kind) in [
        (&b"<html>"[..], Kind::Corrupt),
        (b"{}", Kind::Corrupt),
        (br#"{"schemaVersion":1}"#, Kind::Unsupported),
    ] {
        let body = body.to_vec();
        let port = liar(host.tmp.path(), move |_, _| ok(&body));
        let e = host.pull(request(&format!("127.0.0.1:{port}/app:1"))).await.unwrap_err();
        assert_eq!(e.kind(), kind, "{e}");
    }
    host.assert_empty();
}
