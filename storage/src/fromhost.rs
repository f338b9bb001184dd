//! An image of the host's own programs: each with its loader, shared libraries and links, as one layer.
//!
//! Nothing of what is copied is run: ELF headers and scripts' first lines are read, and libraries are searched as ld.so(8)
//! does. Paths stay as they are on the host, with every symbolic link on the way (`/bin -> usr/bin`), so that what a
//! program expects is where it expects it. The layer is deterministic: sorted, owned by root, with the files' own times.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

mod elf;
mod error;
mod layer;
mod libraries;

pub use error::FromHostError;

use elf::Elf;
use libraries::Libraries;

/// What goes to a path of the layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    /// A directory with this mode.
    Directory(u32),
    /// A symbolic link.
    Symlink(PathBuf),
    /// The host's file of the same path.
    File,
    /// Made up.
    Text(Vec<u8>),
}

/// Everything that the layer will hold, by absolute path.
pub struct Collection {
    pub(crate) nodes: BTreeMap<PathBuf, Node>,
    libraries: Libraries,
    queue: VecDeque<PathBuf>,
    seen: BTreeSet<PathBuf>,
    /// Resolved paths of the programs that were named, in order.
    programs: Vec<PathBuf>,
}

/// Gathers programs and further paths with all that they need.
pub fn collect(programs: &[String], paths: &[String]) -> Result<Collection, FromHostError> {
    if programs.is_empty() && paths.is_empty() {
        return Err(FromHostError::Nothing);
    }
    let mut collection = Collection {
        nodes: BTreeMap::new(),
        libraries: Libraries::of_host(),
        queue: VecDeque::new(),
        seen: BTreeSet::new(),
        programs: Vec::new(),
    };
    for name in programs {
        let path = find_program(name)?;
        collection.program(&path)?;
        collection.programs.push(path);
    }
    for path in paths {
        if !path.starts_with('/') {
            return Err(FromHostError::Relative(path.clone()));
        }
        if Path::new(path).symlink_metadata().is_err() {
            return Err(FromHostError::NoPath(path.clone()));
        }
        let real = collection.add_path(Path::new(path))?;
        collection.add_tree(&real)?;
    }
    collection.drain()?;
    collection.skeleton();
    Ok(collection)
}

/// Absolute, or looked up in PATH as a shell does.
fn find_program(name: &str) -> Result<PathBuf, FromHostError> {
    use std::os::unix::fs::PermissionsExt;
    let runnable = |p: &Path| p.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
    let missing = || FromHostError::NoProgram(name.to_owned());
    if name.contains('/') {
        let path = PathBuf::from(name);
        if !path.is_absolute() {
            return Err(FromHostError::Relative(name.to_owned()));
        }
        if !path.exists() {
            return Err(missing());
        }
        return if runnable(&path) {
            Ok(path)
        } else {
            Err(FromHostError::NotAProgram { path, why: "it is not executable".into() })
        };
    }
    let dirs = std::env::var_os("PATH").unwrap_or_else(|| PATH.into());
    std::env::split_paths(&dirs)
        .filter(|d| d.is_absolute())
        .map(|d| d.join(name))
        .find(|p| !name.is_empty() && runnable(p))
        .ok_or_else(missing)
}

/// docker's default PATH.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl Collection {
    /// A program: an ELF file, or a script and its interpreter.
    fn program(&mut self, path: &Path) -> Result<(), FromHostError> {
        let real = self.add_path(path)?;
        if !self.seen.insert(real.clone()) {
            return Ok(());
        }
        let read = |source| FromHostError::Read { path: real.clone(), source };
        if let Some(elf) = Elf::read(&real).map_err(read)? {
            self.needs(&real, &elf, &[])?;
            return self.python(&real);
        }
        let not = |why: &str| FromHostError::NotAProgram { path: path.to_path_buf(), why: why.into() };
        let line = first_line(&real).map_err(read)?;
        let script = line.strip_prefix(b"#!").ok_or_else(|| not("it is neither an ELF file nor a script"))?;
        let script = String::from_utf8_lossy(script).trim().to_owned();
        let mut words = script.split_whitespace();
        let interpreter = words.next().ok_or_else(|| not("its first line names no interpreter"))?;
        if !Path::new(interpreter).is_absolute() || !Path::new(interpreter).exists() {
            return Err(not(&format!("its interpreter {interpreter} does not exist")));
        }
        self.program(Path::new(interpreter))?;
        // "#!/usr/bin/env [-S] python3": what env will look for is needed, too.
        if Path::new(interpreter).file_name().is_some_and(|n| n == "env")
            && let Some(name) = words.find(|w| !w.starts_with('-') && !w.contains('='))
        {
            let found =
                find_program(name).map_err(|_| not(&format!("its interpreter {name} is not found")))?;
            self.program(&found)?;
        }
        Ok(())
    }

    /// Queues what an ELF file needs. `inherited` are the RPATHs of those that need it.
    fn needs(&mut self, path: &Path, elf: &Elf, inherited: &[PathBuf]) -> Result<(), FromHostError> {
        if let Some(interpreter) = &elf.interpreter {
            if !interpreter.exists() {
                let why = format!("its loader {} does not exist", interpreter.display());
                return Err(FromHostError::NotAProgram { path: path.to_path_buf(), why });
            }
            let real = self.add_path(interpreter)?;
            self.seen.insert(real);
        }
        let dirs = libraries::Search::of(path, elf, inherited);
        for name in &elf.needed {
            let found = self.libraries.find(name, elf, &dirs).ok_or_else(|| FromHostError::NoLibrary {
                program: path.to_path_buf(),
                library: name.clone(),
            })?;
            self.library(&found, &dirs.inherited)?;
        }
        Ok(())
    }

    fn library(&mut self, path: &Path, inherited: &[PathBuf]) -> Result<(), FromHostError> {
        let real = self.add_path(path)?;
        if !self.seen.insert(real.clone()) {
            return Ok(());
        }
        if real.file_name().is_some_and(|n| n.as_bytes().starts_with(b"libc.so")) {
            self.name_service(path)?;
        }
        let read = |source| FromHostError::Read { path: real.clone(), source };
        match Elf::read(&real).map_err(read)? {
            Some(elf) => self.needs(&real, &elf, inherited),
            None => Ok(()),
        }
    }

    /// glibc opens these by name when it looks up hosts and users; no ELF header names them.
    fn name_service(&mut self, libc: &Path) -> Result<(), FromHostError> {
        let dir = libc.parent().unwrap_or(Path::new("/"));
        for name in ["libnss_dns.so.2", "libnss_files.so.2", "libresolv.so.2"] {
            let path = dir.join(name);
            if path.exists() {
                self.library(&path, &[])?;
            }
        }
        Ok(())
    }

    /// Python cannot start without its standard library, which lies at ../lib/pythonX.Y of the program.
    fn python(&mut self, real: &Path) -> Result<(), FromHostError> {
        let name = real.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let version = name.strip_prefix("python").unwrap_or_default();
        if !version.starts_with('3') || !version.chars().all(|c| c.is_ascii_digit() || c == '.') {
            return Ok(());
        }
        let Some(prefix) = real.parent().and_then(Path::parent) else { return Ok(()) };
        let lib = prefix.join("lib").join(&name);
        if lib.is_dir() {
            let lib = self.add_path(&lib)?;
            self.add_tree_but(
                &lib,
                &[
                    "test",
                    "tests",
                    "__pycache__",
                    "site-packages",
                    "dist-packages",
                    "idlelib",
                    "lib2to3",
                    "ensurepip",
                    "turtledemo",
                ],
            )?;
        }
        Ok(())
    }

    /// ELF files of trees that were taken along need their libraries, too.
    fn drain(&mut self) -> Result<(), FromHostError> {
        while let Some(path) = self.queue.pop_front() {
            if !self.seen.insert(path.clone()) {
                continue;
            }
            if let Ok(Some(elf)) = Elf::read(&path) {
                match self.needs(&path, &elf, &[]) {
                    // An optional module whose library is not installed does not work on the host either.
                    Err(FromHostError::NoLibrary { program, library }) => {
                        tracing::debug!(program = %program.display(), %library, "a library is missing on the host");
                    }
                    other => other?,
                }
            }
        }
        Ok(())
    }

    /// Adds every component of an absolute path, links included; answers what it leads to.
    pub(crate) fn add_path(&mut self, path: &Path) -> Result<PathBuf, FromHostError> {
        use std::os::unix::fs::PermissionsExt;
        let mut real = PathBuf::from("/");
        let mut todo: Vec<std::ffi::OsString> =
            path.iter().rev().map(std::ffi::OsStr::to_os_string).collect();
        let mut links = 0;
        while let Some(part) = todo.pop() {
            match part.as_bytes() {
                b"/" | b"." => continue,
                b".." => {
                    real.pop();
                    continue;
                }
                _ => {}
            }
            let here = real.join(&part);
            let meta = here
                .symlink_metadata()
                .map_err(|source| FromHostError::Read { path: here.clone(), source })?;
            if meta.is_symlink() {
                links += 1;
                if links > 40 {
                    return Err(FromHostError::Links(path.to_path_buf()));
                }
                let target = std::fs::read_link(&here)
                    .map_err(|source| FromHostError::Read { path: here.clone(), source })?;
                if target.is_absolute() {
                    real = PathBuf::from("/");
                }
                todo.extend(target.iter().rev().map(std::ffi::OsStr::to_os_string));
                self.nodes.insert(here, Node::Symlink(target));
                continue;
            }
            let node =
                if meta.is_dir() { Node::Directory(meta.permissions().mode() & 0o7777) } else { Node::File };
            self.nodes.entry(here.clone()).or_insert(node);
            real = here;
        }
        Ok(real)
    }

    fn add_tree(&mut self, top: &Path) -> Result<(), FromHostError> {
        self.add_tree_but(top, &[])
    }

    fn add_tree_but(&mut self, top: &Path, without: &[&str]) -> Result<(), FromHostError> {
        use std::os::unix::fs::{FileTypeExt, PermissionsExt};
        let read = |path: &Path, source| FromHostError::Read { path: path.to_path_buf(), source };
        let meta = top.symlink_metadata().map_err(|e| read(top, e))?;
        if meta.is_file() {
            self.queue.push_back(top.to_path_buf());
            return Ok(());
        }
        let mut todo = vec![top.to_path_buf()];
        while let Some(dir) = todo.pop() {
            for entry in std::fs::read_dir(&dir).map_err(|e| read(&dir, e))? {
                let path = entry.map_err(|e| read(&dir, e))?.path();
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let meta = path.symlink_metadata().map_err(|e| read(&path, e))?;
                if without.contains(&name.as_str()) && meta.is_dir() {
                    continue;
                }
                if meta.is_symlink() {
                    let target = std::fs::read_link(&path).map_err(|e| read(&path, e))?;
                    self.nodes.insert(path, Node::Symlink(target));
                } else if meta.is_dir() {
                    self.nodes.insert(path.clone(), Node::Directory(meta.permissions().mode() & 0o7777));
                    todo.push(path);
                } else if meta.is_file() {
                    self.nodes.insert(path.clone(), Node::File);
                    self.queue.push_back(path);
                } else if meta.file_type().is_socket() || meta.file_type().is_fifo() {
                    tracing::debug!(path = %path.display(), "left out");
                }
            }
        }
        Ok(())
    }

    /// What every program expects of a root file system.
    fn skeleton(&mut self) {
        if self.libraries.used_configured() && Path::new("/etc/ld.so.cache").exists() {
            self.nodes.insert("/etc/ld.so.cache".into(), Node::File);
        }
        let directories = [
            ("/etc", 0o755),
            ("/proc", 0o555),
            ("/sys", 0o555),
            ("/dev", 0o755),
            ("/tmp", 0o1777),
            ("/root", 0o700),
            ("/run", 0o755),
            ("/var", 0o755),
            ("/var/tmp", 0o1777),
            ("/home", 0o755),
        ];
        for (path, mode) in directories {
            self.nodes.insert(path.into(), Node::Directory(mode));
        }
        let texts = [
            (
                "/etc/passwd",
                "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
            ),
            ("/etc/group", "root:x:0:\nnogroup:x:65534:\n"),
            ("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n"),
        ];
        for (path, text) in texts {
            self.nodes.entry(path.into()).or_insert_with(|| Node::Text(text.into()));
        }
    }

    /// `/bin/sh` when it is there, else the first program.
    pub fn command(&self) -> Vec<String> {
        let shell = ["/bin/sh", "/usr/bin/sh"].into_iter().find(|s| self.leads_to_a_file(Path::new(s)));
        let first = || self.programs.first().map(|p| p.display().to_string());
        shell.map(str::to_owned).or_else(first).into_iter().collect()
    }

    /// Whether a path exists within the layer, through its links.
    fn leads_to_a_file(&self, path: &Path) -> bool {
        let Ok(real) = path.canonicalize() else { return false };
        let link_or_file = self.nodes.contains_key(path)
            || path.parent().is_some_and(|p| matches!(self.nodes.get(p), Some(Node::Symlink(_))));
        // The name itself must have been asked for, not only what it leads to.
        let name = path.file_name().unwrap_or_default();
        let own = path.parent().and_then(|p| p.canonicalize().ok()).map(|p| p.join(name));
        link_or_file && self.nodes.contains_key(&real) && own.is_some_and(|p| self.nodes.contains_key(&p))
    }
}

fn first_line(path: &Path) -> io::Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(512).read_to_end(&mut bytes)?;
    let end = bytes.iter().position(|b| *b == b'\n').unwrap_or(bytes.len());
    bytes.truncate(end);
    Ok(bytes)
}

#[cfg(test)]
mod tests;
