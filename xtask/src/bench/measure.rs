//! Wall time of commands, run in turn.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::ensure;

use super::peers::Peer;

/// Milliseconds of each run, by (network, engine).
pub type Samples = BTreeMap<(&'static str, &'static str), Vec<f64>>;

/// Runs every command once as a warm-up and then `rounds` times, one engine after the other in each round, so that whatever
/// else the machine does meets all of them alike.
pub fn interleaved(peers: &[Peer], rounds: usize) -> anyhow::Result<Samples> {
    let mut samples = Samples::new();
    for round in 0..=rounds {
        for peer in peers {
            let networks = [("bridge", peer.bridged.as_ref()), ("none", Some(&peer.plain))];
            for (network, argv) in networks.into_iter().filter_map(|(n, argv)| argv.map(|argv| (n, argv))) {
                let begin = Instant::now();
                let ran = peer.run(argv, round);
                let took = begin.elapsed().as_secs_f64() * 1000.0;
                ensure!(ran.code == 0, "{}: {ran}", peer.name);
                if round > 0 {
                    samples.entry((network, peer.name)).or_default().push(took);
                }
            }
        }
        println!("round {round} of {rounds}");
    }
    Ok(samples)
}

/// What a command inside of a running container is measured as, beside the networks of `run`.
pub const EXEC: &str = "exec";

/// Adds `exec CONTAINER true` of every engine that has it, in turn.
pub fn execs(peers: &[Peer], rounds: usize, samples: &mut Samples) -> anyhow::Result<()> {
    let name = "entered".to_owned();
    let mut lines = Vec::new();
    for peer in peers {
        let (Some(detached), Some(exec)) = (&peer.detached, &peer.exec) else { continue };
        let more = [&name, &peer.image, "sleep", "100000"].map(str::to_owned);
        let ran = peer.run(&[detached.as_slice(), &more].concat(), 0);
        ensure!(ran.code == 0, "{}: {ran}", peer.name);
        lines.push((peer, [exec.as_slice(), &[name.clone(), "true".to_owned()]].concat()));
    }
    for round in 0..=rounds {
        for (peer, argv) in &lines {
            let begin = Instant::now();
            let ran = peer.run(argv, round);
            let took = begin.elapsed().as_secs_f64() * 1000.0;
            ensure!(ran.code == 0, "{}: {ran}", peer.name);
            if round > 0 {
                samples.entry((EXEC, peer.name)).or_default().push(took);
            }
        }
    }
    Ok(())
}

/// What `davit run --timings` prints, of the fastest of a few runs, by network: one line a stage.
pub fn stages(peers: &[Peer]) -> BTreeMap<&'static str, Vec<String>> {
    let mut stages = BTreeMap::new();
    let Some(davit) = peers.iter().find(|p| p.name == "davit") else { return stages };
    for (network, argv) in [("bridge", davit.bridged.as_ref()), ("none", Some(&davit.plain))] {
        let Some(argv) = argv else { continue };
        let mut argv = argv.clone();
        argv.insert(2, "--timings".to_owned());
        let runs = (0..5).map(|n| {
            let begin = Instant::now();
            let ran = davit.run(&argv, n);
            (begin.elapsed(), ran)
        });
        if let Some((_, ran)) = runs.filter(|(_, ran)| ran.code == 0).min_by_key(|(took, _)| *took) {
            let lines = ran.stderr.lines().map(|l| l.trim_end().to_owned()).filter(|l| !l.is_empty());
            stages.insert(network, lines.collect());
        }
    }
    stages
}
