//! A storm: containers end, are stopped, killed, entered and removed at random, while daemons die at random. Afterwards every exit code is
//! what the program did, and nothing is left.
//!
//! Usually 10 containers for half a minute; `DAVIT_STORM=20` is 200 containers for ten minutes, `DAVIT_SEED` other random numbers.

#[path = "storm/sailing.rs"]
mod sailing;
#[path = "storm/trace.rs"]
mod trace;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use davit_tests::scale::{scaled, seed};
use davit_tests::{Host, eventually};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};

use sailing::Crew;
use trace::{Descriptors, no_zombies};

/// Whoever may be the parent of a monitor (runtimed, later init), the parent of those (the supervisor), and the others.
const DAEMONS: [&str; 4] = ["davit-runtimed", "davit-runtimed", "davit-netd", "davit-storaged"];
/// How many people work at once.
const CREWS: usize = 4;

/// Kills daemons until the time is over; answers how many.
fn kill_daemons(host: &Host, mut random: SmallRng, over: &AtomicBool) -> usize {
    let mut killed = 0;
    while !over.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(random.random_range(200..1500)));
        let daemon = if random.random_bool(0.1) {
            "davit-supervisor"
        } else {
            DAEMONS[random.random_range(0..DAEMONS.len())]
        };
        killed += usize::from(host.sh(&format!("pkill -9 -x {}", &daemon[..daemon.len().min(15)])).code == 0);
    }
    killed
}

#[test]
fn exit_codes_are_right_and_nothing_is_left_after_a_storm() {
    let host = Host::with_busybox();
    host.net_create("sea");
    host.davit(["run", "--rm", "--net", "sea", "busybox:1", "true"]).ok();
    let before = Descriptors::of(&host);
    let (containers, time) = (scaled(10).max(CREWS), Duration::from_secs(scaled(30) as u64));
    let seed = seed();
    let over = AtomicBool::new(false);
    let (mut crews, killed) = std::thread::scope(|scope| {
        let killer = scope.spawn(|| kill_daemons(&host, SmallRng::seed_from_u64(seed), &over));
        let (host, until) = (&host, Instant::now() + time);
        let crews = (0..CREWS).map(|n| {
            scope.spawn(move || {
                let mut crew = Crew::new(host, n, containers / CREWS, seed);
                while Instant::now() < until {
                    crew.act();
                }
                crew
            })
        });
        let crews: Vec<_> = crews.collect::<Vec<_>>().into_iter().map(ScopedJoinHandle::join).collect();
        over.store(true, Ordering::Relaxed);
        let killed = killer.join().expect("the killer only kills");
        let unwrap = |c: std::thread::Result<_>| c.unwrap_or_else(|e| std::panic::resume_unwind(e));
        (crews.into_iter().map(unwrap).collect::<Vec<Crew<'_>>>(), killed)
    });
    let done: usize = crews.iter().map(|c| c.done).sum();
    println!("{done} commands, {killed} deaths of daemons, {containers} containers");
    assert!(killed > 0 && done > containers, "there was no storm");
    host.davit(["ps"]).ok();
    for crew in &mut crews {
        crew.look_at_all();
    }
    for crew in &mut crews {
        crew.remove_all();
    }
    host.davit(["ps", "-aq"]).ok().prints("");
    eventually("nothing is left of any container", || trace::left_of_containers(&host));
    host.davit(["net", "rm", "sea"]).ok();
    no_zombies(&host);
    before.have_not_grown(&host);
}

#[test]
fn a_container_is_the_same_after_thousands_of_execs() {
    let host = Host::with_busybox();
    let c = host.run_detached("c", &["--net", "none", "busybox:1", "sleep", "100000"]);
    let batch = 25;
    let execs = scaled(500);
    let enter = |n: usize| {
        let script = format!(
            "for i in $(seq {n}); do davit exec c sh -c 'exit 3' & pids=\"$pids $!\"; done; for p in $pids; do wait $p; [ $? = 3 ] || exit 1; done"
        );
        host.sh(&script).ok();
    };
    enter(batch);
    let before = Descriptors::of(&host);
    let things = host.inventory();
    let mut made = 0;
    while made < execs {
        enter(batch);
        made += batch;
    }
    println!("{made} execs");
    eventually("the last ones are cleared away", || {
        let more = host.inventory().beyond(&things);
        if more.is_empty() { Ok(()) } else { Err(format!("{more:?}")) }
    });
    no_zombies(&host);
    before.have_not_grown(&host);
    let files =
        host.sh("find /run/davit/runtime -path '*/exec/*'; find /run/davit/runtime -name 'call*.log'").ok();
    assert_eq!(files.text(), "", "files of execs that have ended");
    // The program itself, and who looks.
    let listed = c.exec(&["ls", "/proc"]).ok();
    let processes: Vec<&str> =
        listed.stdout.lines().filter(|name| name.bytes().all(|b| b.is_ascii_digit())).collect();
    assert_eq!(processes.len(), 2, "{listed}");
}
