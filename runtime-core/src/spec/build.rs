//! Puts an OCI configuration together.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use davit_contracts::runtime::{ContainerSpec, IdMap, MountPoint};

use super::host::Host;
use super::merge::Program;
use super::oci::{
    Capabilities, Config, ConsoleSize, IdMapping, Linux, Mount, Namespace, Process, Root, Seccomp,
    TimeOffset, User,
};
use super::security::{Filter, SecurityOptions};
use super::system::{self, Init};
use super::{caps, mounts, resources, seccomp, security};
use crate::error::RuntimeError;

/// Where a namespace comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Source {
    /// A new one.
    #[default]
    New,
    /// The host's.
    Host,
    /// That of a process.
    Path(PathBuf),
}

/// A user namespace that the monitor has made.
#[derive(Debug, Clone)]
pub struct Userns<'a> {
    /// Where it is.
    pub path: PathBuf,
    /// Its ids, which runtimes want to know, too.
    pub uids: &'a [IdMap],
    /// The same of groups.
    pub gids: &'a [IdMap],
}

/// Everything that decides about a configuration.
#[derive(Debug, Clone)]
pub struct Input<'a> {
    /// 64 hex.
    pub id: &'a str,
    /// As asked for.
    pub spec: &'a ContainerSpec,
    /// Merged with the image; the home directory is in `env`.
    pub program: &'a Program,
    /// Resolved in the image.
    pub user: User,
    /// The container's name for itself.
    pub hostname: &'a str,
    /// Binds and volumes with their sources on the host.
    pub points: &'a [MountPoint],
    /// The directory of `hosts`, `hostname`, `resolv.conf`.
    pub files: &'a Path,
    /// Network namespace.
    pub net: Source,
    /// pid namespace.
    pub pid: Source,
    /// ipc namespace.
    pub ipc: Source,
    /// uts namespace.
    pub uts: Source,
    /// cgroup namespace.
    pub cgroup: Source,
    /// Time namespace.
    pub time: Source,
    /// User namespace; none: the runtime's.
    pub userns: Option<Userns<'a>>,
    /// Where /dev/shm comes from; none: there is none.
    pub shm: Option<mounts::Shm>,
    /// The OCI runtime refuses sysctls of a network namespace that it runs in itself, as runc does; it runs in the container's. The monitor
    /// sets them ([`net_sysctls`]).
    pub plain_sysctls: bool,
    /// What its init is, of a system container.
    pub init: Option<Init>,
    /// The name of its OCI runtime.
    pub runtime: &'a str,
    /// Facts.
    pub host: &'a Host,
}

/// The configuration, and warnings for the person who asked.
pub fn config(input: &Input<'_>) -> Result<(Config, Vec<String>), RuntimeError> {
    let spec = input.spec;
    let mut security = spec.security.clone().unwrap_or_default();
    if input.init.is_some() {
        system::capability(&mut security, input.host.capabilities);
    }
    let options = security::options(&security)?;
    let bounding = caps::bounding(&security, input.host.capabilities)?;
    let (rlimits, warnings) = resources::rlimits(&spec.ulimits, input.host)?;
    let (devices, rules) = devices(spec, security.privileged)?;
    let seccomp = filter(&options, security.privileged, &bounding, input.host)?;
    let size = spec
        .console_size
        .first_chunk::<2>()
        .map(|[height, width]| ConsoleSize { height: *height, width: *width });
    let oom = spec.resources.as_ref().map_or(0, |r| r.oom_score_adj.max(input.host.oom_score_min));
    let process = Process {
        terminal: spec.tty,
        console_size: size.filter(|_| spec.tty),
        capabilities: Some(capabilities(bounding, &input.user)),
        user: input.user.clone(),
        args: input.program.argv.clone(),
        env: input.program.env.clone(),
        cwd: input.program.cwd.clone(),
        rlimits,
        no_new_privileges: no_new_privileges(&options),
        apparmor_profile: if options.apparmor == "unconfined" {
            String::new()
        } else {
            options.apparmor.clone()
        },
        selinux_label: security::process_label(&options, input.host),
        oom_score_adj: (oom != 0).then_some(oom),
    };
    let (masked_paths, readonly_paths) = security::system_paths(&options, security.privileged);
    let linux = Linux {
        sysctl: sysctls(input),
        resources: resources::limits(spec.resources.as_ref(), rules, input.host)?,
        cgroups_path: cgroups_path(input),
        namespaces: namespaces(input),
        time_offsets: time_offsets(input),
        uid_mappings: input.userns.as_ref().map(|u| id_mappings(u.uids)).unwrap_or_default(),
        gid_mappings: input.userns.as_ref().map(|u| id_mappings(u.gids)).unwrap_or_default(),
        devices,
        seccomp,
        masked_paths,
        readonly_paths,
        // Otherwise runc and crun would make shared mounts slaves on the way.
        rootfs_propagation: if input.points.iter().any(|p| p.propagation.ends_with("shared")) {
            "shared"
        } else {
            ""
        },
    };
    let config = Config {
        oci_version: "1.0.2",
        process,
        root: Root { path: "rootfs".into(), readonly: spec.read_only },
        // Naming a host's own namespace would rename the host.
        hostname: if input.uts == Source::New { input.hostname.to_owned() } else { String::new() },
        domainname: if input.uts == Source::New { spec.domainname.clone() } else { String::new() },
        mounts: all_mounts(input, security.privileged, options.writable_cgroups)?,
        annotations: annotations(input, &options),
        linux,
    };
    Ok((config, warnings))
}

/// Landlock is for programs that cannot gain privileges, as the kernel has it.
pub fn no_new_privileges(options: &SecurityOptions) -> bool {
    options.no_new_privileges || !options.landlock.is_empty()
}

fn annotations(input: &Input<'_>, options: &SecurityOptions) -> BTreeMap<String, String> {
    let mut out: BTreeMap<_, _> =
        input.spec.annotations.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
    if !options.landlock.is_empty() {
        out.insert(security::LANDLOCK.to_owned(), options.landlock.clone());
    }
    if input.init.is_some() {
        // Its console is for the sessions that it starts there.
        out.entry(TERMINAL.to_owned()).or_insert_with(|| "free".to_owned());
    }
    out
}

/// How davit-runner is told that a terminal is not to be the controlling one of the container's first process.
const TERMINAL: &str = "org.davit.runner.terminal";

/// A program that is not root starts without capabilities, as docker's do; it can gain what is bounding from a setuid program.
pub fn capabilities(bounding: Vec<String>, user: &User) -> Capabilities {
    let own = if user.uid == 0 { bounding.clone() } else { Vec::new() };
    Capabilities { bounding, effective: own.clone(), permitted: own }
}

/// Extra device nodes and their rules: those asked for, or all of the host's.
fn devices(
    spec: &ContainerSpec,
    privileged: bool,
) -> Result<(Vec<super::oci::Device>, Vec<super::oci::DeviceRule>), RuntimeError> {
    if privileged {
        let mut nodes = resources::devices::all_of_host();
        for text in &spec.devices {
            let asked = resources::devices::devices(text)?.into_iter().map(|(node, _)| node);
            let asked: Vec<_> = asked.collect();
            nodes.retain(|n| !asked.iter().any(|a| a.path == n.path));
            nodes.extend(asked);
        }
        return Ok((nodes, vec![resources::devices::allow_all()]));
    }
    let mut nodes = Vec::new();
    let mut rules = Vec::new();
    for text in &spec.devices {
        for (node, rule) in resources::devices::devices(text)? {
            nodes.push(node);
            rules.push(rule);
        }
    }
    Ok((nodes, rules))
}

fn filter(
    options: &SecurityOptions,
    privileged: bool,
    bounding: &[String],
    host: &Host,
) -> Result<Option<Seccomp>, RuntimeError> {
    Ok(match &options.filter {
        Filter::Default if !privileged => Some(seccomp::default_profile(bounding)),
        Filter::Default | Filter::Unconfined => None,
        Filter::Given(json) => Some(seccomp::profile::resolve(json, bounding, host.kernel)?),
    })
}

fn sysctls(input: &Input<'_>) -> BTreeMap<String, String> {
    let own_net = matches!(&input.net, Source::Path(_));
    let mut out = if own_net {
        net_sysctls(input.spec, input.host.rootless || input.userns.is_some())
    } else {
        BTreeMap::new()
    };
    if input.plain_sysctls {
        out.clear();
    }
    let others = input.spec.sysctls.iter().filter(|(k, _)| !is_of_net(k));
    out.extend(others.map(|(k, v)| (k.clone(), v.clone())));
    out
}

/// docker's two: programs without privileges may bind low ports and send echo requests, inside the container; then what was asked for.
///
/// `mapped`: in a user namespace, where that range of groups does not exist.
pub fn net_sysctls(spec: &ContainerSpec, mapped: bool) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    out.insert("net.ipv4.ip_unprivileged_port_start".into(), "0".into());
    if !mapped {
        out.insert("net.ipv4.ping_group_range".into(), "0 2147483647".into());
    }
    out.extend(spec.sysctls.iter().filter(|(k, _)| is_of_net(k)).map(|(k, v)| (k.clone(), v.clone())));
    out
}

fn is_of_net(key: &str) -> bool {
    key.starts_with("net.") || key.starts_with("net/")
}

fn cgroups_path(input: &Input<'_>) -> String {
    if input.host.rootless && input.spec.cgroup_parent.is_empty() {
        return String::new();
    }
    let parent = match input.spec.cgroup_parent.trim_matches('/') {
        "" => "davit",
        parent => parent,
    };
    format!("/{parent}/{}", input.id)
}

fn namespaces(input: &Input<'_>) -> Vec<Namespace> {
    let sources = [
        ("pid", &input.pid),
        ("network", &input.net),
        ("ipc", &input.ipc),
        ("uts", &input.uts),
        ("mount", &Source::New),
        ("cgroup", &input.cgroup),
        ("time", &input.time),
    ];
    let of = |(kind, source): (&'static str, &Source)| match source {
        Source::New => Some(Namespace { kind, path: None }),
        Source::Path(path) => Some(Namespace { kind, path: Some(path.display().to_string()) }),
        Source::Host => None,
    };
    let user = input.userns.as_ref().map(|u| Source::Path(u.path.clone()));
    sources.into_iter().chain(user.as_ref().map(|u| ("user", u))).filter_map(of).collect()
}

fn id_mappings(map: &[IdMap]) -> Vec<IdMapping> {
    map.iter().map(|m| IdMapping { container_id: m.inside, host_id: m.outside, size: m.count }).collect()
}

fn time_offsets(input: &Input<'_>) -> BTreeMap<String, TimeOffset> {
    const SECOND: i64 = 1_000_000_000;
    let asked = input.spec.namespaces.iter().flat_map(|n| &n.time_offsets_ns);
    let offset = |ns: i64| TimeOffset {
        secs: ns.div_euclid(SECOND),
        nanosecs: u32::try_from(ns.rem_euclid(SECOND)).expect("less than a second"),
    };
    asked.map(|(clock, ns)| (clock.clone(), offset(*ns))).collect()
}

fn all_mounts(
    input: &Input<'_>,
    privileged: bool,
    writable_cgroups: bool,
) -> Result<Vec<Mount>, RuntimeError> {
    let mut all = mounts::all(&mounts::Input {
        spec: input.spec,
        points: input.points,
        files: input.files,
        host_network: input.net == Source::Host,
        shm: input.shm.as_ref(),
        rootless: input.host.rootless,
        privileged,
        writable_cgroups,
    })?;
    if let Some(init) = input.init {
        system::mount(init, input.host.rootless, input.runtime, &mut all)?;
    }
    Ok(all)
}

#[cfg(test)]
mod tests;
