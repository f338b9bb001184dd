//! A container of a private host.

use crate::command::Ran;
use crate::host::Host;
use crate::wait::eventually;

/// A running container, known by its name; it is removed with its host.
#[derive(Debug)]
pub struct Container<'h> {
    host: &'h Host,
    /// Its name.
    pub name: String,
    /// Its whole id.
    pub id: String,
}

impl Host {
    /// `davit run -d --name NAME OPTIONS... IMAGE COMMAND...`, with `rest` from the options on.
    #[track_caller]
    pub fn run_detached(&self, name: &str, rest: &[&str]) -> Container<'_> {
        let id = self.davit(["run", "-d", "--name", name].iter().chain(rest)).ok().text().to_owned();
        assert!(id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit()), "no id: {id:?}");
        Container { host: self, name: name.to_owned(), id }
    }

    /// `davit net create NAME`.
    #[track_caller]
    pub fn net_create(&self, name: &str) {
        self.davit(["net", "create", name]).ok();
    }
}

impl Container<'_> {
    /// Runs a command inside.
    #[track_caller]
    pub fn exec(&self, command: &[&str]) -> Ran {
        self.host.davit(["exec", &self.name].iter().chain(command))
    }

    /// Runs a shell script inside.
    #[track_caller]
    pub fn sh(&self, script: &str) -> Ran {
        self.exec(&["sh", "-c", script])
    }

    /// Its address on a network.
    #[track_caller]
    pub fn address(&self, network: &str) -> String {
        let found = self.host.davit(["net", "inspect", network, "--format", "json"]).ok().json();
        let text = find(&found, &|o| {
            let named = ["Name", "name"].iter().any(|k| o[*k].as_str() == Some(&self.name));
            let ip = ["IPv4Address", "ip", "ipv4_address", "IPAddress"].iter().find_map(|k| o[*k].as_str());
            ip.filter(|_| named).map(str::to_owned)
        });
        let cidr = text.unwrap_or_else(|| panic!("{} is not on {network}: {found:#}", self.name));
        cidr.split('/').next().unwrap_or_default().to_owned()
    }

    /// Asserts that `name` resolves inside, and answers its first address.
    #[track_caller]
    pub fn resolves(&self, name: &str) -> String {
        let ran = self.look_up(name);
        address_in(&ran).unwrap_or_else(|| panic!("expected an address of {name} from {ran}"))
    }

    /// Asserts that `name` does not resolve inside.
    #[track_caller]
    pub fn does_not_resolve(&self, name: &str) {
        let ran = self.look_up(name);
        assert!(address_in(&ran).is_none(), "expected no address of {name} from {ran}");
    }

    /// Asks with what the image has: BusyBox's nslookup, or glibc's getent.
    fn look_up(&self, name: &str) -> Ran {
        self.sh(&format!(
            "if [ -x /bin/busybox ]; then nslookup -type=a {name}; else getent ahostsv4 {name}; fi"
        ))
    }

    /// One field of `davit inspect`, by a path of names such as `["State", "Status"]`.
    #[track_caller]
    pub fn inspect(&self, path: &[&str]) -> serde_json::Value {
        let whole = self.host.davit(["inspect", &self.name]).ok().json();
        path.iter().fold(whole[0].clone(), |value, key| value[*key].clone())
    }

    /// Waits until its log contains `part`.
    #[track_caller]
    pub fn logs_until(&self, part: &str) -> Ran {
        eventually(&format!("{} logs {part:?}", self.name), || {
            let ran = self.host.davit(["logs", &self.name]).ok();
            if ran.stdout.contains(part) { Ok(ran) } else { Err(ran.to_string()) }
        })
    }

    /// `davit rm -f`.
    #[track_caller]
    pub fn remove(self) {
        self.host.davit(["rm", "-f", &self.name]).ok();
    }
}

/// The first IPv4 address that is not the resolver's own.
fn address_in(ran: &Ran) -> Option<String> {
    let is_address = |w: &&str| w.parse::<std::net::Ipv4Addr>().is_ok_and(|ip| !ip.is_loopback());
    ran.stdout.split_whitespace().find(is_address).map(str::to_owned)
}

/// The first answer of `pick` for any object below `value`.
fn find(value: &serde_json::Value, pick: &dyn Fn(&serde_json::Value) -> Option<String>) -> Option<String> {
    if let Some(found) = pick(value) {
        return Some(found);
    }
    match value {
        serde_json::Value::Object(map) => map.values().find_map(|v| find(v, pick)),
        serde_json::Value::Array(list) => list.iter().find_map(|v| find(v, pick)),
        _ => None,
    }
}
