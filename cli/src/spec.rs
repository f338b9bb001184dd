//! From `run`'s flags to the contract's container.

mod health;
mod limits;
mod network;

use std::collections::{HashMap, HashSet};
use std::env;
use std::fs;
use std::path::PathBuf;

use davit_contracts::id::check_name;
use davit_contracts::runtime::{ContainerSpec, LogConfig, MountSpec, Namespaces, RestartPolicy, StringList};
use davit_contracts::storage::Platform;

use crate::args::run::CreateArgs;
use crate::parse;

/// What was asked for, or what is wrong with it.
pub fn build(args: &CreateArgs) -> Result<ContainerSpec, String> {
    let (image, command) = args.image_and_command.split_first().ok_or("the image is missing")?;
    if image.is_empty() {
        return Err("the image is missing: its name is empty".into());
    }
    crate::args::flags::refuse_unknown("run", image)?;
    // docker's names may begin with a slash.
    let name = args.name.as_deref().map(|name| name.strip_prefix('/').unwrap_or(name));
    if let Some(name) = name {
        check_name(name).map_err(|e| e.to_string())?;
    }
    let restart = restart(args)?;
    let system = args.system.as_deref().is_some_and(|init| init != "off");
    Ok(ContainerSpec {
        name: name.unwrap_or_default().to_owned(),
        image: image.clone(),
        command: command.to_vec(),
        entrypoint: args.entrypoint.as_ref().map(|program| StringList {
            values: if program.is_empty() { Vec::new() } else { vec![program.clone()] },
        }),
        env: environment(&args.env, &args.env_file)?,
        working_dir: working_dir(args.workdir.as_deref())?,
        user: args.user.clone().unwrap_or_default(),
        hostname: args.hostname.clone().unwrap_or_default(),
        domainname: args.domainname.clone().unwrap_or_default(),
        tty: args.tty || system,
        open_stdin: args.interactive || system,
        system: if system { args.system.clone().unwrap_or_default() } else { String::new() },
        stdin_once: false,
        read_only: args.read_only,
        auto_remove: args.rm,
        labels: labels(&args.label, &args.label_file)?,
        annotations: args.annotation.iter().cloned().collect(),
        mounts: mounts(args)?,
        volumes_from: args.volumes_from.iter().map(|v| volumes_from(v)).collect::<Result<_, _>>()?,
        network: Some(network::network(args)?),
        resources: Some(limits::resources(&args.limits)?),
        security: Some(limits::security(args)?),
        namespaces: Some(namespaces(args)),
        restart: Some(restart),
        log: Some(LogConfig {
            driver: args.log_driver.clone().unwrap_or_default(),
            options: args.log_opt.iter().cloned().collect(),
        }),
        stop_signal: args.stop_signal.clone().unwrap_or_default(),
        stop_timeout_s: args.stop_timeout,
        runtime: args.runtime.clone().unwrap_or_default(),
        init: args.init,
        pod: args.pod.clone().unwrap_or_default(),
        health: health::health(args)?,
        sysctls: args.sysctl.iter().cloned().collect(),
        ulimits: args.limits.ulimit.iter().map(|u| parse::ulimit::ulimit(u)).collect::<Result<_, _>>()?,
        devices: args.device.clone(),
        extra_hosts: args.add_host.iter().map(|h| extra_host(h)).collect::<Result<_, _>>()?,
        cgroup_parent: args.limits.cgroup_parent.clone().unwrap_or_default(),
        shm_size: args.shm_size.unwrap_or(0),
        tmpfs: args.tmpfs.iter().map(|t| parse::mount::tmpfs(t)).collect::<Result<_, _>>()?,
        ..ContainerSpec::default()
    })
}

/// The network flags of a pod, which mean what those of a container mean.
pub fn pod_network(
    args: &crate::args::pod::CreateArgs,
) -> Result<davit_contracts::runtime::NetworkSpec, String> {
    network::network(&CreateArgs {
        publish: args.publish.clone(),
        network: args.network.clone(),
        network_alias: args.network_alias.clone(),
        ip: args.ip,
        ip6: args.ip6,
        mac_address: args.mac_address.clone(),
        dns: args.dns.clone(),
        dns_search: args.dns_search.clone(),
        dns_option: args.dns_option.clone(),
        ..CreateArgs::default()
    })
}

/// Labels of files first, so that `--label` wins.
fn labels(given: &[(String, String)], files: &[String]) -> Result<HashMap<String, String>, String> {
    let mut out = HashMap::new();
    for file in files {
        let text = fs::read_to_string(file)
            .map_err(|e| format!("cannot read the label-file {file}: {}", crate::error::plain(&e)))?;
        let lines = text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#'));
        for line in lines {
            let (key, value) = parse::env::label(line).map_err(|e| format!("the label-file {file}: {e}"))?;
            out.insert(key, value);
        }
    }
    out.extend(given.iter().cloned());
    Ok(out)
}

/// All variables: files first, `-e` after them, so that `-e` wins.
pub fn environment(env: &[String], files: &[String]) -> Result<Vec<String>, String> {
    let own = |key: &str| env::var(key).ok();
    let mut out = Vec::new();
    for file in files {
        let text = fs::read_to_string(file)
            .map_err(|e| format!("cannot read the env-file {file}: {}", crate::error::plain(&e)))?;
        out.extend(parse::env::file(&text, own).map_err(|e| format!("the env-file {file}, {e}"))?);
    }
    for text in env {
        out.extend(parse::env::variable(text, own)?);
    }
    Ok(out)
}

fn working_dir(dir: Option<&str>) -> Result<String, String> {
    match dir {
        None => Ok(String::new()),
        Some(dir) if dir.starts_with('/') => Ok(dir.to_owned()),
        Some(dir) => Err(format!("the working directory '{dir}' is not an absolute path in the container")),
    }
}

fn mounts(args: &CreateArgs) -> Result<Vec<MountSpec>, String> {
    let cwd = env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    let home = env::var_os("HOME").filter(|h| !h.is_empty()).map(PathBuf::from);
    let mut out = Vec::new();
    for text in &args.volume {
        out.push(parse::volume::volume(text, &cwd, home.as_deref())?);
    }
    for text in &args.mount {
        out.push(parse::mount::mount(text)?);
    }
    let mut targets: HashSet<&str> = HashSet::new();
    for mount in &out {
        if !targets.insert(&mount.target) {
            return Err(format!("two mounts have the target {}", mount.target));
        }
    }
    Ok(out)
}

/// `CONTAINER[:ro|rw]`, with SELinux's letters that mean nothing here.
fn volumes_from(text: &str) -> Result<String, String> {
    let (name, mode) = text.split_once(':').unwrap_or((text, ""));
    let known = mode.split(',').all(|m| matches!(m, "" | "ro" | "rw" | "z" | "Z"));
    if name.is_empty() || !known {
        return Err(format!(
            "'{text}' is no --volumes-from: CONTAINER, CONTAINER:ro or CONTAINER:rw is expected"
        ));
    }
    Ok(if mode.split(',').any(|m| m == "ro") { format!("{name}:ro") } else { name.to_owned() })
}

fn namespaces(args: &CreateArgs) -> Namespaces {
    let text = |o: &Option<String>| o.clone().unwrap_or_default();
    Namespaces {
        pid: text(&args.pid),
        ipc: text(&args.ipc),
        uts: text(&args.uts),
        user: text(&args.userns),
        cgroup: text(&args.cgroupns),
        time: text(&args.time),
        time_offsets_ns: args.time_offset.iter().cloned().collect(),
        uid_map: args.uidmap.clone(),
        gid_map: args.gidmap.clone(),
    }
}

fn restart(args: &CreateArgs) -> Result<RestartPolicy, String> {
    let policy = policy(args.restart.as_deref().unwrap_or("no"))?;
    if args.rm && policy.name != "no" {
        return Err("conflicting options: --restart and --rm".into());
    }
    Ok(policy)
}

/// `--restart`
pub fn policy(text: &str) -> Result<RestartPolicy, String> {
    let (name, retries) = text.split_once(':').unwrap_or((text, ""));
    let max_retries = match retries {
        "" if !text.ends_with(':') => Ok(0),
        n if name == "on-failure" => n.parse().map_err(|_| ()),
        _ => Err(()),
    };
    match (name, max_retries) {
        ("" | "no", Ok(_)) => Ok(RestartPolicy { name: "no".into(), max_retries: 0 }),
        ("on-failure" | "always" | "unless-stopped", Ok(max_retries)) => {
            Ok(RestartPolicy { name: name.to_owned(), max_retries })
        }
        _ => Err(format!("'{text}' is no restart policy: no, on-failure[:N], always or unless-stopped")),
    }
}

/// `NAME:ADDRESS` of --add-host.
pub fn extra_host(text: &str) -> Result<String, String> {
    let (name, ip) = text.split_once([':', '=']).unwrap_or((text, ""));
    let ip = ip.strip_prefix('[').and_then(|i| i.strip_suffix(']')).unwrap_or(ip);
    let known = ip == "host-gateway" || ip.parse::<std::net::IpAddr>().is_ok();
    if name.is_empty() || name.contains('#') || !is_word(name) || !known {
        return Err(format!("{text:?} is no line of /etc/hosts: NAME:ADDRESS is expected"));
    }
    Ok(format!("{name}:{ip}"))
}

/// Whether it can stand in a file of lines and words.
fn is_word(text: &str) -> bool {
    !text.chars().any(|c| c.is_whitespace() || c.is_control())
}

/// `linux/arm64/v8`, `linux/amd64` or `arm64`.
pub fn platform(text: Option<&str>) -> Result<Option<Platform>, String> {
    let Some(text) = text else { return Ok(None) };
    let parts: Vec<&str> = text.split('/').collect();
    let (os, architecture, variant) = match parts[..] {
        [architecture] => ("linux", architecture, ""),
        [os, architecture] => (os, architecture, ""),
        [os, architecture, variant] => (os, architecture, variant),
        _ => return Err(format!("'{text}' is no platform: os/architecture is expected")),
    };
    if os.is_empty() || architecture.is_empty() {
        return Err(format!("'{text}' is no platform: os/architecture is expected"));
    }
    let architecture = match architecture {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    Ok(Some(Platform { os: os.into(), architecture: architecture.into(), variant: variant.into() }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    fn spec(line: &str) -> Result<ContainerSpec, String> {
        let words = ["davit", "create"].into_iter().chain(line.split(' '));
        let cli = crate::args::Cli::try_parse_from(words).map_err(|e| e.to_string())?;
        match cli.command {
            crate::args::Command::Container(c) => match *c {
                crate::args::container::ContainerCommand::Create(args) => build(&args),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn flags_end_at_the_image() {
        let s = spec("-it --rm img sh -c -x --rm").unwrap();
        assert_eq!((s.image.as_str(), s.command.join(" ").as_str()), ("img", "sh -c -x --rm"));
        assert!(s.tty && s.open_stdin && s.auto_remove);
        assert_eq!(spec("img --help").unwrap().command, ["--help"]);
        assert_eq!(spec("-h web img").unwrap().hostname, "web");
    }

    #[test]
    fn a_system_container_has_a_console() {
        let s = spec("--system img /sbin/init").unwrap();
        assert_eq!((s.system.as_str(), s.tty, s.open_stdin), ("auto", true, true));
        assert_eq!(spec("--system=runit img").unwrap().system, "runit");
        assert!(!spec("--system=off img").unwrap().tty && spec("--system=upstart img").is_err());
    }

    #[test]
    fn an_empty_entrypoint_is_none_at_all() {
        let line = ["davit", "create", "--entrypoint", "", "img"];
        let cli = crate::args::Cli::try_parse_from(line).unwrap();
        let crate::args::Command::Container(c) = cli.command else { panic!() };
        let crate::args::container::ContainerCommand::Create(args) = *c else { panic!() };
        assert_eq!(build(&args).unwrap().entrypoint, Some(StringList { values: Vec::new() }));
        assert_eq!(spec("--entrypoint /x img").unwrap().entrypoint.unwrap().values, ["/x"]);
        assert_eq!(spec("img").unwrap().entrypoint, None);
    }

    #[test]
    fn networks_ports_and_names() {
        let n = spec("--net my-bridge --network-alias a -p 80:80 -p 53:53/udp img").unwrap().network.unwrap();
        assert_eq!((n.mode.as_str(), n.ports.len()), ("my-bridge", 2));
        assert_eq!(
            (n.endpoints[0].network.as_str(), n.endpoints[0].aliases.as_slice()),
            ("my-bridge", &["a".to_owned()][..])
        );
        assert!(spec("img").unwrap().network.unwrap().endpoints.is_empty());
        assert!(spec("--net host --network-alias a img").is_err());
        assert!(spec("--net none --net x img").is_err());
        let n = spec("--net a --net b img").unwrap().network.unwrap();
        assert_eq!(n.endpoints.iter().map(|e| e.network.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn limits_and_policies() {
        let s = spec("-m 64m --cpus 0.5 --pids-limit -1 --ulimit nofile=10:20 --restart on-failure:3 img")
            .unwrap();
        let r = s.resources.unwrap();
        assert_eq!((r.memory, r.nano_cpus, r.pids_limit), (64 << 20, 500_000_000, 0));
        assert_eq!(s.restart.unwrap().max_retries, 3);
        assert_eq!(s.ulimits[0].hard, 20);
        for bad in [
            "-m 1m img",
            "--restart sometimes img",
            "--restart always:3 img",
            "--rm --restart always img",
            "-w rel img",
            "--name -x img",
            "--add-host x img",
            "-v /a:/t -v /b:/t img",
            "-m x img",
            "--pull now img",
            "--volumes-from a:x img",
            "--volumes-from :ro img",
            "--volume-driver nfs img",
        ] {
            assert!(spec(bad).is_err(), "{bad}");
        }
        assert_eq!(
            spec("--add-host db:10.0.0.1 --add-host v:[::1] img").unwrap().extra_hosts,
            ["db:10.0.0.1", "v:::1"]
        );
    }

    #[test]
    fn a_host_of_etc_hosts_is_one_word() {
        for bad in
            ["a\n192.0.2.1 b:10.0.0.1", "a b:10.0.0.1", "a\r:10.0.0.1", "#a:10.0.0.1", "a\u{b}:10.0.0.1"]
        {
            let e = extra_host(bad).unwrap_err();
            assert!(!e.contains('\n') && e.contains("NAME:ADDRESS"), "{e}");
        }
    }

    #[test]
    fn volumes_of_others() {
        assert_eq!(spec("--volumes-from a --volumes-from b:ro,z img").unwrap().volumes_from, ["a", "b:ro"]);
    }

    #[test]
    fn platforms() {
        let p = platform(Some("linux/aarch64")).unwrap().unwrap();
        assert_eq!((p.os.as_str(), p.architecture.as_str()), ("linux", "arm64"));
        assert!(platform(Some("a/b/c/d")).is_err());
        assert_eq!(platform(None).unwrap(), None);
    }
}
