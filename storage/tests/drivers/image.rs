//! Images layer by layer, as a docker-archive.

use davit_storage::digest::Digest;
use serde_json::json;
use tar::{Builder, EntryType, Header};

/// A layer's tar.
pub struct Layer(Builder<Vec<u8>>);

/// Seconds of the modification time of whatever does not say otherwise.
pub const TIME: u64 = 1_600_000_000;

impl Layer {
    pub fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    /// Any entry, with pax records before it.
    pub fn entry(
        mut self,
        path: &str,
        kind: EntryType,
        mode: u32,
        pax: &[(&str, &[u8])],
        content: &[u8],
        change: impl FnOnce(&mut Header),
    ) -> Self {
        if !pax.is_empty() {
            self.0.append_pax_extensions(pax.iter().copied()).unwrap();
        }
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_mtime(TIME);
        header.set_size(content.len() as u64);
        header.set_uid(0);
        header.set_gid(0);
        header.set_path(path).unwrap();
        change(&mut header);
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    pub fn dir(self, path: &str) -> Self {
        self.entry(&format!("{path}/"), EntryType::Directory, 0o755, &[], b"", |_| ())
    }

    pub fn file(self, path: &str, content: &str) -> Self {
        self.entry(path, EntryType::Regular, 0o644, &[], content.as_bytes(), |_| ())
    }

    pub fn hard_link(self, path: &str, to: &str) -> Self {
        self.entry(path, EntryType::Link, 0o644, &[], b"", |h| h.set_link_name(to).unwrap())
    }

    /// `path` of the layers below is gone.
    pub fn whiteout(self, path: &str) -> Self {
        let (dir, name) = path.rsplit_once('/').map_or(("", path), |(d, n)| (d, n));
        let separator = if dir.is_empty() { "" } else { "/" };
        self.file(&format!("{dir}{separator}.wh.{name}"), "")
    }

    pub fn opaque(self, path: &str) -> Self {
        self.dir(path).file(&format!("{path}/.wh..wh..opq"), "")
    }
}

/// A docker-archive of one image.
pub fn archive(reference: &str, layers: Vec<Layer>) -> Vec<u8> {
    let tars: Vec<Vec<u8>> = layers.into_iter().map(|l| l.0.into_inner().unwrap()).collect();
    let diff_ids: Vec<String> = tars.iter().map(|t| Digest::of(t).to_string()).collect();
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux", "config": {"Cmd": ["sh"]}, "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let names: Vec<String> = (0..tars.len()).map(|n| format!("{n}.tar")).collect();
    let manifest = json!([{"Config": "config.json", "RepoTags": [reference], "Layers": names}]);
    let mut out =
        Layer::new().file("config.json", &config.to_string()).file("manifest.json", &manifest.to_string());
    for (name, tar) in names.iter().zip(&tars) {
        out = out.entry(name, EntryType::Regular, 0o644, &[], tar, |_| ());
    }
    out.0.into_inner().unwrap()
}
