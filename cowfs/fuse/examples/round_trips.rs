//! How long a request takes from the system call to its answer: `round_trips PATH THREADS COUNT [PAUSE]` asks for PATH's attributes COUNT times on
//! each thread, computing for PAUSE microseconds between. On a mount with `timeout=0` each is one request. Prints microseconds.

use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};

fn main() {
    let words: Vec<String> = std::env::args().collect();
    let [_, path, threads, count, pause @ ..] = &words[..] else {
        eprintln!("usage: round_trips PATH THREADS COUNT [PAUSE]");
        std::process::exit(2);
    };
    let number = |text: &String| text.parse::<u64>().expect("a number");
    let (threads, count) = (number(threads), number(count));
    let pause = Duration::from_micros(pause.first().map_or(0, number));
    let clients: Vec<_> = (0..threads)
        .map(|_| {
            let path = path.clone();
            std::thread::spawn(move || client(&path, count, pause))
        })
        .collect();
    for client in clients {
        let mut times = client.join().expect("the client does not panic");
        times.sort_unstable();
        let mean = times.iter().sum::<Duration>().as_secs_f64() / f64::from(times.len() as u32) * 1e6;
        let at = |share: usize| times[times.len() * share / 100].as_secs_f64() * 1e6;
        println!("mean {mean:.1} median {:.1} p95 {:.1} p99 {:.1}", at(50), at(95), at(99));
    }
}

fn client(path: &str, count: u64, pause: Duration) -> Vec<Duration> {
    let file =
        rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).expect("the path is there");
    (0..count)
        .map(|_| {
            let begun = Instant::now();
            // Its failure is an answer as well.
            let _ = rustix::fs::fstat(&file);
            let taken = begun.elapsed();
            let idle = Instant::now();
            while idle.elapsed() < pause {
                std::hint::spin_loop();
            }
            taken
        })
        .collect()
}
