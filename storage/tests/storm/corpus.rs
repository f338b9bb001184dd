//! The images of a storm: generated, so that every file of them is known.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use rand::{Rng, SeedableRng, rngs::StdRng};
use sha2::{Digest, Sha256};

pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut text, b| {
        write!(text, "{b:02x}").unwrap();
        text
    })
}

/// What a path of a layer is.
#[derive(Debug, PartialEq, Eq)]
pub enum Entry {
    Dir,
    File(Vec<u8>),
    Link(String),
}

pub struct Layer {
    pub tar: Vec<u8>,
    pub diff_id: String,
    pub entries: BTreeMap<String, Entry>,
}

impl Layer {
    fn of(entries: BTreeMap<String, Entry>) -> Self {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, entry) in &entries {
            let mut header = tar::Header::new_gnu();
            header.set_mtime(1_700_000_000);
            header.set_mode(0o755);
            match entry {
                Entry::Dir => {
                    header.set_entry_type(tar::EntryType::Directory);
                    header.set_size(0);
                    tar.append_data(&mut header, format!("{path}/"), &[][..]).unwrap();
                }
                Entry::File(bytes) => {
                    header.set_size(bytes.len() as u64);
                    tar.append_data(&mut header, path, bytes.as_slice()).unwrap();
                }
                Entry::Link(target) => {
                    header.set_entry_type(tar::EntryType::Symlink);
                    header.set_size(0);
                    tar.append_link(&mut header, path, target).unwrap();
                }
            }
        }
        let tar = tar.into_inner().unwrap();
        Self { diff_id: format!("sha256:{}", sha256(&tar)), tar, entries }
    }

    /// Compares a tree with what it must be; the first difference.
    pub fn differs(&self, tree: &Path) -> Option<String> {
        let mut found = 0;
        let mut todo = vec![tree.to_path_buf()];
        while let Some(dir) = todo.pop() {
            let Ok(entries) = std::fs::read_dir(&dir) else {
                return Some(format!("{} is missing", dir.display()));
            };
            for entry in entries {
                let path = entry.unwrap().path();
                let name = path.strip_prefix(tree).unwrap().to_str().unwrap().to_owned();
                let meta = path.symlink_metadata().unwrap();
                let is = if meta.is_dir() {
                    todo.push(path);
                    Entry::Dir
                } else if meta.is_symlink() {
                    Entry::Link(std::fs::read_link(path).unwrap().to_str().unwrap().to_owned())
                } else {
                    Entry::File(std::fs::read(path).unwrap())
                };
                match self.entries.get(&name) {
                    Some(wanted) if *wanted == is => found += 1,
                    Some(_) => return Some(format!("{name} differs in {}", tree.display())),
                    None => return Some(format!("{name} is too much in {}", tree.display())),
                }
            }
        }
        (found != self.entries.len())
            .then(|| format!("{found} of {} entries are in {}", self.entries.len(), tree.display()))
    }
}

/// An image as a docker-archive without a name.
pub struct Picture {
    /// Indices into the corpus' layers; the first is always the base.
    pub layers: Vec<usize>,
    pub archive: Vec<u8>,
}

pub struct Corpus {
    pub layers: Vec<Layer>,
    pub pictures: Vec<Picture>,
}

impl Corpus {
    /// A runnable base, eight layers over it, and pictures that share them.
    pub fn new() -> Self {
        let mut random = StdRng::seed_from_u64(1);
        let mut base = BTreeMap::new();
        for dir in ["bin", "etc", "tmp"] {
            base.insert(dir.to_owned(), Entry::Dir);
        }
        base.insert("bin/busybox".into(), Entry::File(std::fs::read("/usr/bin/busybox").unwrap()));
        for name in ["sh", "cat", "ls", "true"] {
            base.insert(format!("bin/{name}"), Entry::Link("busybox".into()));
        }
        let mut layers = vec![Layer::of(base)];
        for n in 1..=8 {
            let mut entries = BTreeMap::new();
            let dir = format!("d{n}");
            for name in [&dir, &format!("{dir}/deep")] {
                entries.insert(name.clone(), Entry::Dir);
            }
            for file in 0..12 {
                let mut bytes = vec![0; random.random_range(0..24_000)];
                random.fill(bytes.as_mut_slice());
                entries.insert(format!("{dir}/deep/{file}"), Entry::File(bytes));
            }
            entries.insert(format!("{dir}/link"), Entry::Link("deep/1".into()));
            entries.insert(format!("mark{n}"), Entry::File(format!("layer {n}\n").into_bytes()));
            layers.push(Layer::of(entries));
        }
        let of = [vec![], vec![1], vec![1, 2], vec![3, 2], vec![4, 5, 6], vec![6], vec![7, 1], vec![8, 7, 3]];
        let pictures = of
            .into_iter()
            .map(|tops| {
                let layers_of: Vec<usize> = std::iter::once(0).chain(tops).collect();
                Picture { archive: archive(&layers, &layers_of), layers: layers_of }
            })
            .collect();
        Self { layers, pictures }
    }

    pub fn by_diff_id(&self, diff_id: &str) -> usize {
        self.layers
            .iter()
            .position(|l| l.diff_id == diff_id)
            .unwrap_or_else(|| panic!("unknown layer {diff_id}"))
    }
}

fn archive(layers: &[Layer], of: &[usize]) -> Vec<u8> {
    let ids: Vec<&str> = of.iter().map(|l| layers[*l].diff_id.as_str()).collect();
    let config = serde_json::json!({
        "architecture": if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" },
        "os": "linux",
        "config": { "Cmd": ["/bin/sh"] },
        "rootfs": { "type": "layers", "diff_ids": ids },
    })
    .to_string();
    let config_name = format!("{}.json", sha256(config.as_bytes()));
    let names: Vec<String> = of.iter().map(|l| format!("{l}/layer.tar")).collect();
    let manifest =
        serde_json::json!([{ "Config": config_name, "RepoTags": null, "Layers": names }]).to_string();
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |name: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, name, bytes).unwrap();
    };
    add("manifest.json", manifest.as_bytes());
    add(&config_name, config.as_bytes());
    for (name, layer) in names.iter().zip(of) {
        add(name, &layers[*layer].tar);
    }
    tar.into_inner().unwrap()
}
