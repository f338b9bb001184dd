//! The demo's last act: nothing is left.

use std::time::{Duration, Instant};

use anyhow::bail;
use davit_tests::Inventory;

use super::stage::Stage;

const KINDS: &[&str] = &["process", "mount", "link", "netns", "rule", "cgroup", "route"];

/// Compares with `before`, printing one line for each kind of thing.
pub fn assert_nothing(stage: &Stage, before: &Inventory) -> anyhow::Result<()> {
    println!("# Is anything left?");
    let deadline = Instant::now() + Duration::from_secs(20);
    let left = loop {
        let left = still_there(stage, before)?;
        if left.is_empty() || Instant::now() > deadline {
            break left;
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    for kind in KINDS {
        let of_kind: Vec<&String> = left.iter().filter(|l| l.starts_with(&format!("{kind} "))).collect();
        let plural = if *kind == "process" { "processes".to_owned() } else { format!("{kind}s") };
        println!(
            "{plural:<10} {}",
            if of_kind.is_empty() { "none".to_owned() } else { format!("{of_kind:?}") }
        );
    }
    let [_, run] = stage.davit_directories();
    let sockets: Vec<_> = std::fs::read_dir(&run).into_iter().flatten().flatten().map(|e| e.path()).collect();
    let sockets: Vec<_> = sockets.iter().filter(|p| p.extension().is_some_and(|e| e == "sock")).collect();
    println!(
        "{:<10} {}",
        "sockets",
        if sockets.is_empty() { "none".to_owned() } else { format!("{sockets:?}") }
    );
    if left.is_empty() && sockets.is_empty() {
        return Ok(());
    }
    bail!("the demo left something behind")
}

fn still_there(stage: &Stage, before: &Inventory) -> anyhow::Result<Vec<String>> {
    let mut left = stage.inventory()?.beyond(before);
    if !stage.is_private() {
        // On a machine that others use too, only what can be davit's counts.
        let dir = stage.davit_directories()[0].parent().map(|d| d.display().to_string()).unwrap_or_default();
        left.retain(|l| {
            let ours = l.contains("davit") || l.contains("/srv/") || l.contains(&dir);
            let own_process = l.starts_with("process ") && (l.contains("xtask") || l.contains("cargo"));
            (ours || l.contains(" dv-") || l.starts_with("link ") || l.starts_with("netns ")) && !own_process
        });
    }
    Ok(left)
}
