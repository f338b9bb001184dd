//! Containers without a network of their own, which netd does not know: the host or another container stands for them, or nobody.
//!
//! A name that the source resolves is never replaced, though it may also be that of such a container.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use davit_contracts::network::hop::Verdict;
use davit_contracts::network::{ExplainResponse, Hop};
use davit_contracts::runtime::{Container, InspectRequest};

use crate::app::App;

/// How many containers may have each other's network in a row.
const CHAIN: usize = 8;
/// Fewer digits of an id may as well be a name that only a network knows.
const ID_DIGITS: usize = 12;

/// An end of the way.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Stand {
    /// As netd knows it.
    pub name: String,
    /// Why it is not what was asked for.
    pub hops: Vec<Hop>,
    /// Why nothing stands for it.
    pub stop: Option<Hop>,
    /// Of a container in the host's network: the text of its /etc/hosts, as far as we may read it.
    hosts: String,
}

/// Who stands for the source.
pub async fn source(app: &App, asked: &str) -> Stand {
    let told = |c: &Container, other: Option<&str>| match other {
        None => hop(&c.name, "it is in the host's network, where names of containers are not known"),
        Some(other) => hop(&c.name, format!("it has the network of {other}")),
    };
    stand(app, asked, told).await
}

/// What the /etc/hosts of a source in the host's network, which netd does not read, says of the target.
pub fn of_hosts_file(from: &Stand, asked: &str) -> Option<Stand> {
    if is_no_name(asked) {
        return None;
    }
    let ip = address_of(&from.hosts, asked)?;
    let what = format!("'{asked}' is {ip}: its /etc/hosts says so");
    let hops = from.hops.first().map(|h| Hop { verdict: Verdict::Pass.into(), ..hop(&h.r#where, what) });
    Some(Stand { name: ip.to_string(), hops: hops.into_iter().collect(), ..Stand::default() })
}

/// Whether the name means the same to the source itself. The host does not resolve names of containers: netd takes one for what a
/// person may mean, and so do we.
pub fn resolves(answer: &ExplainResponse) -> bool {
    let of_name = answer.hops.iter().find(|h| h.stage == "name");
    of_name.is_none_or(|h| h.verdict() == Verdict::Pass)
}

fn is_no_name(asked: &str) -> bool {
    asked.parse::<IpAddr>().is_ok() || asked == "localhost"
}

/// Who stands for the target, as `from` finds it, where netd knows no address of it.
pub async fn target(app: &App, from: &Stand, asked: &str) -> Stand {
    if is_no_name(asked) {
        return Stand { name: asked.to_owned(), ..Stand::default() };
    }
    let place = from.hops.first().map_or(from.name.as_str(), |h| h.r#where.as_str());
    let told = |c: &Container, other: Option<&str>| {
        let name = &c.name;
        hop(
            place,
            match other {
                None => format!("'{name}' is in the host's network and has no name there: the host is taken"),
                Some(other) => {
                    format!("'{name}' has the network of {other} and no name there: {other} is taken")
                }
            },
        )
    };
    let mut stand = stand(app, asked, told).await;
    stand.stop = stand.stop.map(|stop| Hop { r#where: place.to_owned(), ..stop });
    stand
}

/// `told` says of a container whose network it has; none is the host's.
async fn stand(app: &App, asked: &str, told: impl Fn(&Container, Option<&str>) -> Hop) -> Stand {
    let mut stand = Stand { name: asked.to_owned(), ..Stand::default() };
    if asked == "host" {
        return stand;
    }
    let mut found = running(app, asked).await;
    for _ in 0..CHAIN {
        let Some(container) = found else { break };
        let mode = mode(&container);
        if mode == "host" {
            stand.hops.push(told(&container, None));
            "host".clone_into(&mut stand.name);
            let file = Path::new(&container.etc_dir).join("hosts");
            stand.hosts = fs::read_to_string(file).unwrap_or_default();
            break;
        }
        if mode == "none" {
            stand.stop = Some(Hop {
                verdict: Verdict::Stop.into(),
                hint: format!(
                    "run it again on one: 'davit run --network NETWORK --name {} ...'",
                    container.name
                ),
                ..hop(
                    &container.name,
                    format!("'{}' has no network: it runs with --network none", container.name),
                )
            });
            break;
        }
        let Some(other) = mode.strip_prefix("container:") else { break };
        let next = running(app, other).await;
        stand.name = next.as_ref().map_or(other, |c| c.name.as_str()).to_owned();
        stand.hops.push(told(&container, Some(&stand.name)));
        found = next;
    }
    stand
}

/// A container that runs. Where runtimed does not answer netd says what it knows.
async fn running(app: &App, name: &str) -> Option<Container> {
    let mut client = app.containers().await.ok()?;
    let request = InspectRequest { container: name.to_owned() };
    let found = app.runtime(client.inspect(request)).await.ok()?.container?;
    let meant = found.name == name || (name.len() >= ID_DIGITS && found.id.starts_with(name));
    let runs = found.state.as_ref().is_some_and(|s| matches!(s.status.as_str(), "running" | "paused"));
    (meant && runs).then_some(found)
}

fn mode(container: &Container) -> &str {
    container.spec.as_ref().and_then(|s| s.network.as_ref()).map_or("", |n| n.mode.as_str())
}

fn hop(place: &str, what: impl Into<String>) -> Hop {
    Hop {
        stage: "name".to_owned(),
        r#where: place.to_owned(),
        what: what.into(),
        verdict: Verdict::Note.into(),
        hint: String::new(),
    }
}

/// hosts(5); IPv4 first, as there is a way out by it more often.
fn address_of(hosts: &str, name: &str) -> Option<IpAddr> {
    let of_line = |line: &str| {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let ip: IpAddr = words.next()?.parse().ok()?;
        words.any(|w| w.eq_ignore_ascii_case(name)).then_some(ip)
    };
    let all: Vec<IpAddr> = hosts.lines().filter_map(of_line).collect();
    all.iter().find(|ip| ip.is_ipv4()).or(all.first()).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_hosts_file_are_found() {
        let text = "127.0.0.1 localhost\nfd00::1 db\n10.0.0.1\tdb DB.example # not-this\n::1 six\nx y\n";
        let ip = |name| address_of(text, name).map(|ip| ip.to_string()).unwrap_or_default();
        assert_eq!([ip("DB"), ip("db.example"), ip("six")], ["10.0.0.1", "10.0.0.1", "::1"]);
        assert_eq!([ip("not-this"), ip("y")], ["", ""]);
    }
}
