//! What a result of an earlier ADD says that there is, for CHECK (specification, section 5, "Success").

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use crate::failure::{Code, Failure};
use crate::result::Object;

/// A route, of any plugin of the chain: results do not tell whose one is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Where it leads to.
    pub to: IpNet,
    /// Through whom; absent where the result does not say.
    pub gateway: Option<IpAddr>,
}

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its mac, when the result says.
    pub mac: Option<String>,
    /// Its MTU, when the result says.
    pub mtu: Option<u64>,
}

/// What an earlier ADD had made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// The interface inside.
    pub inside: Interface,
    /// The namespace that it is in.
    pub sandbox: String,
    /// Its addresses.
    pub addresses: Vec<IpNet>,
    /// Their gateways.
    pub gateways: Vec<IpAddr>,
    /// All routes.
    pub routes: Vec<Route>,
    /// Interfaces of the host, of any plugin.
    pub outside: Vec<Interface>,
}

fn text(value: &Value, key: &str) -> String {
    value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn wrong(what: &str) -> Failure {
    Failure::new(Code::Config, format!("prevResult {what}"))
}

/// A field of addresses; `None` where it is absent or empty.
fn read<T: std::str::FromStr>(value: &Value, key: &str, what: &str) -> Result<Option<T>, Failure> {
    match text(value, key).as_str() {
        "" => Ok(None),
        given => given.parse().map(Some).map_err(|_| wrong(&format!("has the {what} '{given}'"))),
    }
}

impl Interface {
    fn of(value: &Value) -> Self {
        Self {
            name: text(value, "name"),
            mac: Some(text(value, "mac")).filter(|mac| !mac.is_empty()),
            mtu: value.get("mtu").and_then(Value::as_u64).filter(|mtu| *mtu > 0),
        }
    }
}

impl Expected {
    /// Finds an interface inside a sandbox in a result.
    pub fn of(result: &Object, interface: &str) -> Result<Self, Failure> {
        let array = |name: &str| result.get(name).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let interfaces = array("interfaces");
        let index = interfaces
            .iter()
            .position(|i| text(i, "name") == interface && !text(i, "sandbox").is_empty())
            .ok_or_else(|| wrong(&format!("has no interface '{interface}' in a sandbox")))?;
        let mut me = Self {
            inside: Interface::of(&interfaces[index]),
            sandbox: text(&interfaces[index], "sandbox"),
            addresses: Vec::new(),
            gateways: Vec::new(),
            routes: Vec::new(),
            outside: interfaces.iter().filter(|i| text(i, "sandbox").is_empty()).map(Interface::of).collect(),
        };
        let own = |ip: &&Value| ip.get("interface").and_then(Value::as_u64) == Some(index as u64);
        for ip in array("ips").iter().filter(own) {
            let address = read(ip, "address", "address")?;
            me.addresses.push(address.ok_or_else(|| wrong("has an address that is empty"))?);
            me.gateways.extend(read::<IpAddr>(ip, "gateway", "gateway")?);
        }
        for route in array("routes") {
            let to: IpNet =
                read(route, "dst", "route to")?.ok_or_else(|| wrong("has a route that leads nowhere"))?;
            me.routes.push(Route { to: to.trunc(), gateway: read(route, "gw", "gateway")? });
        }
        Ok(me)
    }
}
