//! Parts of the address space where no network of ours can be: routers, kernels and programs give them other meanings.

use ipnet::IpNet;

use super::pools::overlap;

/// The parts, and what they are (RFC 6890, RFC 4291).
const PARTS: [(&str, &str); 9] = [
    ("0.0.0.0/8", "of this host on this network"),
    ("127.0.0.0/8", "of the loopback"),
    ("169.254.0.0/16", "link-local, which every interface may give itself"),
    ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/4", "reserved and not routed"),
    ("::/127", "of the loopback"),
    ("::ffff:0:0/96", "IPv4's, mapped to IPv6"),
    ("fe80::/10", "link-local, which every interface gives itself"),
    ("ff00::/8", "multicast"),
];

/// What stands against a subnet, when something does.
pub fn against(subnet: &IpNet) -> Option<&'static str> {
    let meets = |text: &str| overlap(&text.parse().expect("the table holds subnets"), subnet);
    PARTS.iter().find(|(part, _)| meets(part)).map(|(_, what)| *what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_addresses_are_no_network_s() {
        let of = |text: &str| against(&text.parse().unwrap());
        for bad in [
            "0.0.0.0/24",
            "127.1.0.0/16",
            "169.254.7.0/24",
            "169.254.0.0/15",
            "224.0.0.0/24",
            "239.1.0.0/16",
            "240.0.0.0/24",
            "255.255.255.0/24",
            "::/64",
            "::ffff:10.1.0.0/112",
            "fe80::/64",
            "febf::/64",
            "ff02::/64",
            "::/0",
        ] {
            assert!(of(bad).is_some(), "{bad}");
        }
        for good in
            ["10.0.0.0/8", "172.16.0.0/12", "192.168.1.0/24", "100.64.0.0/10", "fd00::/8", "2001:db8::/32"]
        {
            assert_eq!(of(good), None, "{good}");
        }
    }
}
