//! The image that engines unpack: ten layers of uneven size, 60,000 files, 1 GB, the same bytes on every machine.
//!
//! ```text
//! target/fixtures/unpack-<version>-<files>-<bytes>/  layout/      OCI, layers gzipped at level 6 as docker pushes them
//!                                                    archive.tar  docker-archive, layers plain (made by skopeo)
//!                                                    storage/     what docker-registry serves (pushed by skopeo)
//! ```
//! File sizes are log-normal like those of a distribution's root file system; of the files 55 % read like text, 33 % like
//! programs and 12 % like what is compressed already. gzip makes about 40 % of it.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// Changes when the bytes do.
const VERSION: u32 = 1;
/// Parts of the whole that the layers take, bottom first, in percent.
const LAYERS: [u64; 10] = [30, 20, 12, 10, 8, 7, 5, 4, 2, 2];
const FILES_A_DIRECTORY: u64 = 24;

/// How large it is.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Size {
    /// Files of the generated image
    #[arg(long, default_value_t = 60_000)]
    pub files: u64,
    /// Bytes in these files
    #[arg(long, default_value_t = 1_000_000_000)]
    pub bytes: u64,
}

/// Where it is, in each form.
#[derive(Debug, Clone)]
pub struct Image {
    dir: PathBuf,
}

impl Image {
    /// The docker-archive; it names `bench/unpack:1`.
    pub fn archive(&self) -> String {
        self.dir.join("archive.tar").display().to_string()
    }

    /// A docker-registry's storage with `bench/unpack:1`.
    pub fn storage(&self) -> PathBuf {
        self.dir.join("storage")
    }

    /// Makes it unless an earlier run did.
    pub fn make(size: Size, fixtures: &Path) -> anyhow::Result<Self> {
        let dir = fixtures.join(format!("unpack-{VERSION}-{}-{}", size.files, size.bytes));
        if !dir.exists() {
            println!("generating {} files of {} bytes in {}", size.files, size.bytes, dir.display());
            let draft = fixtures.join(".unpack.draft");
            if draft.exists() {
                fs::remove_dir_all(&draft)?;
            }
            fs::create_dir_all(draft.join("layout/blobs/sha256"))?;
            layout(size, &draft.join("layout"))?;
            let layout = draft.join("layout").display().to_string();
            let archive = draft.join("archive.tar").display().to_string();
            skopeo(&[
                "copy",
                "-q",
                &format!("oci:{layout}:1"),
                &format!("docker-archive:{archive}:bench/unpack:1"),
            ])?;
            super::registry::fill(&layout, &draft.join("storage"))?;
            fs::rename(&draft, &dir)?;
        }
        Ok(Self { dir })
    }
}

/// Runs skopeo to the end.
pub fn skopeo(args: &[&str]) -> anyhow::Result<()> {
    let status =
        Command::new("skopeo").arg("--insecure-policy").args(args).status().context("cannot run skopeo")?;
    ensure!(status.success(), "skopeo {} failed ({status})", args.join(" "));
    Ok(())
}

fn layout(size: Size, dir: &Path) -> anyhow::Result<()> {
    let mut random = Random(0x5eed);
    let sizes = sizes(size, &mut random);
    let mut files = sizes.into_iter().enumerate();
    let (mut descriptors, mut diff_ids) = (Vec::new(), Vec::new());
    for (index, percent) in LAYERS.into_iter().enumerate() {
        let count = usize::try_from(size.files * percent / 100)?;
        let part: Vec<(usize, u64)> = files.by_ref().take(count).collect();
        let (diff_id, blob, bytes) = layer(index, &part, dir, &mut random)?;
        diff_ids.push(diff_id);
        let kind = "application/vnd.oci.image.layer.v1.tar+gzip";
        descriptors.push(json!({"mediaType": kind, "digest": blob, "size": bytes}));
    }
    let history: Vec<Value> = (0..LAYERS.len())
        .map(|i| json!({"created": "2026-01-01T00:00:00Z", "created_by": format!("layer {i}")}))
        .collect();
    let config = document(
        dir,
        &json!({
            "created": "2026-01-01T00:00:00Z", "architecture": architecture(), "os": "linux",
            "config": {"Cmd": ["/bin/sh"]}, "rootfs": {"type": "layers", "diff_ids": diff_ids}, "history": history,
        }),
        "application/vnd.oci.image.config.v1+json",
    )?;
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": descriptors,
    });
    let mut manifest = document(dir, &manifest, "application/vnd.oci.image.manifest.v1+json")?;
    manifest["annotations"] = json!({"org.opencontainers.image.ref.name": "1"});
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    fs::write(dir.join("index.json"), json!({"schemaVersion": 2, "manifests": [manifest]}).to_string())?;
    Ok(())
}

fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

/// Stores a document; answers its descriptor.
fn document(dir: &Path, value: &Value, kind: &str) -> anyhow::Result<Value> {
    let bytes = serde_json::to_vec(value)?;
    let digest = hex(&Sha256::digest(&bytes));
    fs::write(dir.join("blobs/sha256").join(&digest), &bytes)?;
    Ok(json!({"mediaType": kind, "digest": format!("sha256:{digest}"), "size": bytes.len()}))
}

/// Log-normal sizes that add up to the wanted number of bytes.
#[allow(clippy::cast_precision_loss, reason = "sizes far below 2^53")]
fn sizes(size: Size, random: &mut Random) -> Vec<u64> {
    let raw: Vec<f64> = (0..size.files).map(|_| (1.9 * random.normal()).exp()).collect();
    let scale = size.bytes as f64 / raw.iter().sum::<f64>();
    raw.into_iter().map(|r| (r * scale) as u64).collect()
}

/// Writes a layer's blob; answers diff id, digest and size.
fn layer(
    index: usize,
    files: &[(usize, u64)],
    dir: &Path,
    random: &mut Random,
) -> anyhow::Result<(String, String, u64)> {
    let draft = dir.join("draft");
    let blob = Hashing::new(BufWriter::new(File::create(&draft)?));
    let plain = Hashing::new(GzEncoder::new(blob, Compression::new(6)));
    let mut tar = tar::Builder::new(plain);
    let mut content = Vec::new();
    for (n, (number, bytes)) in files.iter().enumerate() {
        let group = n as u64 / FILES_A_DIRECTORY;
        let parent = format!("usr/lib/layer{index}/{:02}/{:03}", group % 40, group / 40);
        if (n as u64).is_multiple_of(FILES_A_DIRECTORY) {
            entry(&mut tar, tar::EntryType::Directory, &format!("{parent}/"), 0o755, &[])?;
        }
        random.content(&mut content, usize::try_from(*bytes)?);
        let mode = if number % 9 == 0 { 0o755 } else { 0o644 };
        entry(&mut tar, tar::EntryType::Regular, &format!("{parent}/file-{number}.dat"), mode, &content)?;
    }
    let (encoder, diff_id, _) = tar.into_inner()?.finish();
    let (mut file, digest, bytes) = encoder.finish()?.finish();
    file.flush()?;
    fs::rename(&draft, dir.join("blobs/sha256").join(&digest))?;
    Ok((format!("sha256:{diff_id}"), format!("sha256:{digest}"), bytes))
}

fn entry(
    tar: &mut tar::Builder<impl Write>,
    kind: tar::EntryType,
    path: &str,
    mode: u32,
    data: &[u8],
) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_mtime(1_767_225_600);
    header.set_size(data.len() as u64);
    tar.append_data(&mut header, path, data)
}

/// A writer that knows the digest of what passed.
struct Hashing<W> {
    inner: W,
    hasher: Sha256,
    count: u64,
}

impl<W: Write> Hashing<W> {
    fn new(inner: W) -> Self {
        Self { inner, hasher: Sha256::new(), count: 0 }
    }

    fn finish(self) -> (W, String, u64) {
        (self.inner, hex(&self.hasher.finalize()), self.count)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(buf)?;
        self.hasher.update(&buf[..n]);
        self.count += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, b| {
        let _ = write!(text, "{b:02x}");
        text
    })
}

/// splitmix64: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// The sum of twelve uniform numbers is normal enough.
    #[allow(clippy::cast_precision_loss, reason = "53 bits are kept")]
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| (self.next() >> 11) as f64 / (1u64 << 53) as f64).sum::<f64>() - 6.0
    }

    fn content(&mut self, into: &mut Vec<u8>, length: usize) {
        into.clear();
        match self.below(100) {
            0..55 => self.text(into, length),
            55..88 => self.program(into, length),
            _ => {
                while into.len() < length {
                    into.extend_from_slice(&self.next().to_le_bytes());
                }
            }
        }
        into.truncate(length);
    }

    /// Words of a small vocabulary, common ones more often.
    fn text(&mut self, into: &mut Vec<u8>, length: usize) {
        while into.len() < length {
            let rank = self.below(64) * self.below(64);
            let mut word = rank.wrapping_mul(0x2545_f491_4f6c_dd1d);
            for _ in 0..2 + rank % 8 {
                into.push(b'a' + (word % 26) as u8);
                word /= 26;
            }
            into.push(if rank.is_multiple_of(11) { b'\n' } else { b' ' });
        }
    }

    /// Eight bytes at a time: new ones, or some that stand a little before.
    fn program(&mut self, into: &mut Vec<u8>, length: usize) {
        while into.len() < length {
            let back = 8 + usize::try_from(self.below(2048)).unwrap_or(0);
            if self.below(100) < 62 && into.len() > back + 8 {
                let from = into.len() - back;
                into.extend_from_within(from..from + 8);
            } else {
                into.extend_from_slice(&self.next().to_le_bytes());
            }
        }
    }
}
