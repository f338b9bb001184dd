//! Debian's docker-registry on a private host's loopback.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};

use crate::host::{Host, Running};
use crate::{eventually, fixture};

/// A running registry.
#[derive(Debug)]
pub struct Registry {
    _server: Running,
    port: u16,
    authority: Option<PathBuf>,
}

impl Registry {
    /// Serves `busybox:1` and `layered:1` over HTTP on port 5000.
    #[track_caller]
    pub fn http(host: &Host) -> Self {
        Self::start(host, Path::new(&fixture::registry().registry()), 5000, "", None)
    }

    /// Serves the same over HTTPS as `registry.test:5443`, with a certificate that only [`Registry::authority`] vouches for.
    #[track_caller]
    pub fn https(host: &Host) -> Self {
        let dir = host.work("tls");
        let script = r#"
            mkdir -p "$0" && cd "$0"
            openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj '/CN=test authority' -keyout ca.key -out ca.pem \
                -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign
            openssl req -newkey rsa:2048 -nodes -subj '/CN=registry.test' -keyout key.pem -out request.pem
            printf 'subjectAltName=DNS:registry.test,DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n' > extensions
            openssl x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile extensions -out cert.pem
        "#;
        host.command("sh").args(["-ec", script, &dir.to_string_lossy()]).start().wait().ok();
        let tls = format!("  tls:\n    certificate: {0}/cert.pem\n    key: {0}/key.pem\n", dir.display());
        Self::start(host, Path::new(&fixture::registry().registry()), 5443, &tls, Some(dir.join("ca.pem")))
    }

    /// An empty registry on port 5000 that keeps what is pushed in `storage`.
    #[track_caller]
    pub fn writable(host: &Host, storage: &Path) -> Self {
        Self::start(host, storage, 5000, "", None)
    }

    /// The same, for `user` with the password `secret` only.
    #[track_caller]
    pub fn with_password(host: &Host, storage: &Path) -> Self {
        let file = host.work("htpasswd");
        host.sh(&format!("htpasswd -nbB user secret > {}", file.display())).ok();
        let auth = format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", file.display());
        Self::start(host, storage, 5000, &auth, None)
    }

    fn start(host: &Host, storage: &Path, port: u16, tls: &str, authority: Option<PathBuf>) -> Self {
        let config = host.work(&format!("registry-{port}.yml"));
        let storage = format!("storage:\n  filesystem:\n    rootdirectory: {}\n", storage.display());
        let text =
            format!("version: 0.1\nlog:\n  level: error\n{storage}http:\n  addr: 127.0.0.1:{port}\n{tls}");
        fs::write(&config, text).expect("the host's work directory is writable");
        let server = host.command("docker-registry").args(["serve", &config.to_string_lossy()]).start();
        eventually("the registry listens", || {
            host.inside(|| TcpStream::connect((Ipv4Addr::LOCALHOST, port)))
                .map_err(|e| format!("{e}: {}", server.so_far()))
        });
        Self { _server: server, port, authority }
    }

    /// A reference of an image here, by the registry's loopback name.
    pub fn image(&self, name: &str) -> String {
        let name_of_host = if self.authority.is_some() { "registry.test" } else { "127.0.0.1" };
        format!("{name_of_host}:{}/{name}", self.port)
    }

    /// The certificate of the authority that signed this registry's own.
    pub fn authority(&self) -> &Path {
        self.authority.as_deref().expect("a registry started by Registry::https")
    }
}
