//! Docker's options of macvlan and ipvlan networks, whose endpoints are interfaces on top of one of the host's.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::options::{Given, MTU, PREFIX, interface_name};
use super::{Driver, SpecError};

const PARENT: &str = "parent";
const MACVLAN_MODE: &str = "macvlan_mode";
const IPVLAN_MODE: &str = "ipvlan_mode";
const IPVLAN_FLAG: &str = "ipvlan_flag";
const MACVLAN_KNOWN: [&str; 4] = [PARENT, MACVLAN_MODE, MTU, PREFIX];
const IPVLAN_KNOWN: [&str; 5] = [PARENT, IPVLAN_MODE, IPVLAN_FLAG, MTU, PREFIX];

/// Who hears whom (linux/if_link.h: `enum macvlan_mode`, `enum ipvlan_mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// macvlan: containers reach each other directly.
    Bridge,
    /// macvlan: containers do not reach each other.
    Private,
    /// macvlan: containers reach each other through a switch that sends frames back.
    Vepa,
    /// macvlan: one container has the parent to itself.
    Passthru,
    /// ipvlan: one broadcast domain with the parent.
    L2,
    /// ipvlan: the host routes; neither broadcast nor neighbours.
    L3,
    /// ipvlan: as l3, and packets pass the host's firewall.
    L3s,
}

impl Mode {
    const MACVLAN: [Self; 4] = [Self::Bridge, Self::Private, Self::Vepa, Self::Passthru];
    const IPVLAN: [Self; 3] = [Self::L2, Self::L3, Self::L3s];

    /// Docker's word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Private => "private",
            Self::Vepa => "vepa",
            Self::Passthru => "passthru",
            Self::L2 => "l2",
            Self::L3 => "l3",
            Self::L3s => "l3s",
        }
    }

    /// The kernel's number.
    pub fn number(self) -> u32 {
        match self {
            Self::L2 => 0,
            Self::Private | Self::L3 => 1,
            Self::Vepa | Self::L3s => 2,
            Self::Bridge => 4,
            Self::Passthru => 8,
        }
    }

    /// Whether packets are routed, without neighbours and so without a gateway.
    pub fn is_routed(self) -> bool {
        matches!(self, Self::L3 | Self::L3s)
    }

    fn parse(word: &str, among: &[Self]) -> Option<Self> {
        among.iter().copied().find(|m| m.name() == word)
    }
}

/// Whether endpoints of an ipvlan parent hear one another (`IPVLAN_F_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Flag {
    /// Directly.
    #[default]
    Bridge,
    /// Not at all.
    Private,
    /// Through a switch that sends frames back.
    Vepa,
}

impl Flag {
    /// The kernel's number.
    pub fn number(self) -> u16 {
        match self {
            Self::Bridge => 0,
            Self::Private => 1,
            Self::Vepa => 2,
        }
    }

    fn parse(word: &str) -> Option<Self> {
        match word {
            "bridge" => Some(Self::Bridge),
            "private" => Some(Self::Private),
            "vepa" => Some(Self::Vepa),
            _ => None,
        }
    }
}

/// What makes the parent when the host does not have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Made {
    /// An 802.1Q interface on another.
    Vlan {
        /// On which.
        on: String,
        /// Its tag.
        id: u16,
    },
    /// An interface that leads nowhere: containers reach only each other.
    Dummy,
}

/// Options, understood.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sublink {
    /// The host's interface that endpoints are on.
    pub parent: String,
    /// How the parent is made when it is missing; it is removed with the last network that needs it if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made: Option<Made>,
    /// Who hears whom.
    pub mode: Mode,
    /// The same, of ipvlan.
    #[serde(default)]
    pub flag: Flag,
    /// In place of the parent's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// What names of interfaces inside start with, in place of `eth`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
}

impl Sublink {
    /// Checks options. Without a parent there is still one to be named: see [`Sublink::name_dummy`].
    pub fn parse(driver: Driver, options: &BTreeMap<String, String>) -> Result<Self, SpecError> {
        let ipvlan = driver == Driver::Ipvlan;
        let mode = if ipvlan { Mode::L2 } else { Mode::Bridge };
        let mut me =
            Self { parent: String::new(), made: None, mode, flag: Flag::Bridge, mtu: None, prefix: None };
        for (name, value) in options {
            let given = Given { name, value };
            match name.as_str() {
                PARENT => me.parent = given.read(interface_name, "an interface of the host")?,
                MTU => me.mtu = Some(given.mtu()?),
                PREFIX => me.prefix = Some(given.prefix()?),
                MACVLAN_MODE if !ipvlan => {
                    let parse = |v: &str| Mode::parse(v, &Mode::MACVLAN);
                    me.mode = given.read(parse, "bridge, private, vepa or passthru")?;
                }
                IPVLAN_MODE if ipvlan => {
                    me.mode = given.read(|v| Mode::parse(v, &Mode::IPVLAN), "l2, l3 or l3s")?;
                }
                IPVLAN_FLAG if ipvlan => me.flag = given.read(Flag::parse, "bridge, private or vepa")?,
                _ if ipvlan => return Err(given.unknown("ipvlan", IPVLAN_KNOWN)),
                _ => return Err(given.unknown("macvlan", MACVLAN_KNOWN)),
            }
        }
        me.made = match me.parent.as_str() {
            "" => Some(Made::Dummy),
            parent => vlan(parent),
        };
        Ok(me)
    }

    /// Names the parent of a network that was asked for without.
    pub fn name_dummy(&mut self, short_id: &str) {
        if self.parent.is_empty() {
            self.parent = format!("dv-{short_id}");
        }
    }
}

/// `eth0.50`: the interface with the tag 50 on `eth0`. A dot in a name may also mean nothing.
fn vlan(name: &str) -> Option<Made> {
    let (on, id) = name.rsplit_once('.')?;
    let id = id.parse().ok().filter(|id| (1..=4094).contains(id))?;
    Some(Made::Vlan { on: interface_name(on)?, id })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(driver: Driver, options: &[(&str, &str)]) -> Result<Sublink, SpecError> {
        let own = |(k, v): &(&str, &str)| ((*k).to_owned(), (*v).to_owned());
        Sublink::parse(driver, &options.iter().map(own).collect())
    }

    #[test]
    fn modes_are_each_drivers_own() {
        let got = parse(Driver::Macvlan, &[("parent", "eth0"), ("macvlan_mode", "vepa")]).unwrap();
        assert_eq!((got.parent.as_str(), got.mode, got.made), ("eth0", Mode::Vepa, None));
        let got = parse(Driver::Ipvlan, &[("ipvlan_mode", "l3s"), ("ipvlan_flag", "private")]).unwrap();
        assert_eq!((got.mode, got.flag, got.made), (Mode::L3s, Flag::Private, Some(Made::Dummy)));
        assert_eq!(parse(Driver::Macvlan, &[]).unwrap().mode, Mode::Bridge);
        assert_eq!(parse(Driver::Ipvlan, &[]).unwrap().mode, Mode::L2);
        for (driver, options) in [
            (Driver::Macvlan, [("macvlan_mode", "l2")]),
            (Driver::Ipvlan, [("ipvlan_mode", "bridge")]),
            (Driver::Ipvlan, [("ipvlan_flag", "l2")]),
            (Driver::Macvlan, [("parent", "")]),
        ] {
            assert!(matches!(parse(driver, &options), Err(SpecError::Value { .. })), "{options:?}");
        }
    }

    #[test]
    fn an_unknown_option_names_the_nearest_of_the_driver() {
        for (driver, given, wanted) in [
            (Driver::Macvlan, "macvlan_mod", MACVLAN_MODE),
            (Driver::Macvlan, "ipvlan_mode", MACVLAN_MODE),
            (Driver::Ipvlan, "ipvlan_flags", IPVLAN_FLAG),
            (Driver::Ipvlan, "parrent", PARENT),
        ] {
            let Err(SpecError::Option { nearest, driver: name, .. }) = parse(driver, &[(given, "x")]) else {
                panic!("{given} was taken")
            };
            assert_eq!((nearest, name), (wanted, driver.name()));
        }
    }

    #[test]
    fn a_parent_with_a_tag_can_be_made() {
        assert_eq!(vlan("eth0.50"), Some(Made::Vlan { on: "eth0".into(), id: 50 }));
        assert_eq!(vlan("bond0.1.4094"), Some(Made::Vlan { on: "bond0.1".into(), id: 4094 }));
        for plain in ["eth0", "eth0.", "eth0.0", "eth0.4095", ".5", "eth0.x"] {
            assert_eq!(vlan(plain), None, "{plain}");
        }
    }
}
