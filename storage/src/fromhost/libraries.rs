//! Where ld.so(8) looks for a library: RPATH, RUNPATH, the directories of /etc/ld.so.conf, the built-in ones.
//! LD_LIBRARY_PATH is left out: the container will not have it.

use std::path::{Path, PathBuf};

use super::elf::Elf;

/// Includes within includes.
const MAX_INCLUDES: usize = 16;

/// The host's directories.
pub(super) struct Libraries {
    configured: Vec<PathBuf>,
    used_configured: bool,
}

/// The directories that one ELF file's own headers name.
pub(super) struct Search {
    own: Vec<PathBuf>,
    /// RPATHs that count for what it needs, too.
    pub(super) inherited: Vec<PathBuf>,
}

impl Search {
    pub(super) fn of(path: &Path, elf: &Elf, inherited: &[PathBuf]) -> Self {
        let origin = path.parent().unwrap_or(Path::new("/"));
        let expand = |dirs: &[String]| -> Vec<PathBuf> {
            dirs.iter().filter_map(|d| expand(d, origin, elf)).collect()
        };
        if elf.runpath.is_empty() {
            let mut all = expand(&elf.rpath);
            all.extend_from_slice(inherited);
            Self { own: all.clone(), inherited: all }
        } else {
            // A file with a RUNPATH ignores every RPATH, but those needed by it may still inherit.
            Self { own: expand(&elf.runpath), inherited: inherited.to_vec() }
        }
    }
}

/// $ORIGIN, $LIB and $PLATFORM; a relative result is not followed.
fn expand(dir: &str, origin: &Path, elf: &Elf) -> Option<PathBuf> {
    let origin = origin.to_string_lossy();
    let lib = if elf.kind.0 == 2 { "lib64" } else { "lib" };
    let platform = std::env::consts::ARCH;
    let mut text = dir.to_owned();
    for (name, value) in [("ORIGIN", &*origin), ("LIB", lib), ("PLATFORM", platform)] {
        text = text.replace(&format!("${{{name}}}"), value).replace(&format!("${name}"), value);
    }
    Some(PathBuf::from(text)).filter(|p| p.is_absolute())
}

impl Libraries {
    pub(super) fn of_host() -> Self {
        let mut configured = Vec::new();
        read_conf(Path::new("/etc/ld.so.conf"), 0, &mut configured);
        Self { configured, used_configured: false }
    }

    /// Whether a library was found where only the cache leads, so that the cache must come along.
    pub(super) fn used_configured(&self) -> bool {
        self.used_configured
    }

    /// The file of a soname, of the right class and machine.
    pub(super) fn find(&mut self, name: &str, for_elf: &Elf, search: &Search) -> Option<PathBuf> {
        let fits = |p: &PathBuf| Elf::read(p).ok().flatten().is_some_and(|e| e.kind == for_elf.kind);
        if name.contains('/') {
            return Some(PathBuf::from(name)).filter(|p| p.is_absolute() && fits(p));
        }
        let builtin = builtin(for_elf);
        let in_dirs = |dirs: &[PathBuf]| dirs.iter().map(|d| d.join(name)).find(fits);
        if let Some(found) = in_dirs(&search.own) {
            return Some(found);
        }
        if let Some(found) = in_dirs(&self.configured) {
            self.used_configured |= !found.parent().is_some_and(|d| builtin.iter().any(|b| b == d));
            return Some(found);
        }
        in_dirs(&builtin)
    }
}

/// What the loader knows without any configuration; Debian's also knows the multiarch directories.
fn builtin(elf: &Elf) -> Vec<PathBuf> {
    let triplet = match elf.kind {
        (2, 62) => "x86_64-linux-gnu",
        (1, 3) => "i386-linux-gnu",
        (2, 183) => "aarch64-linux-gnu",
        (1, 40) => "arm-linux-gnueabihf",
        (2, 243) => "riscv64-linux-gnu",
        _ => "",
    };
    let mut dirs = Vec::new();
    if !triplet.is_empty() {
        dirs.extend([format!("/lib/{triplet}"), format!("/usr/lib/{triplet}")]);
    }
    let plain: [&str; 4] = if elf.kind.0 == 2 {
        ["/lib64", "/usr/lib64", "/lib", "/usr/lib"]
    } else {
        ["/lib", "/usr/lib", "/lib32", "/usr/lib32"]
    };
    dirs.into_iter().chain(plain.map(str::to_owned)).map(PathBuf::from).collect()
}

/// One directory a line, `#` comments, `include PATTERN`.
fn read_conf(path: &Path, depth: usize, dirs: &mut Vec<PathBuf>) {
    let Ok(text) = std::fs::read_to_string(path) else { return };
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if let Some(pattern) = line.strip_prefix("include").filter(|r| r.starts_with(char::is_whitespace)) {
            if depth < MAX_INCLUDES {
                let pattern = pattern.trim();
                let absolute = match path.parent() {
                    Some(parent) => parent.join(pattern),
                    None => PathBuf::from(pattern),
                };
                for file in glob(&absolute) {
                    read_conf(&file, depth + 1, dirs);
                }
            }
        } else if line.starts_with('/') {
            let dir = PathBuf::from(line.split('=').next().unwrap_or(line));
            if !dirs.contains(&dir) {
                dirs.push(dir);
            }
        }
    }
}

/// A star in the last component is all that ld.so.conf files use.
fn glob(pattern: &Path) -> Vec<PathBuf> {
    let name = pattern.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let Some((before, after)) = name.split_once('*') else { return vec![pattern.to_path_buf()] };
    let dir = pattern.parent().unwrap_or(Path::new("/"));
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|e| {
            let name = e.file_name().to_string_lossy().into_owned();
            name.len() >= before.len() + after.len() && name.starts_with(before) && name.ends_with(after)
        })
        .map(|e| e.path())
        .collect();
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configuration_files_are_read_with_their_includes() {
        let tmp = tempfile::tempdir().unwrap();
        std::fs::create_dir(tmp.path().join("d")).unwrap();
        std::fs::write(tmp.path().join("main"), "# c\n/opt/a # x\ninclude d/*.conf\n/opt/a\n").unwrap();
        std::fs::write(tmp.path().join("d/2.conf"), "/opt/c").unwrap();
        std::fs::write(tmp.path().join("d/1.conf"), "/opt/b\ninclude ../main\n").unwrap();
        std::fs::write(tmp.path().join("d/other"), "/opt/no").unwrap();
        let mut dirs = Vec::new();
        read_conf(&tmp.path().join("main"), 0, &mut dirs);
        assert_eq!(dirs, [Path::new("/opt/a"), Path::new("/opt/b"), Path::new("/opt/c")]);
    }

    #[test]
    fn origin_is_the_files_own_directory() {
        let elf =
            Elf { kind: (2, 62), runpath: vec!["$ORIGIN/../lib".into(), "rel".into()], ..Elf::default() };
        let search = Search::of(Path::new("/opt/x/bin/prog"), &elf, &["/inherited".into()]);
        assert_eq!(search.own, [Path::new("/opt/x/bin/../lib")]);
        assert_eq!(search.inherited, [Path::new("/inherited")]);
    }
}
