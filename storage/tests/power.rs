//! Power cuts under load: the state is on ext4 on a disk with a volatile write cache (`storm/disk.rs`). At random moments a
//! crash image is taken, mounted (ext4 replays its journal), and storaged started on it: whatever was answered before that
//! moment is there, whole and runnable; what was removed stays removed.
#![allow(clippy::unwrap_used)]

#[path = "storm/disk.rs"]
mod disk;
#[path = "host/private.rs"]
mod host;
#[path = "storm/storm.rs"]
mod storm;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use davit_tests::scale::{scaled, seed};
use disk::{Cut, Disks, LIVE};
use host::{Host, sh};
use rand::{Rng, SeedableRng, rngs::StdRng};
use storm::Storm;
use storm::verify::{Death, verify};
use storm::worker::{Known, Taste};

const DISK: usize = 160 << 20;

/// Runs in a mount namespace of its own, which ends with all its mounts, whatever happens.
fn in_private_mounts(work: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(move || {
        davit_sys::fork::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
        sh("mount --make-rprivate /");
        work();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// A mount of this test; its loop device goes with it.
struct Mounted(PathBuf);

impl Mounted {
    fn new(image: &Path, at: &Path) -> Self {
        std::fs::create_dir_all(at).unwrap();
        sh(&format!("mount -t ext4 -o loop {} {}", image.display(), at.display()));
        Self(at.to_path_buf())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let done = std::process::Command::new("umount").arg(&self.0).status();
        if !done.is_ok_and(|s| s.success()) {
            let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
        }
    }
}

/// The load, on a thread of its own: it goes on while crash images are looked at.
fn load_on(
    mut storm: Storm,
    socket: PathBuf,
    taste: Taste,
    stop: Arc<AtomicBool>,
) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let load = storm.begin(&Host::clients_at(&socket), taste, usize::MAX);
            while !stop.load(Ordering::SeqCst) && !load.is_over() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            load.end().await;
        });
    })
}

/// What is promised and what would be left, at one moment.
fn cut(disks: &Disks, number: u64, known: &[Arc<Mutex<Known>>], random: &mut StdRng) -> (Cut, Vec<Known>) {
    let held: Vec<_> = known.iter().map(|k| k.lock().unwrap()).collect();
    let cut = disks.crash(number, random);
    (cut, held.iter().map(|k| (**k).clone()).collect())
}

fn storm(taste: Taste, crashes: usize) {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let memory = Path::new("/dev/shm");
    let host = Host::unstarted(memory);
    let fuse = host.tmp.path().join("disks");
    std::fs::create_dir(&fuse).unwrap();
    let (disks, session) = Disks::mount(&fuse, DISK);
    let live = fuse.join(LIVE.to_string());
    sh(&format!(
        "mkfs.ext4 -q -F -b 4096 -J size=8 -E lazy_itable_init=0,lazy_journal_init=0,nodiscard {}",
        live.display()
    ));
    let mounted = Mounted::new(&live, &host.tmp.path().join("state"));
    // What is declared last ends first, also after a failure: the daemon before its disk.
    let mut host = host;

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(host.start());
    let storm = Storm::new(seed);
    let (known, corpus) = (storm.known.clone(), Arc::clone(&storm.corpus));
    let stop = Arc::new(AtomicBool::new(false));
    let load = load_on(storm, host.socket(), taste, Arc::clone(&stop));

    let (mut all, mut promises) = (Cut::default(), 0);
    for number in (LIVE + 1..).take(crashes) {
        std::thread::sleep(Duration::from_micros(random.random_range(1_000..200_000)));
        let (cut, mut known) = cut(&disks, number, &known, &mut random);
        promises += known.iter().map(|k| k.names.len() + k.volumes.len()).sum::<usize>();
        println!("crash {number}: {cut:?} of {} flushes", disks.flushes());
        (all.cached, all.lost) = (all.cached + cut.cached, all.lost + cut.lost);
        let victim = Host::unstarted(memory);
        let crashed = Mounted::new(&fuse.join(number.to_string()), &victim.tmp.path().join("state"));
        let mut victim = victim;
        runtime.block_on(async {
            victim.start().await;
            verify(&victim, &corpus, &mut known, Death::Power).await;
        });
        victim.kill();
        drop(crashed);
        disks.remove(number);
        assert!(!load.is_finished(), "the load ended: {}", host.log());
    }
    stop.store(true, Ordering::SeqCst);
    load.join().unwrap();
    println!("{crashes} crash images, {promises} promises kept, {all:?}");
    assert!(all.lost > 0 && promises > 0, "nothing was at stake");
    host.kill();
    drop(mounted);
    session.umount_and_join().unwrap();
}

#[test]
fn a_power_cut_loses_no_image_and_no_volume() {
    in_private_mounts(|| storm(Taste::All, scaled(100)));
}

#[test]
fn a_power_cut_during_removals_loses_no_image_and_brings_none_back() {
    in_private_mounts(|| storm(Taste::Removals, scaled(100)));
}
