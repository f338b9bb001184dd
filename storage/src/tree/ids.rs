//! Owners of a running container with a user namespace: through its root they are shown as the host knows them, archives name them as the
//! container does.
//!
//! The map holds on the thread that works in the container's root, and for as long as it does ([`Ids::hold`]).

use std::cell::RefCell;
use std::fs;

/// The ids of a process's user namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ids {
    uids: Vec<Line>,
    gids: Vec<Line>,
}

/// A line of uid_map, see user_namespaces(7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Line {
    inside: u32,
    outside: u32,
    count: u32,
}

/// What stands for an id that has no other: nobody's.
const OVERFLOW: u32 = 65_534;

thread_local! {
    static HELD: RefCell<Ids> = RefCell::default();
}

impl Ids {
    /// Those of a process; none where they are our own.
    pub(super) fn of(pid: i32) -> Self {
        let own = |kind: &str| fs::read_to_string(format!("/proc/self/{kind}_map")).unwrap_or_default();
        let theirs = |kind: &str| {
            let text = fs::read_to_string(format!("/proc/{pid}/{kind}_map")).unwrap_or_default();
            if text == own(kind) { Vec::new() } else { parse(&text) }
        };
        Self { uids: theirs("uid"), gids: theirs("gid") }
    }

    /// Does work in the container's root: what it makes belongs to the container's root, as only its ids can be stored there.
    pub(super) fn hold<T>(self, work: impl FnOnce() -> T) -> T {
        let root = [&self.uids, &self.gids].map(|lines| to_outside(lines, 0));
        let mapped = !self.uids.is_empty();
        HELD.with(|held| held.replace(self));
        let done = if mapped { davit_sys::fs_ids::with_power(root[0], root[1], work) } else { work() };
        HELD.with(|held| held.replace(Self::default()));
        done
    }
}

/// A file's owner as the container knows it.
pub(super) fn inside(uid: u32, gid: u32) -> (u32, u32) {
    HELD.with_borrow(|ids| (to_inside(&ids.uids, uid), to_inside(&ids.gids, gid)))
}

/// The owner on the host of a file that an archive says is this user's.
pub(super) fn outside(uid: u32, gid: u32) -> (u32, u32) {
    HELD.with_borrow(|ids| (to_outside(&ids.uids, uid), to_outside(&ids.gids, gid)))
}

fn parse(text: &str) -> Vec<Line> {
    let line = |l: &str| {
        let mut n = l.split_whitespace().map(str::parse);
        Some(Line { inside: n.next()?.ok()?, outside: n.next()?.ok()?, count: n.next()?.ok()? })
    };
    text.lines().filter_map(line).collect()
}

fn to_inside(lines: &[Line], id: u32) -> u32 {
    let of = |l: &Line| id.checked_sub(l.outside).filter(|n| *n < l.count).map(|n| l.inside + n);
    if lines.is_empty() { id } else { lines.iter().find_map(of).unwrap_or(OVERFLOW) }
}

fn to_outside(lines: &[Line], id: u32) -> u32 {
    let of = |l: &Line| id.checked_sub(l.inside).filter(|n| *n < l.count).map(|n| l.outside + n);
    if lines.is_empty() {
        return id;
    }
    // Root stands for whoever is unknown there, as for a tar that is unpacked by a container's root.
    lines
        .iter()
        .find_map(of)
        .or_else(|| lines.iter().find_map(|l| (l.inside == 0).then_some(l.outside)))
        .unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_go_in_and_out() {
        let lines = parse("         0     100000       1000\n      1000       5000          1\n");
        assert_eq!([0, 999, 1000, 1001].map(|id| to_outside(&lines, id)), [100_000, 100_999, 5000, 100_000]);
        assert_eq!([100_007, 5000, 0].map(|id| to_inside(&lines, id)), [7, 1000, OVERFLOW]);
        assert_eq!((to_inside(&[], 7), to_outside(&[], 7)), (7, 7));
        let (uids, gids) = (lines.clone(), lines);
        Ids { uids, gids }
            .hold(|| assert_eq!((inside(100_001, 100_002), outside(3, 4)), ((1, 2), (100_003, 100_004))));
        assert_eq!(outside(3, 4), (3, 4), "nothing is held any more");
    }
}
