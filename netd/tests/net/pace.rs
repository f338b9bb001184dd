//! How long attach and detach take: printed, for a person to read. What is asserted is that the work was done.

use std::time::Instant;

use crate::host::{Guest, Host};

fn median(mut times: Vec<u128>) -> u128 {
    times.sort_unstable();
    times[times.len() / 2]
}

#[tokio::test]
async fn attach_and_detach_with_and_without_many_ports() {
    let host = Host::new().await;
    host.net_create("n").await;
    let _keep = host.guest("keep", &["n"], &["8080:80"]).await;
    for ports in [0, 1000] {
        let many: Vec<String> = (0..ports).map(|n| format!("{}:80", 20000 + n)).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let crowd = host.guest(&format!("crowd{ports}"), &["n"], &many).await;
        let (mut attach, mut detach, mut last) = (Vec::new(), Vec::new(), None);
        for n in 0..20 {
            let guest = Guest::new(&format!("p{ports}-{n}"));
            let start = Instant::now();
            let answer = host.attach(&guest, &["n"], &["9090:80"]).await.unwrap();
            attach.push(start.elapsed().as_micros());
            last = Some(answer.stage_us);
            let start = Instant::now();
            host.detach(&guest).await;
            detach.push(start.elapsed().as_micros());
        }
        println!(
            "{ports} ports: attach {} us, detach {} us; {:?}",
            median(attach),
            median(detach),
            last.unwrap()
        );
        host.detach(&crowd).await;
    }
}

/// What a policy adds to an attach, with few and with many containers under it.
#[tokio::test]
async fn attach_with_and_without_a_policy() {
    use davit_contracts::network as proto;
    let host = Host::new().await;
    host.net_create("n").await;
    let _keep = host.guest("keep", &["n"], &[]).await;
    for (case, crowd) in [("without", 0), ("with", 0), ("with", 100)] {
        if case == "with" {
            let rule = proto::PolicyRule {
                from: [("role".to_owned(), "other".to_owned())].into(),
                ..Default::default()
            };
            let request =
                proto::SetPolicyRequest { network: "n".into(), rules: vec![rule], ..Default::default() };
            host.networks().set_policy(request).await.unwrap();
        }
        let mut crowded = Vec::new();
        for n in 0..crowd {
            crowded.push(host.guest(&format!("c{n}"), &["n"], &[]).await);
        }
        let (mut whole, mut rules) = (Vec::new(), Vec::new());
        for n in 0..20 {
            let guest = Guest::new(&format!("{case}{crowd}-{n}"));
            let start = Instant::now();
            let answer = host.attach(&guest, &["n"], &[]).await.unwrap();
            whole.push(start.elapsed().as_micros());
            rules.push(u128::from(answer.stage_us["rules"]));
            host.detach(&guest).await;
        }
        println!("{case} a policy, {crowd} more: attach {} us, rules {} us", median(whole), median(rules));
    }
}
