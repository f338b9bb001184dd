//! Round trips, and damage of every kind.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Owned {
    Node(Vec<u8>, OwnedNode),
    Link(Vec<u8>, Vec<u8>),
    Opaque(Vec<u8>),
    Gone(Vec<u8>),
}

#[derive(Debug, Clone)]
struct OwnedNode {
    kind: u8,
    numbers: (u64, u32, u32),
    mode: u32,
    owner: (u32, u32),
    digest: [u8; 32],
    target: Vec<u8>,
    mtime: Option<(i64, u32)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl OwnedNode {
    fn node(&self) -> Node<'_> {
        let (size, major, minor) = self.numbers;
        let kind = match self.kind {
            0 => NodeKind::File { size, digest: self.digest },
            1 => NodeKind::Directory,
            2 => NodeKind::Symlink { target: &self.target },
            3 => NodeKind::Fifo,
            4 => NodeKind::CharDevice { major, minor },
            5 => NodeKind::BlockDevice { major, minor },
            _ => NodeKind::Whiteout,
        };
        Node {
            kind,
            mode: self.mode,
            uid: self.owner.0,
            gid: self.owner.1,
            mtime: self.mtime.map(|(seconds, nanoseconds)| Time { seconds, nanoseconds }),
            xattrs: self.xattrs.iter().map(|(n, v)| (n.as_slice(), v.as_slice())).collect(),
        }
    }
}

impl Owned {
    fn event(&self) -> Event<'_> {
        match self {
            Self::Node(path, node) => Event::Node { path, node: node.node() },
            Self::Link(path, target) => Event::Link { path, target },
            Self::Opaque(path) => Event::Opaque { path },
            Self::Gone(path) => Event::Gone { path },
        }
    }
}

fn path() -> impl Strategy<Value = Vec<u8>> {
    vec(prop_oneof![Just(b'/'), Just(b'a'), any::<u8>()], 0..40)
}

fn node() -> impl Strategy<Value = OwnedNode> {
    let mtime = proptest::option::of((any::<i64>(), 0..1_000_000_000u32));
    let xattrs = vec((vec(any::<u8>(), 1..30), vec(any::<u8>(), 0..300)), 0..4);
    (
        0..7u8,
        any::<(u64, u32, u32)>(),
        any::<u32>(),
        any::<(u32, u32)>(),
        any::<[u8; 32]>(),
        path(),
        mtime,
        xattrs,
    )
        .prop_map(|(kind, numbers, mode, owner, digest, target, mtime, xattrs)| OwnedNode {
            kind,
            numbers,
            mode,
            owner,
            digest,
            target,
            mtime,
            xattrs,
        })
}

fn events() -> impl Strategy<Value = Vec<Owned>> {
    let one = prop_oneof![
        4 => (path(), node()).prop_map(|(p, n)| Owned::Node(p, n)),
        1 => (path(), path()).prop_map(|(p, t)| Owned::Link(p, t)),
        1 => path().prop_map(Owned::Opaque),
        1 => path().prop_map(Owned::Gone),
    ];
    vec(one, 0..40)
}

fn written(events: &[Owned]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new()).unwrap();
    for event in events {
        writer.record(event.event()).unwrap();
    }
    writer.finish().unwrap().0
}

fn read_all(bytes: &[u8]) -> Result<usize, LedgerError> {
    let mut reader = Reader::new(bytes)?;
    let mut count = 0;
    while reader.next_event()?.is_some() {
        count += 1;
    }
    Ok(count)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn what_is_written_is_read_back(events in events()) {
        let bytes = written(&events);
        let mut reader = Reader::new(bytes.as_slice()).unwrap();
        for event in &events {
            let (found, offset) = reader.next_event().unwrap().unwrap();
            prop_assert_eq!(&found, &event.event());
            if let Event::Node { node, .. } = event.event() {
                let again = node_at(&bytes[offset as usize..], |n| *n == node).unwrap();
                prop_assert!(again);
            }
        }
        prop_assert!(reader.next_event().unwrap().is_none());
        prop_assert!(reader.next_event().unwrap().is_none());
    }

    #[test]
    fn any_single_change_is_noticed(events in events(), at in any::<prop::sample::Index>(), flip in 1..=255u8) {
        let mut bytes = written(&events);
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        prop_assert!(read_all(&bytes).is_err());
    }

    #[test]
    fn any_cut_or_tail_is_noticed(events in events(), at in any::<prop::sample::Index>()) {
        let mut bytes = written(&events);
        prop_assert!(read_all(&bytes[..at.index(bytes.len())]).is_err());
        bytes.push(0);
        prop_assert!(read_all(&bytes).is_err());
    }

    #[test]
    fn noise_never_panics(noise in vec(any::<u8>(), 0..400)) {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(noise);
        let _ = read_all(&bytes);
        let _ = node_at(bytes.as_slice(), |_| ());
    }
}

#[test]
fn a_later_version_and_a_foreign_file_are_told_apart() {
    assert!(matches!(read_all(b"davit-ledger 2\nxx"), Err(LedgerError::Version)));
    assert!(matches!(read_all(b"something else entirely"), Err(LedgerError::Damaged("it has no header"))));
    assert!(matches!(read_all(b""), Err(LedgerError::Damaged("it is cut"))));
}

#[test]
fn a_huge_length_takes_no_memory_and_what_cannot_be_read_back_is_not_written() {
    let mut bytes = MAGIC.to_vec();
    // A node whose path claims 2^40 bytes.
    bytes.extend([tag::NODE, 0, 0x80, 0x80, 0x80, 0x80, 0x80, 0x20]);
    assert!(matches!(read_all(&bytes), Err(LedgerError::Damaged("a text is too long"))));
    let long = vec![b'a'; MAX_PATH + 1];
    let mut writer = Writer::new(Vec::new()).unwrap();
    assert!(writer.record(Event::Gone { path: &long }).is_err());
}

#[test]
fn a_directory_full_of_files_takes_little_more_than_its_digests() {
    let mut writer = Writer::new(Vec::new()).unwrap();
    for n in 0..10_000u32 {
        let path = format!("usr/share/some/deep/directory/file-{n:05}");
        let kind = NodeKind::File { size: 1000, digest: [n as u8; 32] };
        let mtime = Some(Time { seconds: 1_700_000_000, nanoseconds: 0 });
        let node = Node { kind, mode: 0o644, uid: 0, gid: 0, mtime, xattrs: Vec::new() };
        writer.record(Event::Node { path: path.as_bytes(), node }).unwrap();
    }
    let bytes = writer.finish().unwrap().0;
    assert!(bytes.len() < 10_000 * 64, "{} bytes", bytes.len());
    assert_eq!(read_all(&bytes).unwrap(), 10_000);
}
