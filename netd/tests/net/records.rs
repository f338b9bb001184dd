//! Records of sandboxes that were lost, damaged or put elsewhere by hand.

use std::fs;
use std::path::PathBuf;

use davit_contracts::network as proto;

use crate::check::{check, words};
use crate::host::{Guest, Host};

fn folder(host: &Host) -> PathBuf {
    host.run_dir().join("network/sandboxes")
}

fn record(host: &Host, guest: &Guest) -> PathBuf {
    folder(host).join(format!("{}.json", guest.id))
}

async fn is_sound(host: &Host) {
    assert_eq!(words(&check(host, false).await), Vec::<String>::new(), "{}", host.log());
}

#[tokio::test]
async fn a_folder_of_records_that_is_gone_hides_nothing_else_and_is_made_again() {
    let host = Host::new().await;
    let bridge = host.net_create("n").await.interface;
    let web = host.guest("web", &["n"], &[]).await;
    host.space.run(&format!("ip link set {bridge} down"));
    fs::remove_dir_all(folder(&host)).unwrap();
    let listed = words(&check(&host, false).await);
    assert!(listed.contains(&format!("differs bridge {bridge}")), "{listed:?}");
    assert!(listed.contains(&format!("missing record of {}", web.id)), "{listed:?}");
    assert!(check(&host, true).await.iter().all(|d| d.repaired));
    is_sound(&host).await;
    // Also who comes next finds none.
    fs::remove_dir_all(folder(&host)).unwrap();
    let db = host.guest("db", &["n"], &[]).await;
    assert!(record(&host, &db).exists());
    // A file in its place cannot be read as a folder: the rest is told all the same.
    fs::remove_dir_all(folder(&host)).unwrap();
    fs::write(folder(&host), "").unwrap();
    host.space.run(&format!("ip link set {bridge} down"));
    let listed = check(&host, false).await;
    let listed: Vec<_> = listed.iter().map(|d| (d.object.as_str(), d.detail.as_str())).collect();
    assert!(listed.iter().any(|(object, _)| *object == format!("bridge {bridge}")), "{listed:?}");
    assert!(
        listed
            .iter()
            .any(|(object, why)| *object == "records of containers" && why.contains("Not a directory")),
        "{listed:?}"
    );
}

#[tokio::test]
async fn a_record_under_another_name_is_none() {
    let mut host = Host::new().await;
    host.net_create("n").await;
    let web = host.guest("web", &["n"], &[]).await;
    let copy = folder(&host).join("copy.json");
    fs::rename(record(&host, &web), &copy).unwrap();
    fs::create_dir(folder(&host).join("dir")).unwrap();
    fs::create_dir_all(folder(&host).join("full/dir")).unwrap();
    let listed = words(&check(&host, false).await);
    let at = |name: &str| folder(&host).join(name).display().to_string();
    assert_eq!(
        listed,
        [
            format!("differs record {}", copy.display()),
            format!("stray folder {}", at("dir")),
            format!("stray folder {}", at("full")),
            format!("missing record of {}", web.id),
        ]
    );
    let mended = check(&host, true).await;
    let kept: Vec<_> = mended.iter().filter(|d| !d.repaired).collect();
    assert!(kept.len() == 1 && kept[0].error.contains("not empty"), "{mended:?}");
    fs::remove_dir_all(at("full")).unwrap();
    is_sound(&host).await;
    // Two files of one sandbox restore it once.
    host.kill();
    fs::copy(record(&host, &web), &copy).unwrap();
    fs::create_dir(folder(&host).join("dir.json")).unwrap();
    host.start().await;
    let known = host.endpoints().list(proto::ListSandboxesRequest {}).await.unwrap().into_inner().sandboxes;
    assert_eq!(known.len(), 1, "{known:?}");
    assert!(check(&host, true).await.iter().all(|d| d.repaired));
    is_sound(&host).await;
    host.detach(&web).await;
    assert_eq!(fs::read_dir(folder(&host)).unwrap().count(), 0);
}

#[tokio::test]
async fn a_record_that_says_something_else_tells_what_and_whose() {
    let host = Host::new().await;
    host.net_create("n").await;
    let web = host.guest("web", &["n"], &[]).await;
    let path = record(&host, &web);
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replacen("\"name\":\"web\"", "\"name\":\"other\"", 1)).unwrap();
    let told = check(&host, false).await;
    assert_eq!(words(&told), [format!("differs record of {}", web.id)]);
    assert!(told[0].sandbox == "web" && told[0].detail.ends_with("of: name"), "{told:?}");
    fs::write(&path, "x").unwrap();
    let told = check(&host, true).await;
    assert_eq!(words(&told), [format!("differs record {}", path.display())]);
    assert!(told[0].repaired && told[0].sandbox == "web", "{told:?}");
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
}

#[tokio::test]
async fn a_damaged_record_stays_as_long_as_its_container_runs_without_being_known() {
    let mut host = Host::new().await;
    host.net_create("n").await;
    let web = host.guest("web", &["n"], &[]).await;
    host.kill();
    fs::write(record(&host, &web), "x").unwrap();
    host.start().await;
    let damaged = record(&host, &web).with_extension("damaged");
    let repair = async |detached: &[&str]| {
        let detached = detached.iter().map(|d| (*d).to_owned()).collect();
        let request = proto::CheckRequest { repair: true, detached };
        host.networks().check(request).await.unwrap().into_inner().drifts
    };
    let told = repair(&[&web.id]).await;
    assert_eq!(words(&told), [format!("differs record {}", damaged.display())]);
    assert!(!told[0].repaired && told[0].error.contains("davit restart"), "{told:?}");
    assert!(told[0].detail.contains(&web.id) && damaged.exists(), "{told:?}");
    // What runtimed does about it: the container has its network again.
    host.attach(&web, &["n"], &[]).await.unwrap();
    assert!(repair(&[]).await.iter().all(|d| d.repaired));
    assert!(!damaged.exists());
    is_sound(&host).await;
}

#[tokio::test]
async fn a_bridge_that_became_somebody_elses_costs_only_its_own_network() {
    let mut host = Host::new().await;
    let lost = host.net_create("lost").await.interface;
    host.net_create("kept").await;
    let db = host.guest("db", &["kept"], &[]).await;
    let web = host.guest("web", &["lost", "kept"], &[]).await;
    db.space.serve_tcp("0.0.0.0:80");
    let works = || {
        let at = web.space.dig("db");
        web.space.ask_tcp(&format!("{at}:80")).is_some()
    };
    assert!(works());
    let replace = format!("ip link del {lost}; ip link add {lost} type bridge");
    host.space.run(&replace);
    let told = check(&host, true).await;
    let of_web: Vec<_> = told.iter().filter(|d| !d.repaired && d.sandbox == "web").collect();
    assert!(!of_web.is_empty() && of_web.iter().all(|d| d.error.contains("not ours")), "{told:#?}");
    host.kill();
    host.start().await;
    assert!(works(), "{}", host.log());
    host.space.run(&format!("ip link del {lost}"));
    assert!(check(&host, true).await.iter().all(|d| d.repaired));
    is_sound(&host).await;
}

#[tokio::test]
async fn a_macvlan_whose_record_was_lost_is_attached_again() {
    let mut host = Host::new().await;
    let options = [("parent".to_owned(), "uplink".to_owned())].into();
    let subnets = vec![proto::Subnet {
        subnet: "10.99.0.0/24".into(),
        gateway: "10.99.0.1".into(),
        ..Default::default()
    }];
    let driver = "macvlan".to_owned();
    let wire =
        proto::CreateNetworkRequest { name: "wire".into(), driver, options, subnets, ..Default::default() };
    host.create(wire).await.unwrap();
    host.net_create("n").await;
    let web = host.guest("web", &["wire", "n"], &[]).await;
    host.kill();
    fs::remove_file(record(&host, &web)).unwrap();
    host.start().await;
    host.attach(&web, &["wire", "n"], &[]).await.unwrap();
    is_sound(&host).await;
    assert!(web.space.run("ping -c1 -W2 10.99.0.1").contains("1 received"));
}
