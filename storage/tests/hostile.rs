//! Archives and manifests made to do harm, against a real daemon: each is refused with a clear error or extracted
//! harmlessly; nothing outside its layer is touched, memory stays bounded, and nothing is left.
#![allow(clippy::unwrap_used)]

#[path = "hostile/case.rs"]
mod case;
#[path = "hostile/documents.rs"]
mod documents;
#[path = "host/hand.rs"]
mod hand;
#[path = "host/private.rs"]
mod host;
#[path = "hostile/links.rs"]
mod links;
#[path = "hostile/paths.rs"]
mod paths;
#[path = "hostile/sizes.rs"]
mod sizes;
#[path = "host/tree.rs"]
mod tree;

use case::{Canary, Case, Expect, Input};
use davit_contracts::{Error, Kind};
use host::Host;

/// The most memory that the daemon may have had at any time.
const PEAK_KIB: u64 = 64 << 10;

/// What a person would read.
fn told(e: &Error) -> String {
    format!("{e} {}", e.hint())
}

async fn feed(host: &Host, input: &Input) -> Result<(), Error> {
    match input {
        Input::Layer { archive, .. } | Input::Archive(archive) => {
            host.load_bytes(archive.clone()).await.map(drop)
        }
        Input::Directory(make) => {
            let dir = host.tmp.path().join(format!("layout-{:08x}", rand::random::<u32>()));
            std::fs::create_dir(&dir).unwrap();
            make(&dir);
            host.load(&dir).await.map(drop)
        }
    }
}

/// Removes whatever images there are; afterwards nothing may be left of them.
async fn clean(host: &Host, case: &str) {
    for image in host.list().await {
        host.remove(&image.id, true).await.unwrap();
    }
    for dir in ["layers", "staging", "blobs", "ingest", "ledgers"] {
        let path = host.state().join(dir);
        let left = std::fs::read_dir(&path).map_or(0, Iterator::count);
        assert_eq!(left, 0, "{case}: left in {}", path.display());
    }
    // Deleting is done in the background, but it is done.
    while std::fs::read_dir(host.state().join("trash")).unwrap().count() > 0 {
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
}

fn peak(host: &Host) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", host.pid())).unwrap();
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn no_path_leads_out() {
    withstand(paths::cases, 40).await;
}

#[tokio::test]
async fn no_link_leads_out() {
    withstand(links::cases, 25).await;
}

#[tokio::test]
async fn no_size_is_believed() {
    withstand(|_| sizes::cases(), 40).await;
}

#[tokio::test]
async fn no_document_is_trusted() {
    withstand(|_| documents::cases(), 40).await;
}

/// Gives all cases to one daemon, one after the other.
async fn withstand(cases: impl FnOnce(&Canary) -> Vec<Case>, at_least: usize) {
    let host = Host::new().await;
    let canary = Canary::new(host.tmp.path());
    let (mut refused, mut harmless) = (0, 0);
    let cases = cases(&canary);
    assert!(cases.len() >= at_least, "only {} cases", cases.len());
    let mut wrong = Vec::new();
    for case in &cases {
        let result = feed(&host, &case.input).await;
        match (&case.expect, result) {
            (Expect::Refused(words), Err(e)) => {
                let text = told(&e);
                let unclear = matches!(e.kind(), Kind::Internal | Kind::NoSpace);
                if unclear || !words.iter().all(|w| text.contains(w)) {
                    wrong.push(format!("{}: {:?}: {text}", case.name, e.kind()));
                }
                assert!(host.list().await.is_empty(), "{}: a refused image is visible", case.name);
                refused += 1;
            }
            (Expect::Harmless(look), Ok(())) => {
                if let Input::Layer { diff_id, .. } = &case.input {
                    look(&tree::of_layer(&host.state(), diff_id));
                }
                harmless += 1;
            }
            (Expect::Refused(_), Ok(())) => wrong.push(format!("{}: it was taken", case.name)),
            (Expect::Harmless(_), Err(e)) => wrong.push(format!("{}: {}", case.name, told(&e))),
        }
        canary.assert_untouched(&case.name);
        clean(&host, &case.name).await;
        assert!(peak(&host) < PEAK_KIB, "{}: a peak of {} KiB", case.name, peak(&host));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    println!("{refused} refused, {harmless} extracted harmlessly, a peak of {} KiB", peak(&host));
}

/// The layer and the archive around it, cut everywhere a block ends and once within.
#[tokio::test]
async fn an_archive_cut_at_any_block_is_refused_and_leaves_nothing() {
    let host = Host::new().await;
    let layer = hand::Tar::new()
        .dir("d/")
        .pax(&[("path", b"d/long"), ("SCHILY.xattr.user.a", b"1")])
        .file("x", &"y".repeat(1500))
        .long(b'L', b"d/another")
        .file("x", "z")
        .symlink("l", "d")
        .end();
    // The last block of the layer is an end mark, whose absence is tolerated, but not its digest's.
    let whole = hand::one_layer("cut", &layer).tar();
    // Nor is the last file of the archive needed.
    for cut in (0..whole.len() - 2048).step_by(512).chain([700, whole.len() / 2 + 13]) {
        let e = host.load_bytes(whole[..cut].to_vec()).await.unwrap_err();
        assert_eq!(e.kind(), Kind::Corrupt, "cut at {cut}: {e}");
    }
    for cut in (0..layer.len() - 1024).step_by(512) {
        let mut layout = hand::one_layer("cut", &layer);
        let name = format!("blobs/sha256/{}", davit_storage::digest::Digest::of(&layer).hex());
        layout.0.get_mut(&name).unwrap().truncate(cut);
        let e = host.load_bytes(layout.tar()).await.unwrap_err();
        assert_eq!(e.kind(), Kind::Corrupt, "layer cut at {cut}: {e}");
    }
    clean(&host, "cut").await;
    host.load_bytes(whole).await.unwrap();
}
