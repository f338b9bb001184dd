//! Random sequences: few names, so that calls meet; sizes around pages; all flags.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::op::{Lock, Node, Op, Sharing, Whence};
use crate::trial::{Case, Step};

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
const OFFSETS: [u64; 9] = [0, 1, 100, 4095, 4096, 5000, 8192, 12_288, 40_960];
const LENGTHS: [u32; 7] = [0, 1, 10, 100, 4096, 5000, 8192];
const MODES: [u32; 9] = [0o644, 0o755, 0o600, 0o777, 0o4755, 0o2755, 0o1777, 0o000, 0o444];
const IDS: [Option<u32>; 4] = [None, Some(0), Some(1000), Some(1001)];
/// O_CREAT, O_TRUNC, O_APPEND, O_EXCL, O_DIRECT, O_DIRECTORY, O_NOFOLLOW, O_PATH, with how many of 20 opens have them.
const FLAGS: [(i32, u32); 8] = [
    (0o100, 10),
    (0o1000, 4),
    (0o2000, 4),
    (0o200, 2),
    (0o40_000, 1),
    (0o200_000, 1),
    (0o400_000, 1),
    (0o10_000_000, 1),
];

/// What draws sequences, with the numbers of [`davit_tests::scale::seed`].
pub fn runner(config: Config) -> TestRunner {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&davit_tests::scale::seed().to_le_bytes());
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed))
}

/// A sequence of at most so many steps, over up to two layers that such sequences have made.
pub fn case(steps: usize) -> impl Strategy<Value = Case> {
    let layer = vec(layer_step(), 1..16);
    let any = (vec(layer, 0..3), vec(step(), 1..steps));
    // Directories that move in directories that have moved.
    let layer = vec(tree_step(), 1..16);
    let trees = (vec(layer, 0..4), vec(prop_oneof![20 => tree_step(), 1 => pause()], 1..steps));
    prop_oneof![2 => any, 1 => trees].prop_map(|(layers, steps)| Case { layers, steps })
}

/// So many calls of one process.
pub fn calls(n: usize) -> impl Strategy<Value = Vec<Op>> {
    vec(prop_oneof![6 => by_path(), 4 => by_slot(), 1 => by_map()], n)
}

/// Layers are made by root alone, and nothing is held over their end.
fn layer_step() -> impl Strategy<Value = Step> {
    prop_oneof![3 => by_path(), 1 => by_slot()].prop_map(|op| Step::Make(0, op))
}

fn step() -> impl Strategy<Value = Step> {
    let actor = prop_oneof![3 => Just(0u8), 1 => Just(1)];
    let op = prop_oneof![5 => by_path(), 4 => by_slot(), 1 => by_map()];
    prop_oneof![
        16 => (actor, op).prop_map(|(actor, op)| Step::Make(actor, op)),
        1 => pause(),
    ]
}

fn tree_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => moves(),
        3 => tree_changes(),
        1 => (path(), open_flags(), mode())
            .prop_map(|(path, flags, mode)| Op::Open { path, slot: 0, flags, mode }),
        1 => path().prop_map(|path| Op::Readdir { path }),
    ]
    .prop_map(|op| Step::Make(0, op))
}

fn pause() -> impl Strategy<Value = Step> {
    prop_oneof![3 => Just(Step::Forget), 1 => Just(Step::Remount), 1 => Just(Step::Swap)]
}

fn path() -> impl Strategy<Value = String> {
    let depth = prop_oneof![3 => Just(1usize), 4 => Just(2), 2 => Just(3), 1 => Just(4)];
    depth.prop_flat_map(|depth| vec(select(&NAMES[..]), depth)).prop_map(|names| names.join("/"))
}

fn offset() -> impl Strategy<Value = u64> {
    select(&OFFSETS[..])
}

fn length() -> impl Strategy<Value = u32> {
    select(&LENGTHS[..])
}

fn mode() -> impl Strategy<Value = u32> {
    select(&MODES[..])
}

fn lock() -> impl Strategy<Value = Lock> {
    select(&[Lock::Shared, Lock::Exclusive, Lock::Unlock][..])
}

fn slot() -> impl Strategy<Value = u8> {
    0u8..3
}

fn open_flags() -> impl Strategy<Value = i32> {
    let one = |(flag, of_20): (i32, u32)| {
        prop::bool::weighted(f64::from(of_20) / 20.0).prop_map(move |yes| if yes { flag } else { 0 })
    };
    let flags: Vec<_> = FLAGS.into_iter().map(one).collect();
    (0i32..3, flags).prop_map(|(access, flags)| flags.into_iter().fold(access, |all, flag| all | flag))
}

fn by_path() -> BoxedStrategy<Op> {
    prop_oneof![
        8 => (path(), slot(), open_flags(), mode())
            .prop_map(|(path, slot, flags, mode)| Op::Open { path, slot, flags, mode }),
        3 => tree_changes(),
        4 => moves(),
        5 => attribute_changes(),
        5 => looks(),
    ]
    .boxed()
}

fn tree_changes() -> BoxedStrategy<Op> {
    let target =
        prop_oneof![path(), Just("./a".to_owned()), Just("nowhere".to_owned()), Just(".".to_owned())];
    let node = select(&[Node::Regular, Node::Fifo, Node::Socket, Node::Null][..]);
    prop_oneof![
        3 => (path(), mode()).prop_map(|(path, mode)| Op::Mkdir { path, mode }),
        3 => path().prop_map(|path| Op::Rmdir { path }),
        4 => path().prop_map(|path| Op::Unlink { path }),
        1 => (target, path()).prop_map(|(target, path)| Op::Symlink { target, path }),
        1 => (path(), node, mode()).prop_map(|(path, kind, mode)| Op::Mknod { path, kind, mode }),
    ]
    .boxed()
}

fn moves() -> BoxedStrategy<Op> {
    let flags = prop_oneof![5 => Just(0u32), 1 => Just(1), 2 => Just(2), 1 => Just(3)];
    prop_oneof![
        3 => (path(), path(), flags).prop_map(|(from, to, flags)| Op::Rename { from, to, flags }),
        1 => (path(), path()).prop_map(|(from, to)| Op::Link { from, to }),
    ]
    .boxed()
}

fn attribute_changes() -> BoxedStrategy<Op> {
    let name =
        || select(&["user.a", "user.b", "trusted.c", "security.d", "nonsense"][..]).prop_map(str::to_owned);
    let id = || select(&IDS[..]);
    let follow = any::<bool>;
    prop_oneof![
        2 => (path(), select(&OFFSETS[..])).prop_map(|(path, len)| Op::Truncate { path, len }),
        2 => (path(), mode()).prop_map(|(path, mode)| Op::Chmod { path, mode }),
        2 => (path(), id(), id(), follow())
            .prop_map(|(path, uid, gid, follow)| Op::Chown { path, uid, gid, follow }),
        2 => (path(), 0u8..6, follow()).prop_map(|(path, time, follow)| Op::Utimens { path, time, follow }),
        2 => (path(), name(), select(&[0u32, 1, 300][..]), 0u32..3, follow())
            .prop_map(|(path, name, len, flags, follow)| Op::SetXattr { path, name, len, flags, follow }),
        1 => (path(), name(), follow()).prop_map(|(path, name, follow)| Op::RemoveXattr { path, name, follow }),
    ]
    .boxed()
}

fn looks() -> BoxedStrategy<Op> {
    let name = || select(&["user.a", "user.b", "trusted.c"][..]).prop_map(str::to_owned);
    let follow = any::<bool>;
    prop_oneof![
        3 => (path(), follow()).prop_map(|(path, follow)| Op::Stat { path, follow }),
        2 => path().prop_map(|path| Op::Readdir { path }),
        1 => path().prop_map(|path| Op::Readlink { path }),
        1 => (path(), 0u32..8).prop_map(|(path, mode)| Op::Access { path, mode }),
        1 => (path(), name(), follow()).prop_map(|(path, name, follow)| Op::GetXattr { path, name, follow }),
        1 => (path(), follow()).prop_map(|(path, follow)| Op::ListXattr { path, follow }),
    ]
    .boxed()
}

fn by_slot() -> BoxedStrategy<Op> {
    let id = || select(&IDS[..]);
    // Plain, KEEP_SIZE, PUNCH_HOLE with it. (Where the upper cannot do ZERO_RANGE, FUSE in the kernel has already moved
    // the time of the file when it learns.)
    // Not FALLOC_FL_COLLAPSE_RANGE and its like, which no FUSE file system is asked for (fuse_file_fallocate in fs/fuse/file.c).
    let allocate = select(&[0, 1, 3, 3][..]);
    let whence = select(&[Whence::Start, Whence::Current, Whence::End, Whence::Data, Whence::Hole][..]);
    prop_oneof![
        3 => (slot(), length()).prop_map(|(slot, len)| Op::Read { slot, len }),
        3 => (slot(), offset(), length()).prop_map(|(slot, at, len)| Op::Pread { slot, at, len }),
        6 => (slot(), length(), any::<u8>()).prop_map(|(slot, len, seed)| Op::Write { slot, len, seed }),
        6 => (slot(), offset(), length(), any::<u8>())
            .prop_map(|(slot, at, len, seed)| Op::Pwrite { slot, at, len, seed }),
        2 => (slot(), whence, offset()).prop_map(|(slot, whence, at)| Op::Seek { slot, whence, at: at as i64 }),
        2 => (slot(), offset()).prop_map(|(slot, len)| Op::Ftruncate { slot, len }),
        2 => (slot(), allocate, offset(), length())
            .prop_map(|(slot, mode, at, len)| Op::Fallocate { slot, mode, at, len: len.into() }),
        2 => (slot(), offset(), slot(), offset(), length())
            .prop_map(|(from, from_at, to, to_at, len)| Op::CopyRange { from, from_at, to, to_at, len }),
        1 => (slot(), any::<bool>()).prop_map(|(slot, data_only)| Op::Fsync { slot, data_only }),
        3 => slot().prop_map(|slot| Op::Fstat { slot }),
        1 => (slot(), mode()).prop_map(|(slot, mode)| Op::Fchmod { slot, mode }),
        1 => (slot(), id(), id()).prop_map(|(slot, uid, gid)| Op::Fchown { slot, uid, gid }),
        1 => (slot(), 0u8..6).prop_map(|(slot, time)| Op::Futimens { slot, time }),
        1 => (slot(), lock()).prop_map(|(slot, lock)| Op::Flock { slot, lock }),
        1 => (slot(), offset(), length(), lock())
            .prop_map(|(slot, at, len, lock)| Op::Lock { slot, at, len: len.into(), lock }),
        1 => slot().prop_map(|slot| Op::Close { slot }),
    ]
    .boxed()
}

fn by_map() -> BoxedStrategy<Op> {
    let sharing = select(&[Sharing::SharedWrite, Sharing::SharedRead, Sharing::Private][..]);
    let at = || select(&[0u32, 1, 4000, 4096, 8192][..]);
    prop_oneof![
        3 => (slot(), 0u8..2, 0u8..3, 1u8..4, sharing)
            .prop_map(|(slot, map, page, pages, sharing)| Op::Map { slot, map, page, pages, sharing }),
        3 => (0u8..2, at(), length()).prop_map(|(map, at, len)| Op::MapRead { map, at, len }),
        3 => (0u8..2, at(), length(), any::<u8>())
            .prop_map(|(map, at, len, seed)| Op::MapWrite { map, at, len, seed }),
        1 => (0u8..2).prop_map(|map| Op::MapSync { map }),
        1 => (0u8..2).prop_map(|map| Op::Unmap { map }),
    ]
    .boxed()
}
