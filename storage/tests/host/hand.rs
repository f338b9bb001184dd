//! Archives and layouts written byte by byte, so that they can be wrong in any way.
#![allow(dead_code, clippy::unwrap_used)] // each test file uses its part

use std::collections::BTreeMap;

use davit_storage::digest::Digest;
use serde_json::{Value, json};

/// One header and its data.
#[derive(Clone)]
pub struct Entry {
    pub path: Vec<u8>,
    pub kind: u8,
    pub link: Vec<u8>,
    pub mode: u32,
    pub owner: (u32, u32),
    pub mtime: u64,
    pub device: (u32, u32),
    pub data: Vec<u8>,
    /// What the header says, when it lies.
    pub size: Option<u64>,
}

impl Entry {
    pub fn new(path: &str, kind: u8) -> Self {
        Self {
            path: path.into(),
            kind,
            link: Vec::new(),
            mode: if kind == b'5' { 0o755 } else { 0o644 },
            owner: (0, 0),
            mtime: 1_600_000_000,
            device: (0, 0),
            data: Vec::new(),
            size: None,
        }
    }

    pub fn link(mut self, to: &str) -> Self {
        self.link = to.into();
        self
    }

    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    pub fn owner(mut self, uid: u32, gid: u32) -> Self {
        self.owner = (uid, gid);
        self
    }

    pub fn device(mut self, major: u32, minor: u32) -> Self {
        self.device = (major, minor);
        self
    }

    pub fn data(mut self, data: impl Into<Vec<u8>>) -> Self {
        self.data = data.into();
        self
    }

    pub fn claims(mut self, size: u64) -> Self {
        self.size = Some(size);
        self
    }

    /// The header block with a right checksum.
    pub fn header(&self) -> [u8; 512] {
        let mut block = [0u8; 512];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &self.path[..self.path.len().min(100)]);
        put(100, format!("{:07o}\0", self.mode).as_bytes());
        put(108, format!("{:07o}\0{:07o}\0", self.owner.0, self.owner.1).as_bytes());
        let size = self.size.unwrap_or(self.data.len() as u64);
        if size < 1 << 33 {
            put(124, format!("{size:011o}\0").as_bytes());
        } else {
            put(124, &[0x80, 0, 0, 0]);
            put(128, &size.to_be_bytes());
        }
        put(136, format!("{:011o}\0", self.mtime).as_bytes());
        put(156, &[self.kind]);
        put(157, &self.link[..self.link.len().min(100)]);
        put(257, b"ustar\x0000");
        put(329, format!("{:07o}\0{:07o}\0", self.device.0, self.device.1).as_bytes());
        seal(&mut block);
        block
    }
}

/// Makes the checksum right.
pub fn seal(block: &mut [u8; 512]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// A growing tar.
#[derive(Clone, Default)]
pub struct Tar(pub Vec<u8>);

impl Tar {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub fn entry(mut self, entry: &Entry) -> Self {
        self.0.extend_from_slice(&entry.header());
        self.0.extend_from_slice(&entry.data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub fn file(self, path: &str, data: &str) -> Self {
        self.entry(&Entry::new(path, b'0').data(data))
    }

    pub fn dir(self, path: &str) -> Self {
        self.entry(&Entry::new(path, b'5'))
    }

    pub fn symlink(self, path: &str, to: &str) -> Self {
        self.entry(&Entry::new(path, b'2').link(to))
    }

    pub fn hard(self, path: &str, to: &str) -> Self {
        self.entry(&Entry::new(path, b'1').link(to))
    }

    /// An extended header for the entry that comes next.
    pub fn pax(self, records: &[(&str, &[u8])]) -> Self {
        self.extended(b'x', records)
    }

    pub fn extended(self, kind: u8, records: &[(&str, &[u8])]) -> Self {
        let mut data = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while length != rest + length.to_string().len() {
                length = rest + length.to_string().len();
            }
            data.extend_from_slice(format!("{length} {key}=").as_bytes());
            data.extend_from_slice(value);
            data.push(b'\n');
        }
        self.entry(&Entry::new("pax", kind).data(data))
    }

    /// GNU's long name for the entry that comes next.
    pub fn long(self, kind: u8, name: &[u8]) -> Self {
        let mut data = name.to_vec();
        data.push(0);
        self.entry(&Entry::new("././@LongLink", kind).data(data))
    }

    /// With the end mark.
    pub fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }
}

/// The files of an OCI layout.
#[derive(Clone, Default)]
pub struct Layout(pub BTreeMap<String, Vec<u8>>);

impl Layout {
    pub fn new() -> Self {
        let mut me = Self::default();
        me.0.insert("oci-layout".into(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec());
        me
    }

    /// Stores bytes; answers their descriptor.
    pub fn blob(&mut self, media_type: &str, bytes: impl Into<Vec<u8>>) -> Value {
        let bytes = bytes.into();
        let digest = Digest::of(&bytes);
        let descriptor = json!({"mediaType": media_type, "digest": digest.as_str(), "size": bytes.len()});
        self.0.insert(format!("blobs/sha256/{}", digest.hex()), bytes);
        descriptor
    }

    pub fn config(&mut self, diff_ids: &[String]) -> Value {
        let config = json!({
            "architecture": "amd64", "os": "linux", "config": {"Cmd": ["/bin/sh"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        self.blob("application/vnd.oci.image.config.v1+json", config.to_string())
    }

    pub fn manifest(&mut self, config: &Value, layers: &[Value]) -> Value {
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config, "layers": layers,
        });
        self.blob("application/vnd.oci.image.manifest.v1+json", manifest.to_string())
    }

    pub fn index(&mut self, mut manifest: Value, name: &str) {
        manifest["annotations"] = json!({"org.opencontainers.image.ref.name": name});
        let index = json!({"schemaVersion": 2, "manifests": [manifest]});
        self.0.insert("index.json".into(), index.to_string().into_bytes());
    }

    /// As one tar.
    pub fn tar(&self) -> Vec<u8> {
        let files = self.0.iter();
        files
            .fold(Tar::new(), |tar, (name, bytes)| tar.entry(&Entry::new(name, b'0').data(bytes.clone())))
            .end()
    }
}

/// A right layout with one image of these layers: stored bytes, and the tars that they unpack to.
pub fn image(name: &str, layers: &[(Vec<u8>, &[u8])]) -> Layout {
    let mut layout = Layout::new();
    let diff_ids: Vec<String> = layers.iter().map(|(_, plain)| Digest::of(plain).to_string()).collect();
    let config = layout.config(&diff_ids);
    let media = "application/vnd.oci.image.layer.v1.tar";
    let stored: Vec<Value> = layers.iter().map(|(bytes, _)| layout.blob(media, bytes.clone())).collect();
    let manifest = layout.manifest(&config, &stored);
    layout.index(manifest, name);
    layout
}

/// The same with one plain layer.
pub fn one_layer(name: &str, tar: &[u8]) -> Layout {
    image(name, &[(tar.to_vec(), tar)])
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}
