//! First inputs: valid documents, so that fuzzing begins behind the first check.

use parsers::ledger::{Event, Node, NodeKind, Recorder as _, Writer};
use parsers::tarball::Time;

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// Those of a target.
pub fn of(target: &str) -> Vec<Vec<u8>> {
    match target {
        "tar" | "unpack" => vec![tar(), pax(), gnu_sparse()],
        "manifest" => vec![manifest(), index()],
        "index" => vec![index()],
        "config" => vec![config()],
        "reference" => ["alpine", "reg:5000/team/app:1.2", "[::1]:5000/a", "docker.io/library/a__b/c-d.e:T_1"]
            .iter()
            .map(|r| r.as_bytes().to_vec())
            .chain([format!("a/b:c@{DIGEST}").into_bytes()])
            .collect(),
        "ledger" => vec![ledger()],
        "docker_manifest" => vec![br#"[{"Config":"c.json","RepoTags":["a:1"],"Layers":["l/layer.tar"]}]"#.to_vec()],
        _ => Vec::new(),
    }
}

fn header(name: &str, kind: u8, link: &str, size: usize) -> Vec<u8> {
    let mut h = tar::Header::new_gnu();
    h.set_entry_type(tar::EntryType::new(kind));
    h.set_size(size as u64);
    h.set_mode(0o644);
    h.set_uid(0);
    h.set_gid(0);
    h.set_mtime(1);
    h.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    h.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
    h.set_cksum();
    h.as_bytes().to_vec()
}

fn entry(name: &str, kind: u8, link: &str, data: &[u8]) -> Vec<u8> {
    let mut out = header(name, kind, link, data.len());
    out.extend_from_slice(data);
    out.resize(out.len().next_multiple_of(512), 0);
    out
}

fn tar() -> Vec<u8> {
    [
        entry("d/", b'5', "", b""),
        entry("d/f", b'0', "", b"text"),
        entry("d/l", b'2', "f", b""),
        entry("h", b'1', "d/f", b""),
        entry("d/.wh.gone", b'0', "", b""),
        entry("d/.wh..wh..opq", b'0', "", b""),
        entry("p", b'6', "", b""),
        entry("././@LongLink", b'L', "", b"a/long/name\0"),
        entry("x", b'0', "", b"y"),
        vec![0; 1024],
    ]
    .concat()
}

fn pax() -> Vec<u8> {
    let records = b"12 path=a/b\n28 mtime=1500000000.123456\n26 SCHILY.xattr.user.a=1\n";
    let sparse = b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n27 GNU.sparse.realsize=512\n";
    let map = [b"1\n0\n4\n".to_vec(), vec![0; 505], b"data".to_vec()].concat();
    [
        entry("p", b'x', "", records),
        entry("f", b'0', "", b"text"),
        entry("g", b'g', "", b"8 uid=7\n"),
        entry("p", b'x', "", sparse),
        entry("s", b'0', "", &map),
        vec![0; 1024],
    ]
    .concat()
}

fn gnu_sparse() -> Vec<u8> {
    let mut block = header("s", b'S', "", 4);
    // One part at 0 of 4 bytes; the real size is 8.
    block[386..398].copy_from_slice(b"00000000000\0");
    block[398..410].copy_from_slice(b"00000000004\0");
    block[483..495].copy_from_slice(b"00000000010\0");
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block.extend_from_slice(b"data");
    block.resize(2048, 0);
    block
}

fn manifest() -> Vec<u8> {
    format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":
        "application/vnd.oci.image.config.v1+json","digest":"{DIGEST}","size":2}},"layers":[{{"digest":"{DIGEST}","size":3}}]}}"#
    )
    .into_bytes()
}

fn index() -> Vec<u8> {
    format!(
        r#"{{"schemaVersion":2,"manifests":[{{"digest":"{DIGEST}","size":2,"platform":{{"os":"linux","architecture":"amd64",
        "variant":"v2"}},"annotations":{{"a":"b"}}}}]}}"#
    )
    .into_bytes()
}

fn config() -> Vec<u8> {
    format!(
        r#"{{"created":"2020-01-02T03:04:05.6Z","author":"a","architecture":"amd64","os":"linux","config":{{"Env":["A=b"],
        "Entrypoint":["/x"],"Cmd":null,"Labels":{{"a":"b"}},"ExposedPorts":{{"80/tcp":{{}}}},"Healthcheck":{{"Test":["CMD"],
        "Interval":1}}}},"rootfs":{{"type":"layers","diff_ids":["{DIGEST}"]}},"history":[{{"created_by":"x","empty_layer":true}}]}}"#
    )
    .into_bytes()
}

fn ledger() -> Vec<u8> {
    let mut writer = Writer::new(Vec::new()).expect("a vector takes everything");
    let node = |kind| Node {
        kind,
        mode: 0o644,
        uid: 1,
        gid: 2,
        mtime: Some(Time { seconds: -1, nanoseconds: 5 }),
        xattrs: vec![(&b"user.a"[..], &b"1"[..])],
    };
    let events = [
        Event::Node { path: b"d", node: node(NodeKind::Directory) },
        Event::Node { path: b"d/f", node: node(NodeKind::File { size: 300, digest: [7; 32] }) },
        Event::Node { path: b"d/l", node: node(NodeKind::Symlink { target: b"f" }) },
        Event::Node { path: b"c", node: node(NodeKind::CharDevice { major: 1, minor: 3 }) },
        Event::Link { path: b"h", target: b"d/f" },
        Event::Opaque { path: b"d" },
        Event::Gone { path: b"c" },
    ];
    for event in events {
        writer.record(event).expect("a vector takes everything");
    }
    writer.finish().expect("a vector takes everything").0
}
