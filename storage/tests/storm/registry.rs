//! Debian's docker-registry on loopback with some pictures of the corpus.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::corpus::Corpus;
use crate::host::sh;

pub struct Registry {
    pub names: Vec<(String, Vec<usize>)>,
    process: Child,
}

impl Registry {
    /// Serves some pictures below `dir`.
    pub fn start(dir: &Path, corpus: &Corpus) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = dir.join("registry.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n",
            dir.join("registry").display()
        );
        std::fs::write(&config, text).unwrap();
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut registry = Self { names: Vec::new(), process };
        for attempt in 0.. {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                break;
            }
            assert!(attempt < 500, "docker-registry does not start");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        for (n, picture) in corpus.pictures.iter().enumerate().filter(|(n, _)| n % 2 == 1) {
            let name = format!("127.0.0.1:{port}/storm/p{n}:latest");
            let archive = dir.join("push.tar");
            std::fs::write(&archive, &picture.archive).unwrap();
            sh(&format!(
                "skopeo copy -q --insecure-policy --dest-tls-verify=false docker-archive:{} docker://{name}",
                archive.display()
            ));
            registry.names.push((name, picture.layers.clone()));
        }
        registry
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
