//! Making the paths of a layer right again, one by one, each by one rename or in place.
//!
//! What is made anew is made in a staged directory of the same file system, which is thrown away in the end and swept
//! after a crash; so is what is moved away. Directories get back the times that renaming in them changed.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};

use super::compare::{self, Difference, Fix, Options};
use super::expected::{Id, Kind, Tree, Wanted};
use super::pace::Pace;
use super::pristine::tree_of;
use super::{CheckError, look};
use crate::failpoint;
use crate::failure::At as _;
use crate::layer::StagedTree;
use crate::tarball::Time;

mod attributes;

/// Opens the tree that damaged content is taken from, which is made when it is first needed.
pub(super) type OpenPristine<'a> = dyn FnMut() -> Result<OwnedFd, String> + 'a;

/// Repairs what it can; answers for each difference whether it is right now, or why not.
pub(super) fn repair(
    tree: &Tree,
    root: BorrowedFd<'_>,
    damaged: &[Difference],
    options: Options,
    staged: &StagedTree,
    pristine: &mut OpenPristine<'_>,
    pace: &mut Pace<'_>,
) -> Result<Vec<Result<(), String>>, CheckError> {
    let scratch =
        davit_sys::beneath::open_root(&tree_of(staged)).map_err(|e| e.source).at("open", &tree_of(staged))?;
    let mut repair = Repair {
        tree,
        root,
        options,
        scratch,
        pristine,
        touched: BTreeMap::new(),
        groups: HashMap::new(),
        bad: damaged.iter().filter(|d| d.fix == Fix::Replace).filter_map(|d| d.id).collect(),
        linked: HashMap::new(),
        made: 0,
    };
    for id in tree.live() {
        if let Some(file) = tree.shared(id) {
            repair.groups.entry(file).or_default().push(id);
        }
    }
    // What is in a directory comes after it.
    let mut order: Vec<usize> = (0..damaged.len()).collect();
    order.sort_by(|a, b| damaged[*a].path.cmp(&damaged[*b].path));
    failpoint::pass("check.repair");
    let mut outcomes: Vec<Result<(), String>> = vec![Ok(()); damaged.len()];
    for at in order {
        pace.go_on().map_err(|_| CheckError::Cancelled)?;
        outcomes[at] = repair.one(&damaged[at], pace);
    }
    failpoint::pass("check.repair");
    repair.set_times();
    for (difference, outcome) in damaged.iter().zip(&mut outcomes) {
        if outcome.is_ok() {
            *outcome = compare::still_wrong(tree, root, options, difference, pace)?;
        }
    }
    Ok(outcomes)
}

struct Repair<'a> {
    tree: &'a Tree,
    root: BorrowedFd<'a>,
    options: Options,
    scratch: OwnedFd,
    pristine: &'a mut OpenPristine<'a>,
    /// Directories in which something was renamed, with the times that they had.
    touched: BTreeMap<Vec<u8>, (Option<Id>, Time)>,
    /// The names of each file that has several.
    groups: HashMap<u32, Vec<Id>>,
    bad: HashSet<Id>,
    linked: HashMap<u32, Result<(), String>>,
    made: u64,
}

type Done<T = ()> = Result<T, String>;

fn said<T>(what: &str, result: Result<T, impl Into<io::Error>>) -> Done<T> {
    result.map_err(|e| format!("cannot {what}: {}", e.into()))
}

impl Repair<'_> {
    fn one(&mut self, difference: &Difference, pace: &mut Pace<'_>) -> Done {
        let Some(id) = difference.id else {
            let (dir, name) = self.place(&difference.path)?;
            return self.move_away(dir.as_fd(), OsStr::from_bytes(&name));
        };
        let wanted = self.tree.wanted(id, self.options.opaque).map_err(|e| e.to_string())?;
        match difference.fix {
            Fix::Attributes => self.in_place(id, &wanted),
            Fix::Discard => Ok(()),
            Fix::Link | Fix::Replace => match self.tree.shared(id) {
                Some(file) => {
                    if let Some(done) = self.linked.get(&file) {
                        return done.clone();
                    }
                    let done = self.link_all(file, pace);
                    self.linked.insert(file, done.clone());
                    done
                }
                None => self.replace(id, &wanted, pace),
            },
        }
    }

    /// The directory of a path, opened, and its last component. Its time is put back in the end.
    fn place(&mut self, path: &[u8]) -> Done<(OwnedFd, Vec<u8>)> {
        let (parent, name) = match path.iter().rposition(|b| *b == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&[][..], path),
        };
        let dir = said("open its directory", look::open_dir(self.root, parent))?;
        if !self.touched.contains_key(parent) {
            let now = said("look at its directory", look::at(dir.as_fd(), OsStr::new(".")))?;
            if let Some(now) = now {
                self.touched.insert(parent.to_vec(), (self.id_of(parent), now.mtime));
            }
        }
        Ok((dir, name.to_vec()))
    }

    fn id_of(&self, path: &[u8]) -> Option<Id> {
        let parts = path.split(|b| *b == b'/').filter(|p| !p.is_empty());
        parts.into_iter().try_fold(super::expected::ROOT, |at, part| self.tree.child(at, part))
    }

    fn fresh(&mut self) -> String {
        self.made += 1;
        format!("made-{}", self.made)
    }

    fn move_away(&mut self, dir: BorrowedFd<'_>, name: &OsStr) -> Done {
        let to = self.fresh();
        match rustix::fs::renameat(dir, name, &self.scratch, &to) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(e) => Err(format!("cannot move it away: {e}")),
        }
    }

    fn in_place(&mut self, id: Id, wanted: &Wanted) -> Done {
        let path = self.tree.path(id);
        if path.is_empty() {
            return said(
                "set its attributes",
                attributes::set(self.root, OsStr::new("."), wanted, self.options),
            );
        }
        let (dir, name) = self.place(&path)?;
        said(
            "set its attributes",
            attributes::set(dir.as_fd(), OsStr::from_bytes(&name), wanted, self.options),
        )
    }

    /// Makes a path anew beside the layer, and renames it into place.
    fn replace(&mut self, id: Id, wanted: &Wanted, pace: &mut Pace<'_>) -> Done {
        let path = self.tree.path(id);
        if path.is_empty() {
            return Err("the layer's directory itself cannot be read".into());
        }
        let (dir, name) = self.place(&path)?;
        let name = OsStr::from_bytes(&name);
        let made = self.make(&path, wanted, pace)?;
        // Only what rename(2) cannot replace is moved away before.
        let there = said("look at it", look::at(dir.as_fd(), name))?;
        if there.is_some_and(|f| (f.kind == FileType::Directory) || wanted.kind == Kind::Directory) {
            self.move_away(dir.as_fd(), name)?;
        }
        failpoint::pass("check.repair");
        said("put it in place", rustix::fs::renameat(&self.scratch, &made, &dir, name))?;
        failpoint::pass("check.repair");
        if wanted.kind == Kind::Directory {
            // What comes back into it changes its time.
            let time = wanted.mtime.unwrap_or_default();
            self.touched.insert(path, (Some(id), time));
        }
        Ok(())
    }

    fn make(&mut self, path: &[u8], wanted: &Wanted, pace: &mut Pace<'_>) -> Done<String> {
        let made = self.fresh();
        let at = OsStr::new(&made).to_os_string();
        let scratch = self.scratch.as_fd();
        let node = |kind, device| rustix::fs::mknodat(scratch, &at, kind, Mode::from_raw_mode(0o600), device);
        let result = match &wanted.kind {
            Kind::File { size, digest } => {
                let from = (self.pristine)()?;
                self.take(&from, path, &made, (*size, *digest), pace)?;
                Ok(())
            }
            Kind::Directory => rustix::fs::mkdirat(scratch, &at, Mode::from_raw_mode(0o700)),
            Kind::Symlink { target } => rustix::fs::symlinkat(OsStr::from_bytes(target), scratch, &at),
            Kind::Fifo => node(FileType::Fifo, 0),
            Kind::CharDevice(major, minor) => {
                node(FileType::CharacterDevice, rustix::fs::makedev(*major, *minor))
            }
            Kind::BlockDevice(major, minor) => {
                node(FileType::BlockDevice, rustix::fs::makedev(*major, *minor))
            }
            Kind::Whiteout => rustix::fs::mknodat(scratch, &at, FileType::CharacterDevice, Mode::empty(), 0),
        };
        said("make it", result)?;
        if wanted.kind != Kind::Whiteout {
            said("set its attributes", attributes::set(self.scratch.as_fd(), &at, wanted, self.options))?;
        }
        if let Kind::File { .. } = wanted.kind {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = said("open it", rustix::fs::openat(&self.scratch, &at, flags, Mode::empty()))?;
            said("write it", rustix::fs::fsync(file))?;
        }
        Ok(made)
    }

    /// A file out of the pristine tree, if it is what the ledger says.
    fn take(
        &self,
        from: &OwnedFd,
        path: &[u8],
        made: &str,
        expected: (u64, [u8; 32]),
        pace: &mut Pace<'_>,
    ) -> Done {
        let (parent, name) = match path.iter().rposition(|b| *b == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&[][..], path),
        };
        let name = OsStr::from_bytes(name);
        let lacks = |e: io::Error| format!("the layer's archive does not hold it: {e}");
        let dir = look::open_dir(from.as_fd(), parent).map_err(lacks)?;
        let found = look::digest(dir.as_fd(), name, pace).map_err(lacks)?;
        if found != expected {
            return Err("the layer's archive holds another content than was recorded".into());
        }
        said("move it", rustix::fs::renameat(&dir, name, &self.scratch, made))
    }

    /// All names of a file become names of one inode: the one that most good names have, else a new one.
    fn link_all(&mut self, file: u32, pace: &mut Pace<'_>) -> Done {
        let names = self.groups.get(&file).cloned().unwrap_or_default();
        let mut votes: BTreeMap<u64, (usize, Id)> = BTreeMap::new();
        for id in names.iter().filter(|id| !self.bad.contains(id)) {
            if let Some(inode) = self.inode(*id) {
                votes.entry(inode).or_insert((0, *id)).0 += 1;
            }
        }
        let best = votes.values().max_by_key(|(count, _)| *count).map(|(_, id)| *id);
        let reference = match (best, names.first()) {
            (Some(id), _) => id,
            (None, Some(first)) => {
                let wanted = self.tree.wanted(*first, self.options.opaque).map_err(|e| e.to_string())?;
                self.replace(*first, &wanted, pace)?;
                *first
            }
            (None, None) => return Err("it has no names".into()),
        };
        let inode = self.inode(reference);
        let (from, from_name) = self.place(&self.tree.path(reference))?;
        for id in names.into_iter().filter(|id| *id != reference) {
            if self.inode(id) == inode {
                continue;
            }
            let (dir, name) = self.place(&self.tree.path(id))?;
            let name = OsStr::from_bytes(&name);
            let made = self.fresh();
            let from_name = OsStr::from_bytes(&from_name);
            said("link it", rustix::fs::linkat(&from, from_name, &self.scratch, &made, AtFlags::empty()))?;
            if said("look at it", look::at(dir.as_fd(), name))?.is_some_and(|f| f.kind == FileType::Directory)
            {
                self.move_away(dir.as_fd(), name)?;
            }
            failpoint::pass("check.repair");
            said("put it in place", rustix::fs::renameat(&self.scratch, &made, &dir, name))?;
        }
        Ok(())
    }

    fn inode(&self, id: Id) -> Option<u64> {
        let path = self.tree.path(id);
        let (parent, name) = match path.iter().rposition(|b| *b == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&[][..], path.as_slice()),
        };
        let dir = look::open_dir(self.root, parent).ok()?;
        look::at(dir.as_fd(), OsStr::from_bytes(name)).ok().flatten().map(|f| f.inode)
    }

    /// The recorded time of a directory, else the one that it had.
    fn set_times(&mut self) {
        for (path, (id, before)) in self.touched.iter().rev() {
            let wanted = id.and_then(|id| self.tree.wanted(id, self.options.opaque).ok());
            let time = wanted.and_then(|w| w.mtime).unwrap_or(*before);
            // What goes wrong shows when the path is looked at again.
            if let Ok(dir) = look::open_dir(self.root, path) {
                let _ = rustix::fs::futimens(dir, &attributes::times(time));
            }
        }
    }
}
