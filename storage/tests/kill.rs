//! kill -9 of storaged at every fail point and at random moments of a load: whatever was answered is there and whole,
//! whatever was not is there whole or not at all, and nothing is left.
#![allow(clippy::unwrap_used)]

#[path = "host/private.rs"]
mod host;
#[path = "storm/storm.rs"]
mod storm;

use std::path::Path;
use std::time::Duration;

use davit_storage::failpoint::POINTS;
use davit_tests::scale::{scaled, seed};
use host::Host;
use rand::{Rng, SeedableRng, rngs::StdRng};
use storm::Storm;
use storm::registry::Registry;
use storm::verify::Death;
use storm::worker::Taste;

/// Memory: kill -9 loses no page, so that a disk adds nothing but time.
fn memory() -> &'static Path {
    Path::new("/dev/shm")
}

/// A storm's host, with a registry.
fn begin(seed: u64) -> (Host, Storm, Registry) {
    let host = Host::unstarted(memory());
    let mut storm = Storm::new(seed);
    let registry = Registry::start(host.tmp.path(), &storm.corpus);
    storm.pulled.clone_from(&registry.names);
    (host, storm, registry)
}

/// Dies at a point, when it is passed for the n-th time, and must have died there.
async fn die_at(host: &mut Host, storm: &mut Storm, point: &str, n: u64) {
    host.env = vec![("DAVIT_FAILPOINT".into(), format!("{point}:{n}"))];
    if point == "open.database" {
        // Only a new store makes one.
        std::fs::remove_dir_all(host.tmp.path().join("state")).unwrap();
        storm.forget();
    }
    if host.start_or_die().await {
        let load = storm.begin(&host.clients(), Taste::of_point(point), 600);
        while !host.is_dead() && !load.is_over() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // The workers see its connections end before its parent sees it end.
        for _ in 0..200 {
            if host.is_dead() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(host.is_dead(), "{point} was not passed {n} times in 600 steps of each worker");
        load.end().await;
    }
    assert_eq!(host.buried(), Some(9), "at {point}: {}", host.log());
    host.env.clear();
    host.start().await;
    storm.verify(host, Death::Kill).await;
    host.kill();
}

async fn die_at_points(points: impl Iterator<Item = &'static str>) {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let (mut host, mut storm, _registry) = begin(seed);
    host.start().await;
    host.kill();
    for point in points {
        for n in 1..=scaled(3) as u64 {
            let n = if point.starts_with("open.") { 1 } else { n };
            println!("{point}:{n}");
            die_at(&mut host, &mut storm, point, n).await;
        }
        // And somewhere after it, whatever comes.
        let n = random.random_range(1..150);
        println!("any:{n}");
        die_at(&mut host, &mut storm, "any", n).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn death_at_each_point_of_an_images_way_loses_and_leaves_nothing() {
    let of = |p: &&str| Taste::of_point(p) == Taste::Images;
    die_at_points(POINTS.iter().copied().filter(of)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn death_at_each_point_of_removals_snapshots_and_volumes_loses_and_leaves_nothing() {
    let of = |p: &&str| Taste::of_point(p) != Taste::Images;
    die_at_points(POINTS.iter().copied().filter(of)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn death_at_random_moments_loses_and_leaves_nothing() {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let (mut host, mut storm, _registry) = begin(seed);
    for round in 0..scaled(60) {
        host.start().await;
        let load = storm.begin(&host.clients(), Taste::All, usize::MAX);
        let moment = Duration::from_micros(random.random_range(1_000..250_000));
        println!("round {round}: {moment:?}");
        tokio::time::sleep(moment).await;
        host.kill();
        load.end().await;
        host.start().await;
        storm.verify(&host, Death::Kill).await;
        host.kill();
    }
}
