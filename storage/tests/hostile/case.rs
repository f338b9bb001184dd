//! What a case is, and the tree that no case may touch.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use davit_storage::digest::Digest;

use crate::{hand, tree};

/// What is given to the daemon.
pub enum Input {
    /// An archive around one layer that unpacks to this diff id.
    Layer { archive: Vec<u8>, diff_id: String },
    /// A whole image archive.
    Archive(Vec<u8>),
    /// A directory that is made like this.
    Directory(fn(&Path)),
}

/// What must come of it.
pub enum Expect {
    /// An error with all these words.
    Refused(Vec<String>),
    /// The layer is there, and looks like this.
    Harmless(Box<dyn Fn(&Path)>),
}

/// One attack.
pub struct Case {
    pub name: String,
    pub input: Input,
    pub expect: Expect,
}

/// A layer, right but for what is in it.
pub fn layer(tar: &[u8]) -> Input {
    stored(tar.to_vec(), tar)
}

/// A layer with the stored bytes that are to unpack to `plain`.
pub fn stored(bytes: Vec<u8>, plain: &[u8]) -> Input {
    let diff_id = Digest::of(plain).to_string();
    Input::Layer { archive: hand::image("evil", &[(bytes, plain)]).tar(), diff_id }
}

pub fn refused(name: impl Into<String>, input: Input, words: &[&str]) -> Case {
    let words = words.iter().map(ToString::to_string).collect();
    Case { name: name.into(), input, expect: Expect::Refused(words) }
}

pub fn harmless(name: impl Into<String>, input: Input, look: impl Fn(&Path) + 'static) -> Case {
    Case { name: name.into(), input, expect: Expect::Harmless(Box::new(look)) }
}

/// The paths of a layer, sorted, without the root.
pub fn paths(layer: &Path) -> Vec<String> {
    tree::listing(layer).into_keys().filter(|p| !p.is_empty()).collect()
}

/// The text of a file of a layer.
pub fn text(layer: &Path, path: &str) -> String {
    std::fs::read_to_string(layer.join(path)).unwrap()
}

/// Files outside of every layer.
pub struct Canary {
    pub dir: PathBuf,
    before: BTreeMap<String, String>,
}

impl Canary {
    pub fn new(beside: &Path) -> Self {
        let dir = beside.join("canary");
        std::fs::create_dir_all(dir.join("sub")).unwrap();
        std::fs::write(dir.join("secret"), "secret").unwrap();
        std::fs::write(dir.join("sub/other"), "other").unwrap();
        let before = tree::listing(&dir);
        Self { dir, before }
    }

    /// Its absolute path.
    pub fn path(&self) -> String {
        self.dir.display().to_string()
    }

    pub fn assert_untouched(&self, case: &str) {
        assert_eq!(tree::listing(&self.dir), self.before, "{case}: it touched what is outside");
        for name in ["evil", "tmp/evil", "etc/evil"] {
            assert!(!Path::new("/").join(name).exists(), "{case}: it made /{name}");
        }
    }
}
