//! `davit network create`.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read as _;
use std::net::IpAddr;

use davit_contracts::id;
use davit_contracts::network::{CreateNetworkRequest, RemoveNetworkRequest, SetPolicyRequest, Subnet};
use ipnet::IpNet;

use crate::app::App;
use crate::args::flags::nearest_of;
use crate::args::network::CreateArgs;
use crate::error::{Failure, Outcome};
use crate::output;

/// `davit network create`
pub async fn create(app: &App, args: &CreateArgs) -> Outcome {
    refuse_others(args)?;
    check_ipv6(args)?;
    id::check_name(&args.name).map_err(|e| e.to_string())?;
    let mut options: HashMap<String, String> = args.opt.iter().cloned().collect();
    let cni_config = match options.remove("conflist") {
        Some(path) if args.driver == "cni" => conflist(&path)?,
        Some(_) => return Err("'-o conflist=' goes with '-d cni' only".to_owned().into()),
        None => String::new(),
    };
    let request = CreateNetworkRequest {
        name: args.name.clone(),
        driver: args.driver.clone(),
        subnets: subnets(&args.subnet, &args.gateway, &args.ip_range, &args.aux_address)?,
        ipv6: args.ipv6.unwrap_or(false),
        internal: args.internal,
        attachable: args.attachable,
        options,
        labels: args.label.iter().cloned().collect(),
        disable_dns: args.disable_dns,
        cni_config,
        disable_ipv4: !args.ipv4,
    };
    let network = app.network(app.networks().await?.create(request)).await?;
    if !args.policy.is_empty() || args.policy_default != "allow" {
        let set = SetPolicyRequest {
            network: network.id.clone(),
            rules: args.policy.clone(),
            default_action: args.policy_default.clone(),
        };
        if let Err(e) = app.network(app.networks().await?.set_policy(set)).await {
            let undo = RemoveNetworkRequest { name: network.id, force: false };
            // What went wrong first is the answer, whatever becomes of the undoing.
            if let Err(left) = app.network(app.networks().await?.remove(undo)).await {
                left.tell();
            }
            return Err(e);
        }
    }
    output::line(network.id);
    Ok(())
}

/// The largest configuration list that netd takes.
const LARGEST_CONFLIST: u64 = 1 << 20;

/// Reads the CNI configuration list of a cni network.
fn conflist(path: &str) -> Result<String, String> {
    let read = || -> std::io::Result<String> {
        let mut text = String::new();
        File::open(path)?.take(LARGEST_CONFLIST + 1).read_to_string(&mut text)?;
        Ok(text)
    };
    match read() {
        Ok(text) if text.len() as u64 > LARGEST_CONFLIST => Err(format!("{path} is larger than 1 MiB")),
        Ok(text) => Ok(text),
        Err(e) => Err(format!("cannot read the configuration list {path}: {e}")),
    }
}

/// A subnet says by itself which version it is of; a flag that says no to it is meant, as `--ipv4=false` is.
fn check_ipv6(args: &CreateArgs) -> Result<(), String> {
    match args.subnet.iter().find(|net| net.addr().is_ipv6()) {
        Some(net) if args.ipv6 == Some(false) => {
            Err(format!("a network without IPv6 cannot have the IPv6 subnet {net}"))
        }
        _ => Ok(()),
    }
}

/// Puts gateways, ranges and reserved addresses to the subnet that holds them.
fn subnets(
    nets: &[IpNet],
    gateways: &[IpAddr],
    ranges: &[IpNet],
    aux: &[(String, String)],
) -> Result<Vec<Subnet>, String> {
    let mut out: Vec<Subnet> =
        nets.iter().map(|net| Subnet { subnet: net.to_string(), ..Subnet::default() }).collect();
    let home = |what: &str, inside: &dyn Fn(&IpNet) -> bool| {
        nets.iter().position(inside).ok_or_else(|| match nets {
            [] => format!("{what} is of no subnet: --subnet has to be given too"),
            _ => format!("{what} is in none of the subnets"),
        })
    };
    for gateway in gateways {
        let n = home(&format!("the gateway {gateway}"), &|net| net.contains(gateway))?;
        if !out[n].gateway.is_empty() {
            return Err(format!("the subnet {} has two gateways", out[n].subnet));
        }
        out[n].gateway = gateway.to_string();
    }
    for range in ranges {
        let n = home(&format!("the range {range}"), &|net| net.contains(range))?;
        if !out[n].ip_range.is_empty() {
            return Err(format!("the subnet {} has two ranges", out[n].subnet));
        }
        out[n].ip_range = range.to_string();
    }
    for (name, address) in aux {
        let ip: IpAddr = address.parse().map_err(|_| format!("'{address}' is not an address"))?;
        let n = home(&format!("the address {ip}"), &|net| net.contains(&ip))?;
        let same = out[n].aux_addresses.iter().find(|(other, at)| *other != name && **at == ip.to_string());
        if let Some((other, _)) = same {
            return Err(format!("the auxiliary addresses '{other}' and '{name}' are both {ip}"));
        }
        let before = out[n].aux_addresses.insert(name.clone(), ip.to_string());
        if let Some(other) = before.filter(|other| *other != ip.to_string()) {
            return Err(format!("the auxiliary address '{name}' is both {other} and {ip}"));
        }
    }
    Ok(out)
}

/// docker's words for what there is in one form only here: that form is taken, others are refused by name.
fn refuse_others(args: &CreateArgs) -> Outcome {
    let no = |text: String| Err(Failure::Usage(text));
    if args.ipam_driver != "default" {
        return no(format!(
            "there is no IPAM driver '{}': addresses are given by davit-netd, whose driver is 'default'",
            args.ipam_driver
        ));
    }
    if let Some((name, _)) = args.ipam_opt.first() {
        let near = nearest_of(name, ["subnet", "gateway", "ip-range", "aux-address"]);
        let meant = near.map_or_else(String::new, |flag| format!(" (is --{flag} meant?)"));
        return no(format!("the IPAM driver 'default' has no option '{name}'{meant}"));
    }
    match args.scope.as_str() {
        "local" => {}
        "swarm" | "global" => {
            return no(format!(
                "networks of scope '{}' span several hosts, which davit's do not: only 'local' is supported",
                args.scope
            ));
        }
        other => return no(format!("'{other}' is no scope of a network: only 'local' is supported")),
    }
    for (given, flag) in [
        (args.config_only, "--config-only"),
        (args.config_from.is_some(), "--config-from"),
        (args.ingress, "--ingress"),
    ] {
        if given {
            return no(format!(
                "{flag} is for networks of a swarm, and not supported: give the options to this network itself"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateways_find_their_subnets() {
        let nets = ["10.0.0.0/24".parse().unwrap(), "fd00::/64".parse().unwrap()];
        let got = subnets(
            &nets,
            &["fd00::1".parse().unwrap(), "10.0.0.1".parse().unwrap()],
            &["10.0.0.128/25".parse().unwrap()],
            &[("printer".into(), "10.0.0.9".into())],
        )
        .unwrap();
        assert_eq!((got[0].subnet.as_str(), got[0].gateway.as_str()), ("10.0.0.0/24", "10.0.0.1"));
        assert_eq!((got[0].ip_range.as_str(), got[1].gateway.as_str()), ("10.0.0.128/25", "fd00::1"));
        assert_eq!(got[0].aux_addresses["printer"], "10.0.0.9");
        assert!(subnets(&nets, &["10.1.0.1".parse().unwrap()], &[], &[]).is_err());
        for (gateways, ranges) in
            [(vec!["10.1.0.1".parse().unwrap()], vec![]), (vec![], vec!["10.1.0.0/25".parse().unwrap()])]
        {
            let e = subnets(&[], &gateways, &ranges, &[]).unwrap_err();
            assert!(e.contains("--subnet has to be given"), "{e}");
        }
        let twice = [("a".to_owned(), "10.0.0.9".to_owned()), ("a".to_owned(), "10.0.0.9".to_owned())];
        assert!(subnets(&nets, &[], &[], &twice).is_ok());
    }

    #[test]
    fn nothing_is_given_twice() {
        let nets = ["10.0.0.0/24".parse().unwrap()];
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let ranges = ["10.0.0.0/25", "10.0.0.128/25"].map(|r| r.parse().unwrap());
        let aux = [("a".to_owned(), "10.0.0.8".to_owned()), ("a".to_owned(), "10.0.0.9".to_owned())];
        let two_names = [("a".to_owned(), "10.0.0.8".to_owned()), ("b".to_owned(), "10.0.0.8".to_owned())];
        for (got, why) in [
            (subnets(&nets, &[ip("10.0.0.1"), ip("10.0.0.2")], &[], &[]), "two gateways"),
            (subnets(&nets, &[], &ranges, &[]), "two ranges"),
            (subnets(&nets, &[], &[], &aux), "both 10.0.0.8 and 10.0.0.9"),
            (subnets(&nets, &[], &[], &two_names), "'a' and 'b' are both 10.0.0.8"),
        ] {
            let e = got.unwrap_err();
            assert!(e.contains(why), "{e}");
        }
    }

    use crate::args::switches;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: CreateArgs,
    }

    #[test]
    fn no_ipv6_means_no_ipv6_subnet() {
        let of = |line: &str| {
            let words = ["create"].into_iter().chain(line.split_whitespace()).chain(["n"]);
            check_ipv6(&<Line as clap::Parser>::try_parse_from(words).unwrap().args)
        };
        assert!(of("--ipv6=false --subnet fd00:2::/64").unwrap_err().contains("fd00:2::/64"));
        for line in
            ["--subnet fd00:2::/64", "--ipv6 --subnet fd00:2::/64", "--ipv6=false --subnet 10.2.0.0/24"]
        {
            assert_eq!(of(line), Ok(()), "{line}");
        }
    }

    #[test]
    fn dockers_other_forms_are_refused_by_name() {
        let of = |line: &str| {
            let words = ["create"].into_iter().chain(line.split_whitespace()).chain(["n"]);
            match refuse_others(&switches::parse::<Line>(words.map(Into::into)).unwrap().args) {
                Err(Failure::Usage(text)) => text,
                other => format!("{other:?}"),
            }
        };
        assert_eq!(of("--ipam-driver default --scope local --config-only=false"), "Ok(())");
        for (line, words) in [
            ("--ipam-driver dhcp", ["'dhcp'", "'default'"]),
            ("--ipam-opt subnets=10.0.0.0/24", ["'subnets'", "--subnet"]),
            ("--ipam-opt foo=bar", ["'foo'", "no option"]),
            ("--scope swarm", ["'swarm'", "'local'"]),
            ("--scope everywhere", ["'everywhere'", "'local'"]),
            ("--config-from template", ["--config-from", "swarm"]),
            ("--config-only", ["--config-only", "swarm"]),
            ("--ingress", ["--ingress", "swarm"]),
        ] {
            let text = of(line);
            assert!(words.iter().all(|w| text.contains(w)), "{line}: {text}");
        }
    }
}
