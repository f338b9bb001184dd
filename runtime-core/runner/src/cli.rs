//! The command line, as runc's: `davit-runner [global options] COMMAND [options] [arguments]`. Pure: strings in, [`Invocation`] out.
//!
//! Options are Go's: `--name value`, `--name=value`, one dash or two; the first word that is no option ends them.

use std::path::PathBuf;
use std::time::Duration;

use crate::error::{Error, Result};

pub mod options;

use options::{Options, parse};

/// The text of `--help`.
pub const HELP: &str = include_str!("cli/help.txt");

/// Options before the command.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Global {
    /// Where containers' states are.
    pub root: PathBuf,
    /// Where errors are written besides stderr.
    pub log: Option<PathBuf>,
    /// One JSON object a line.
    pub log_json: bool,
    /// Asked for systemd's cgroup driver.
    pub systemd_cgroup: bool,
}

/// Everything that was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    /// Options before the command.
    pub global: Global,
    /// What to do.
    pub command: Command,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Make a container up to the point where its program would start.
    Create(Create),
    /// Let its program start.
    Start {
        /// Which.
        id: String,
    },
    /// Create, start, wait, delete.
    Run {
        /// What create takes.
        create: Create,
        /// Do not wait.
        detach: bool,
        /// Leave the container's state after its end.
        keep: bool,
    },
    /// Print the state as JSON.
    State {
        /// Which.
        id: String,
    },
    /// Signal its first process or all.
    Kill {
        /// Which.
        id: String,
        /// Name or number.
        signal: String,
        /// Every process in its cgroup.
        all: bool,
    },
    /// Remove what is left of it.
    Delete {
        /// Which.
        ids: Vec<String>,
        /// Kill it first; no error when there is none.
        force: bool,
    },
    /// Another process in it.
    Exec(Box<Exec>),
    /// Freeze.
    Pause {
        /// Which.
        id: String,
    },
    /// Thaw.
    Resume {
        /// Which.
        id: String,
    },
    /// Its processes.
    Ps {
        /// Which.
        id: String,
        /// Only the pids, as JSON.
        json: bool,
        /// Passed to ps(1).
        args: Vec<String>,
    },
    /// All containers below the root directory.
    List {
        /// As JSON.
        json: bool,
        /// Only ids.
        quiet: bool,
    },
    /// Write a template config.json.
    Spec {
        /// Where.
        bundle: PathBuf,
        /// With a user namespace.
        rootless: bool,
    },
    /// Print what its cgroups count.
    Events {
        /// Which.
        id: String,
        /// Once, not until its end.
        once: bool,
        /// Time between two.
        interval: Duration,
    },
    /// What this runtime can do, as JSON.
    Features,
    /// Change limits.
    Update(Box<Update>),
    /// Print text and end.
    Print(String),
}

/// Options of create and run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Create {
    /// The new container's id.
    pub id: String,
    /// Where config.json is.
    pub bundle: PathBuf,
    /// Gets the first process's pid.
    pub pid_file: Option<PathBuf>,
    /// Gets the terminal's master.
    pub console_socket: Option<PathBuf>,
    /// chroot instead of pivot_root (an initramfs).
    pub no_pivot: bool,
    /// Descriptors 3.. that the program gets.
    pub preserve_fds: u32,
    /// Do not give it an own session keyring.
    pub no_new_keyring: bool,
}

/// Options of exec.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exec {
    /// Which container.
    pub id: String,
    /// A process object.
    pub process: Option<PathBuf>,
    /// argv when there is none.
    pub args: Vec<String>,
    /// Gets the pid.
    pub pid_file: Option<PathBuf>,
    /// Gets the terminal's master.
    pub console_socket: Option<PathBuf>,
    /// Do not wait.
    pub detach: bool,
    /// With a terminal.
    pub tty: bool,
    /// Working directory.
    pub cwd: Option<PathBuf>,
    /// More environment.
    pub env: Vec<String>,
    /// `uid[:gid]`.
    pub user: Option<String>,
    /// More groups.
    pub additional_gids: Vec<u32>,
    /// More capabilities.
    pub caps: Vec<String>,
    /// Set no_new_privs.
    pub no_new_privs: bool,
    /// AppArmor profile.
    pub apparmor: Option<String>,
    /// Descriptors 3.. that the program gets.
    pub preserve_fds: u32,
}

/// Options of update.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Update {
    /// Which container.
    pub id: String,
    /// A resources object; `-`: stdin.
    pub resources: Option<PathBuf>,
    /// Single limits: option name and value.
    pub limits: Vec<(&'static str, String)>,
}

/// Limits of `update` that are numbers.
pub const LIMITS: [&str; 14] = [
    "blkio-weight",
    "cpu-period",
    "cpu-quota",
    "cpu-share",
    "cpu-burst",
    "cpu-idle",
    "cpu-rt-period",
    "cpu-rt-runtime",
    "cpuset-cpus",
    "cpuset-mems",
    "memory",
    "memory-reservation",
    "memory-swap",
    "pids-limit",
];

const CREATE_VALUES: [&str; 5] = ["bundle", "pid-file", "console-socket", "preserve-fds", "pidfd-socket"];
const CREATE_FLAGS: [&str; 3] = ["no-pivot", "no-new-keyring", "no-subreaper"];
const EXEC_VALUES: [&str; 13] = [
    "process",
    "pid-file",
    "console-socket",
    "cwd",
    "env",
    "user",
    "additional-gids",
    "cap",
    "apparmor",
    "preserve-fds",
    "process-label",
    "cgroup",
    "pidfd-socket",
];

/// Parses everything after the program's name.
pub fn invocation(args: &[String]) -> Result<Invocation> {
    let mut o = global_options(args)?;
    let global = global(&mut o)?;
    let command = if o.flag("version") {
        Command::Print(version())
    } else if o.flag("help") || o.rest.is_empty() {
        Command::Print(HELP.to_owned())
    } else {
        let name = o.rest.remove(0);
        command(&name, &o.rest)?
    };
    Ok(Invocation { global, command })
}

/// The options before the command, also where the rest cannot be understood: the log gets to know that.
pub fn global_of(args: &[String]) -> Option<Global> {
    global(&mut global_options(args).ok()?).ok()
}

fn global_options(args: &[String]) -> Result<Options> {
    let values = ["root", "log", "log-format", "criu", "rootless", "cgroup-manager"];
    let flags = ["debug", "systemd-cgroup", "version", "help"];
    parse(args, &values, &flags, &[("v", "version"), ("h", "help")])
}

fn global(o: &mut Options) -> Result<Global> {
    let log_json = match o.value("log-format").as_deref() {
        Some("json") => true,
        None | Some("text") => false,
        Some(other) => return Err(Error::Usage(format!("--log-format {other}: it is text or json"))),
    };
    let systemd_cgroup = o.flag("systemd-cgroup") || o.value("cgroup-manager").as_deref() == Some("systemd");
    let root = o.value("root").map_or_else(default_root, PathBuf::from);
    Ok(Global { root, log: o.path("log"), log_json, systemd_cgroup })
}

fn default_root() -> PathBuf {
    let base = std::env::var_os("XDG_RUNTIME_DIR").filter(|_| !nix::unistd::geteuid().is_root());
    base.map_or_else(|| PathBuf::from("/run"), PathBuf::from).join("davit-runner")
}

fn version() -> String {
    format!("davit-runner version {}\nspec: {}\n", env!("CARGO_PKG_VERSION"), crate::spec::OCI_VERSION)
}

fn command(name: &str, args: &[String]) -> Result<Command> {
    Ok(match name {
        "create" => {
            let mut o = parse(args, &CREATE_VALUES, &CREATE_FLAGS, &[("b", "bundle")])?;
            Command::Create(create(&mut o)?)
        }
        "run" => {
            let flags = [CREATE_FLAGS.as_slice(), &["detach", "keep"]].concat();
            let mut o = parse(args, &CREATE_VALUES, &flags, &[("b", "bundle"), ("d", "detach")])?;
            let (detach, keep) = (o.flag("detach"), o.flag("keep"));
            Command::Run { create: create(&mut o)?, detach, keep }
        }
        "exec" => exec(args)?,
        "kill" => {
            let mut o = parse(args, &[], &["all"], &[("a", "all")])?;
            let all = o.flag("all");
            let signal = if o.rest.len() == 2 { o.rest.remove(1) } else { "SIGTERM".to_owned() };
            Command::Kill { id: o.id()?, signal, all }
        }
        "delete" => {
            let mut o = parse(args, &[], &["force"], &[("f", "force")])?;
            let force = o.flag("force");
            if o.rest.is_empty() {
                o.id()?;
            }
            Command::Delete { ids: o.rest, force }
        }
        "ps" => {
            let mut o = parse(args, &["format"], &[], &[("f", "format")])?;
            let json = o.value("format").as_deref() == Some("json");
            let args = o.rest.drain(1.min(o.rest.len())..).collect();
            Command::Ps { id: o.id()?, json, args }
        }
        "list" => {
            let mut o = parse(args, &["format"], &["quiet"], &[("f", "format"), ("q", "quiet")])?;
            Command::List { json: o.value("format").as_deref() == Some("json"), quiet: o.flag("quiet") }
        }
        "spec" => {
            let mut o = parse(args, &["bundle"], &["rootless"], &[("b", "bundle")])?;
            Command::Spec {
                bundle: o.path("bundle").unwrap_or_else(|| ".".into()),
                rootless: o.flag("rootless"),
            }
        }
        "update" => update(args)?,
        "events" => events(args)?,
        "checkpoint" | "restore" => {
            return Err(Error::Usage(format!(
                "{name} is not supported: this runtime does not use CRIU; start the container anew instead"
            )));
        }
        "features" => Command::Features,
        "help" => Command::Print(HELP.to_owned()),
        "start" => Command::Start { id: parse(args, &[], &[], &[])?.id()? },
        "state" => Command::State { id: parse(args, &[], &[], &[])?.id()? },
        "pause" => Command::Pause { id: parse(args, &[], &[], &[])?.id()? },
        "resume" => Command::Resume { id: parse(args, &[], &[], &[])?.id()? },
        other => {
            return Err(Error::Usage(format!("unknown command {other:?}; davit-runner --help lists them")));
        }
    })
}

fn create(o: &mut Options) -> Result<Create> {
    Ok(Create {
        bundle: o.path("bundle").unwrap_or_else(|| ".".into()),
        pid_file: o.path("pid-file"),
        console_socket: o.path("console-socket"),
        no_pivot: o.flag("no-pivot"),
        preserve_fds: o.number("preserve-fds")?.unwrap_or(0),
        no_new_keyring: o.flag("no-new-keyring"),
        id: o.id()?,
    })
}

fn exec(args: &[String]) -> Result<Command> {
    let short = [
        ("p", "process"),
        ("d", "detach"),
        ("t", "tty"),
        ("e", "env"),
        ("u", "user"),
        ("g", "additional-gids"),
        ("c", "cap"),
    ];
    let flags = ["detach", "tty", "no-new-privs", "no-subreaper", "ignore-paused"];
    let mut o = parse(args, &EXEC_VALUES, &flags, &short)?;
    let gids = o
        .values("additional-gids")
        .iter()
        .map(|g| options::number("additional-gids", g))
        .collect::<Result<_>>()?;
    let words = o.rest.split_off(1.min(o.rest.len()));
    let exec = Exec {
        process: o.path("process"),
        pid_file: o.path("pid-file"),
        console_socket: o.path("console-socket"),
        detach: o.flag("detach"),
        tty: o.flag("tty"),
        cwd: o.path("cwd"),
        env: o.values("env"),
        user: o.value("user"),
        additional_gids: gids,
        caps: o.values("cap"),
        no_new_privs: o.flag("no-new-privs"),
        apparmor: o.value("apparmor"),
        preserve_fds: o.number("preserve-fds")?.unwrap_or(0),
        args: words,
        id: o.id()?,
    };
    if exec.process.is_none() && exec.args.is_empty() {
        return Err(Error::Usage("exec: name a command or --process FILE".into()));
    }
    Ok(Command::Exec(Box::new(exec)))
}

fn events(args: &[String]) -> Result<Command> {
    let mut o = parse(args, &["interval"], &["stats"], &[])?;
    let text = o.value("interval").unwrap_or_else(|| "5s".to_owned());
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let number = number.parse::<u32>().ok().filter(|n| *n > 0);
    let interval = match (number, unit) {
        (Some(n), "s" | "") => Duration::from_secs(n.into()),
        (Some(n), "ms") => Duration::from_millis(n.into()),
        (Some(n), "m") => Duration::from_secs(60 * u64::from(n)),
        _ => return Err(Error::Usage(format!("--interval {text}: a duration such as 5s is needed"))),
    };
    Ok(Command::Events { once: o.flag("stats"), interval, id: o.id()? })
}

fn update(args: &[String]) -> Result<Command> {
    let mut values: Vec<&str> = LIMITS.to_vec();
    values.extend(["resources", "kernel-memory", "kernel-memory-tcp", "l3-cache-schema", "mem-bw-schema"]);
    let mut o = parse(args, &values, &[], &[("r", "resources")])?;
    let limits = LIMITS.iter().filter_map(|l| Some((*l, o.value(l)?))).collect();
    Ok(Command::Update(Box::new(Update { resources: o.path("resources"), limits, id: o.id()? })))
}

#[cfg(test)]
mod tests;
