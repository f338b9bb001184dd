//! Debian's docker-registry of one test, and what is put before it.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::host::sh;

/// A docker-registry.
pub struct Registry {
    pub port: u16,
    process: Child,
    log: PathBuf,
}

impl Registry {
    pub fn start(dir: &Path, tls: Option<(&Path, &Path)>, htpasswd: Option<&Path>) -> Self {
        Self::start_with(dir, tls, htpasswd, "")
    }

    /// With further lines below `tls:`.
    pub fn start_with(
        dir: &Path,
        tls: Option<(&Path, &Path)>,
        htpasswd: Option<&Path>,
        more_tls: &str,
    ) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut config = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {}/registry-{port}}}}}\nhttp:\n  addr: 127.0.0.1:{port}\n",
            dir.display()
        );
        if let Some((cert, key)) = tls {
            let _ =
                writeln!(config, "  tls:\n    certificate: {}\n    key: {}", cert.display(), key.display());
            let _ = writeln!(config, "{more_tls}");
        }
        if let Some(file) = htpasswd {
            let _ = writeln!(config, "auth: {{htpasswd: {{realm: test, path: {}}}}}", file.display());
        }
        let path = dir.join(format!("registry-{port}.yml"));
        std::fs::write(&path, config).unwrap();
        let log = dir.join(format!("registry-{port}.log"));
        let out = std::fs::File::create(&log).unwrap();
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(&path)
            .stdin(Stdio::null())
            .stderr(out.try_clone().unwrap())
            .stdout(out)
            .spawn()
            .unwrap();
        let me = Self { port, process, log };
        for _ in 0..500 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return me;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        panic!("docker-registry does not start: {}", me.log());
    }

    /// "127.0.0.1:PORT/name".
    pub fn name(&self, name: &str) -> String {
        format!("127.0.0.1:{}/{name}", self.port)
    }

    /// Lines of the access log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Puts an image of a layout here with skopeo.
    pub fn fill(&self, layout: &Path, tag: &str, name: &str) {
        sh(&format!(
            "skopeo copy -q --insecure-policy --dest-tls-verify=false oci:{}:{tag} docker://{}",
            layout.display(),
            self.name(name)
        ));
    }

    /// What skopeo makes of an image here.
    pub fn inspect(&self, name: &str) -> serde_json::Value {
        let text = sh(&format!("skopeo inspect --tls-verify=false docker://{}", self.name(name)));
        serde_json::from_str(&text).unwrap()
    }

    /// The manifest here, as it is.
    pub fn manifest(&self, name: &str) -> serde_json::Value {
        let text = sh(&format!("skopeo inspect --raw --tls-verify=false docker://{}", self.name(name)));
        serde_json::from_str(&text).unwrap()
    }

    /// Reads an image whole with skopeo, which verifies every digest.
    pub fn copy_out(&self, name: &str, to: &Path) {
        sh(&format!(
            "skopeo copy -q --insecure-policy --src-tls-verify=false docker://{} dir:{}",
            self.name(name),
            to.display()
        ));
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A file for htpasswd authentication: user, secret.
pub fn htpasswd(dir: &Path) -> PathBuf {
    let path = dir.join("htpasswd");
    sh(&format!("htpasswd -nbB user secret > {}", path.display()));
    path
}

/// Passes bytes on to a server, and cuts the first connections that carry more than `limit` bytes towards it.
pub struct Cutter {
    pub port: u16,
    pub cuts: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

impl Cutter {
    pub fn before(server: u16, limit: usize, times: usize) -> Self {
        Self::start(server, limit, times, false)
    }

    /// Takes no more instead, and keeps the client's connection open.
    pub fn stalling(server: u16, limit: usize, times: usize) -> Self {
        Self::start(server, limit, times, true)
    }

    fn start(server: u16, limit: usize, times: usize, stall: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (cuts, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, stopped) = (Arc::clone(&cuts), Arc::clone(&stop));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(server) = TcpStream::connect(("127.0.0.1", server)) else { continue };
                let (from, to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                std::thread::spawn(move || pass(from, to, usize::MAX, stall));
                let count = Arc::clone(&count);
                std::thread::spawn(move || {
                    let limit = if count.load(Ordering::SeqCst) < times { limit } else { usize::MAX };
                    if pass(client, server, limit, stall) {
                        count.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
        });
        Self { port, cuts, stop }
    }
}

impl Drop for Cutter {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

/// Whether it was cut.
fn pass(mut from: TcpStream, mut to: TcpStream, limit: usize, stall: bool) -> bool {
    let mut passed = 0;
    let mut buf = [0; 16 << 10];
    let cut = loop {
        match from.read(&mut buf) {
            Ok(n) if n > 0 => {
                if to.write_all(&buf[..n]).is_err() {
                    break false;
                }
                passed += n;
                if passed > limit {
                    break true;
                }
            }
            _ => break false,
        }
    };
    if cut && !stall {
        let _ = from.shutdown(Shutdown::Both);
    }
    if cut || !stall {
        let _ = to.shutdown(if cut { Shutdown::Both } else { Shutdown::Write });
    }
    if cut && stall {
        // The connection lives as long as this does.
        std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_secs(60));
            drop(from);
        });
    }
    cut
}
