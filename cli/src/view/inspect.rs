//! `inspect` of a container, with docker's field names.

mod limits;
mod rest;

use std::collections::BTreeMap;

use davit_contracts::network::{Endpoint, EndpointSpec, PortMapping};
use davit_contracts::runtime::{Container, ContainerSpec, NetworkSpec};
use serde_json::{Map, Value, json};

use super::container::{connections, mode, unpublished};
use super::state::{healthcheck, state_of};
use crate::output::words;
use crate::parse::port::inside;

/// docker's object.
pub fn container(c: &Container) -> Value {
    let spec = c.spec.clone().unwrap_or_default();
    let state = c.state.clone().unwrap_or_default();
    let mut out = json!({
        "Id": c.id,
        "Name": format!("/{}", c.name),
        "Created": words::rfc3339(c.created_unix_ns),
        "Path": c.argv.first().cloned().unwrap_or_default(),
        "Args": c.argv.iter().skip(1).collect::<Vec<_>>(),
        "State": state_of(&state),
        "Image": c.image_id,
        "HostnamePath": in_etc(c, "hostname"),
        "HostsPath": in_etc(c, "hosts"),
        "ResolvConfPath": in_etc(c, "resolv.conf"),
        "LogPath": c.log_path,
        "RestartCount": c.restart_count,
        "Driver": c.driver,
        "Platform": "linux",
        "MonitorPid": c.monitor_pid,
        "Config": config(c, &spec),
        "HostConfig": host_config(c, &spec),
        "Mounts": mounts(c),
        "NetworkSettings": network_settings(c, &spec.network.clone().unwrap_or_default()),
    });
    rest::complete(&mut out, c, &spec);
    out
}

/// Where a file of the container's /etc is on the host.
fn in_etc(c: &Container, name: &str) -> String {
    if c.etc_dir.is_empty() { String::new() } else { format!("{}/{name}", c.etc_dir) }
}

fn config(c: &Container, spec: &ContainerSpec) -> Value {
    let published = c.ports.iter().map(inside);
    let exposed: BTreeMap<String, Value> =
        c.exposed_ports.iter().cloned().chain(published).map(|port| (port, json!({}))).collect();
    json!({
        "Hostname": c.hostname,
        "Domainname": spec.domainname,
        "User": c.user,
        "Tty": spec.tty,
        "OpenStdin": spec.open_stdin,
        "StdinOnce": spec.stdin_once,
        "Env": c.env,
        "Cmd": spec.command,
        "Entrypoint": spec.entrypoint.as_ref().map(|e| e.values.clone()),
        "Image": c.image,
        "WorkingDir": c.working_dir,
        "Labels": spec.labels,
        "ExposedPorts": exposed,
        "StopSignal": spec.stop_signal,
        "StopTimeout": spec.stop_timeout_s,
        "Healthcheck": healthcheck(spec),
    })
}

fn host_config(c: &Container, spec: &ContainerSpec) -> Value {
    let security = spec.security.clone().unwrap_or_default();
    let network = spec.network.clone().unwrap_or_default();
    let namespaces = spec.namespaces.clone().unwrap_or_default();
    let restart = spec.restart.clone().unwrap_or_default();
    let log = spec.log.clone().unwrap_or_default();
    let binds: Vec<String> = spec
        .mounts
        .iter()
        .filter(|m| m.r#type != "tmpfs" && !m.source.is_empty())
        .map(|m| format!("{}:{}{}", m.source, m.target, if m.read_only { ":ro" } else { "" }))
        .collect();
    let tmpfs: BTreeMap<&str, &str> =
        spec.tmpfs.iter().map(|t| t.split_once(':').unwrap_or((t.as_str(), ""))).collect();
    let mut out = json!({
        "Binds": binds,
        "VolumesFrom": spec.volumes_from,
        "NetworkMode": mode(c),
        "Links": links_of_bridge(c, &network),
        "PortBindings": bindings(&network.ports),
        "PublishAllPorts": network.publish_all,
        "RestartPolicy": {
            "Name": if restart.name.is_empty() { "no" } else { &restart.name },
            "MaximumRetryCount": restart.max_retries,
        },
        "AutoRemove": spec.auto_remove,
        "LogConfig": {"Type": if log.driver.is_empty() { "json-file" } else { &log.driver }, "Config": log.options},
        "CapAdd": security.cap_add,
        "CapDrop": security.cap_drop,
        "Privileged": security.privileged,
        "SecurityOpt": security.security_opt,
        "GroupAdd": security.group_add,
        "ReadonlyRootfs": spec.read_only,
        "Dns": network.dns,
        "DnsSearch": network.dns_search,
        "DnsOptions": network.dns_options,
        "ExtraHosts": spec.extra_hosts,
        "IpcMode": if namespaces.ipc.is_empty() { "private" } else { &namespaces.ipc },
        "CgroupnsMode": if namespaces.cgroup.is_empty() { "private" } else { &namespaces.cgroup },
        "TimeMode": namespaces.time,
        "PidMode": namespaces.pid,
        "UTSMode": namespaces.uts,
        "UsernsMode": namespaces.user,
        "CgroupnsMode": if namespaces.cgroup.is_empty() { "private" } else { &namespaces.cgroup },
        "ShmSize": if spec.shm_size == 0 { 64 << 20 } else { spec.shm_size },
        "Tmpfs": tmpfs,
        "Sysctls": spec.sysctls,
        "Init": spec.init,
        "Runtime": c.runtime,
    });
    if let Value::Object(map) = &mut out {
        map.append(&mut limits::fields(spec));
    }
    out
}

fn mounts(c: &Container) -> Value {
    c.mount_points
        .iter()
        .map(|m| {
            let mut out = json!({
                "Type": m.r#type,
                "Source": m.source,
                "Destination": m.target,
                "Mode": "",
                "RW": m.rw,
                "Propagation": m.propagation,
            });
            if !m.name.is_empty() {
                out["Name"] = json!(m.name);
                out["Driver"] = json!("local");
            }
            out
        })
        .collect()
}

fn network_settings(c: &Container, asked: &NetworkSpec) -> Value {
    let shown = |e: &Endpoint| endpoint(e, &asked_for(asked, e));
    let networks: Map<String, Value> = connections(c).iter().map(|e| (e.network.clone(), shown(e))).collect();
    let mut ports = bindings(&c.ports);
    for port in unpublished(c) {
        ports[inside(&port)] = Value::Null;
    }
    let first = c.endpoints.first().map_or_else(|| shown(&Endpoint::default()), shown);
    json!({
        "Bridge": "",
        "SandboxID": c.id,
        "SandboxKey": if c.monitor_pid > 0 { format!("/proc/{}/ns/net", c.monitor_pid) } else { String::new() },
        "Ports": ports,
        "EndpointID": first["EndpointID"],
        "IPAddress": first["IPAddress"],
        "IPPrefixLen": first["IPPrefixLen"],
        "Gateway": first["Gateway"],
        "GlobalIPv6Address": first["GlobalIPv6Address"],
        "GlobalIPv6PrefixLen": first["GlobalIPv6PrefixLen"],
        "IPv6Gateway": first["IPv6Gateway"],
        "MacAddress": first["MacAddress"],
        "Networks": networks,
    })
}

/// What was asked of a connection: nothing of one that was named only.
fn asked_for(asked: &NetworkSpec, e: &Endpoint) -> EndpointSpec {
    asked.endpoints.iter().find(|spec| spec.network == e.network).cloned().unwrap_or_default()
}

/// docker's place for the links of the default network: `/db:/web/data`.
fn links_of_bridge(c: &Container, asked: &NetworkSpec) -> Value {
    let links = asked.endpoints.iter().filter(|e| e.network == "bridge").flat_map(|e| &e.links);
    let shown = links.map(|link| {
        let (other, alias) = link.split_once(':').unwrap_or((link, link));
        format!("/{other}:/{}/{alias}", c.name)
    });
    or_null(&shown.collect::<Vec<_>>())
}

/// docker's null in place of an empty list.
fn or_null(list: &[String]) -> Value {
    if list.is_empty() { Value::Null } else { json!(list) }
}

fn endpoint(e: &Endpoint, asked: &EndpointSpec) -> Value {
    let split = |cidr: &str| {
        let (ip, length) = cidr.split_once('/').unwrap_or((cidr, "0"));
        (ip.to_owned(), length.parse::<u8>().unwrap_or(0))
    };
    let ((ip, length), (ip6, length6)) = (split(&e.ip), split(&e.ip6));
    let mut ipam = Map::new();
    for (key, ip) in [("IPv4Address", &asked.ip), ("IPv6Address", &asked.ip6)] {
        if !ip.is_empty() {
            ipam.insert(key.to_owned(), json!(ip));
        }
    }
    json!({
        "IPAMConfig": if ipam.is_empty() { Value::Null } else { Value::Object(ipam) },
        "Links": if e.network == "bridge" { Value::Null } else { or_null(&asked.links) },
        "DriverOpts": if asked.options.is_empty() { Value::Null } else { json!(asked.options) },
        "GwPriority": e.gateway_priority,
        "NetworkID": e.network_id,
        "EndpointID": e.id,
        "IPAddress": ip,
        "IPPrefixLen": length,
        "Gateway": e.gateway,
        "GlobalIPv6Address": ip6,
        "GlobalIPv6PrefixLen": length6,
        "IPv6Gateway": e.gateway6,
        "MacAddress": e.mac,
        "Aliases": or_null(&asked.aliases),
        "DNSNames": or_null(&e.names),
    })
}

/// `{"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}]}`
pub fn bindings(ports: &[PortMapping]) -> Value {
    let mut out: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for p in ports {
        let ip = if p.host_ip.is_empty() { "0.0.0.0" } else { &p.host_ip };
        let host = if p.host_port == 0 { String::new() } else { p.host_port.to_string() };
        out.entry(inside(p)).or_default().push(json!({"HostIp": ip, "HostPort": host}));
    }
    json!(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use davit_contracts::runtime::State;

    #[test]
    fn addresses_are_found_where_docker_has_them() {
        let c = Container {
            id: "a".repeat(64),
            name: "web".into(),
            endpoints: vec![Endpoint {
                network: "my-bridge".into(),
                ip: "10.89.0.2/24".into(),
                gateway: "10.89.0.1".into(),
                ..Endpoint::default()
            }],
            ports: vec![PortMapping {
                host_port: 8080,
                container_port: 80,
                protocol: "tcp".into(),
                ..Default::default()
            }],
            state: Some(State { status: "running".into(), pid: 7, ..State::default() }),
            ..Container::default()
        };
        let v = container(&Container { exposed_ports: vec!["53/udp".into()], ..c });
        assert_eq!(v["Config"]["ExposedPorts"], json!({"53/udp": {}, "80/tcp": {}}));
        assert!(v["NetworkSettings"]["Ports"]["53/udp"].is_null());
        assert!(v["NetworkSettings"]["Ports"].as_object().unwrap().contains_key("53/udp"));
        assert_eq!(v["NetworkSettings"]["Networks"]["my-bridge"]["IPAddress"], "10.89.0.2");
        assert_eq!(v["NetworkSettings"]["IPPrefixLen"], 24);
        assert_eq!(v["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"], "8080");
        assert_eq!((&v["State"]["Running"], &v["Name"]), (&json!(true), &json!("/web")));
    }

    #[test]
    fn what_does_not_run_has_the_networks_that_it_will_have() {
        let on = |network: &str| EndpointSpec {
            network: network.into(),
            ip: "10.89.0.9".into(),
            ..EndpointSpec::default()
        };
        let spec = |mode: &str, endpoints: Vec<EndpointSpec>, disconnected: bool| NetworkSpec {
            mode: mode.into(),
            endpoints,
            disconnected,
            ..NetworkSpec::default()
        };
        let of = |network: NetworkSpec| {
            let spec = Some(ContainerSpec { network: Some(network), ..ContainerSpec::default() });
            container(&Container { spec, ..Container::default() })["NetworkSettings"]["Networks"].clone()
        };
        let names = |network: NetworkSpec| {
            of(network).as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(",")
        };
        for (mode, endpoints, wanted) in [
            ("", vec![], "bridge"),
            ("default", vec![], "bridge"),
            ("n", vec![], "n"),
            ("n", vec![on("m"), on("n")], "n,m"),
            ("", vec![on("m"), on("n")], "m,n"),
            ("none", vec![], "none"),
            ("host", vec![], "host"),
            ("container:web", vec![], ""),
        ] {
            let got = names(spec(mode, endpoints, false));
            let (mut got, mut wanted): (Vec<_>, Vec<_>) =
                (got.split(',').collect(), wanted.split(',').collect());
            got.sort_unstable();
            wanted.sort_unstable();
            assert_eq!(got, wanted, "{mode}");
        }
        assert_eq!(names(spec("", vec![], true)), "", "its last network was taken away");
        let n = &of(spec("n", vec![on("n")], false))["n"];
        assert_eq!(
            (&n["IPAddress"], &n["IPPrefixLen"], &n["EndpointID"]),
            (&json!(""), &json!(0), &json!(""))
        );
        assert_eq!((&n["IPAMConfig"], &n["DNSNames"]), (&json!({"IPv4Address": "10.89.0.9"}), &Value::Null));
    }

    #[test]
    fn what_was_asked_of_a_connection_stands_beside_what_it_has() {
        let on = |network: &str| EndpointSpec {
            network: network.into(),
            links: vec!["db:data".into()],
            ..EndpointSpec::default()
        };
        let front = EndpointSpec {
            aliases: vec!["a".into()],
            ip: "10.89.0.9".into(),
            options: [("k".to_owned(), "v".to_owned())].into(),
            ..on("front")
        };
        let made = |network: &str| Endpoint {
            id: format!("id-{network}"),
            network: network.into(),
            ip6: "fd00::2/64".into(),
            gateway6: "fd00::1".into(),
            names: vec!["web".into(), "a".into()],
            gateway_priority: 7,
            ..Endpoint::default()
        };
        let endpoints = vec![on("bridge"), front];
        let network = Some(NetworkSpec { endpoints, ..NetworkSpec::default() });
        let v = container(&Container {
            name: "web".into(),
            etc_dir: "/run/x".into(),
            endpoints: vec![made("front"), made("bridge"), made("plain")],
            spec: Some(ContainerSpec { network, ..ContainerSpec::default() }),
            ..Container::default()
        });
        let settings = &v["NetworkSettings"];
        let front = &settings["Networks"]["front"];
        assert_eq!(front["IPAMConfig"], json!({"IPv4Address": "10.89.0.9"}));
        assert_eq!((&front["Links"], &front["DriverOpts"]), (&json!(["db:data"]), &json!({"k": "v"})));
        assert_eq!((&front["Aliases"], &front["DNSNames"]), (&json!(["a"]), &json!(["web", "a"])));
        assert_eq!(front["GwPriority"], 7);
        let plain = settings["Networks"]["plain"].as_object().unwrap();
        for null in ["IPAMConfig", "Links", "DriverOpts", "Aliases"] {
            assert!(plain[null].is_null(), "{null}");
        }
        assert!(settings["Networks"]["bridge"]["Links"].is_null());
        assert_eq!(v["HostConfig"]["Links"], json!(["/db:/web/data"]));
        let top = ["Bridge", "EndpointID", "IPv6Gateway", "GlobalIPv6Address"].map(|k| settings[k].clone());
        assert_eq!(top, ["", "id-front", "fd00::1", "fd00::2"]);
        assert_eq!((&settings["GlobalIPv6PrefixLen"], &v["HostsPath"]), (&json!(64), &json!("/run/x/hosts")));
        let none = container(&Container::default());
        assert_eq!((&none["ResolvConfPath"], &none["HostConfig"]["Links"]), (&json!(""), &Value::Null));
    }
}
