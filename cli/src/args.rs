//! The command line: docker's words where docker has them.

pub mod clone;
pub mod container;
pub mod flags;
pub mod image;
pub mod lifecycle;
pub mod limits;
pub mod network;
pub mod network_view;
pub mod registry;
pub mod run;
pub mod storage;
pub mod switches;
pub mod system;
pub mod tree;
pub mod volume;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use container::{ContainerCommand, InspectArgs};
use image::ImageCommand;
use network::NetworkCommand;
use storage::StorageCommand;
use system::{CompletionArgs, DownArgs, EventsArgs, FormatArgs, SystemCommand};
use volume::VolumeCommand;

/// A container engine whose storage, network and runtime can each be replaced while containers run.
#[derive(Debug, Parser)]
#[command(
    name = "davit",
    version,
    propagate_version = false,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "The daemons start by themselves on first use. 'davit COMMAND --help' explains a command."
)]
pub struct Cli {
    /// What goes before the command.
    #[command(flatten)]
    pub global: Global,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// Options before the command.
#[derive(Debug, Args)]
pub struct Global {
    /// Directory of images, networks and containers [default: /var/lib/davit, or ~/.local/share/davit]
    #[arg(long, value_name = "DIR", env = "DAVIT_STATE_DIR", hide_env = true)]
    pub state_dir: Option<PathBuf>,
    /// Directory of sockets and what a reboot ends [default: /run/davit, or $XDG_RUNTIME_DIR/davit]
    #[arg(long, visible_alias = "host", value_name = "DIR", env = "DAVIT_RUN_DIR", hide_env = true)]
    pub run_dir: Option<PathBuf>,
    /// Directory of the daemons' configuration [default: /etc/davit, or ~/.config/davit]
    #[arg(long, value_name = "DIR", env = "DAVIT_CONFIG_DIR", hide_env = true)]
    pub config_dir: Option<PathBuf>,
    /// Say more about what goes wrong
    #[arg(short = 'D', long)]
    pub debug: bool,
}

/// All commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// The container commands, also without the word `container`.
    #[command(flatten)]
    Container(Box<ContainerCommand>),
    /// Work with containers
    #[command(subcommand_required = true, arg_required_else_help = true)]
    #[command(name = "container", subcommand)]
    ContainerGroup(Box<ContainerGroup>),
    /// Try the health checks of containers
    #[command(subcommand, arg_required_else_help = true)]
    Healthcheck(container::HealthcheckCommand),
    /// Work with images
    #[command(subcommand, arg_required_else_help = true)]
    Image(ImageCommand),
    /// List images (the same as `image ls`)
    Images(image::ListArgs),
    /// Remove images (the same as `image rm`)
    Rmi(image::RemoveArgs),
    /// Give an image one more name
    Tag(image::TagArgs),
    /// Fetch an image from a registry
    Pull(image::PullArgs),
    /// Send an image to a registry
    Push(image::PushArgs),
    /// Log in to a registry
    Login(registry::LoginArgs),
    /// Log out from a registry
    Logout(registry::LogoutArgs),
    /// Read images from an archive or an OCI layout
    Load(image::LoadArgs),
    /// Write images to an archive
    Save(image::SaveArgs),
    /// Make an image of a root file system archive
    Import(image::ImportArgs),
    /// Show how an image was made
    History(image::HistoryArgs),
    /// Work with networks
    #[command(subcommand, visible_alias = "net", arg_required_else_help = true)]
    Network(NetworkCommand),
    /// Work with volumes
    #[command(subcommand, arg_required_else_help = true)]
    Volume(VolumeCommand),
    /// Look after the installation as a whole
    #[command(subcommand, arg_required_else_help = true)]
    System(SystemCommand),
    /// Check, repair and clean what is stored
    #[command(subcommand, arg_required_else_help = true)]
    Storage(StorageCommand),
    /// Show details of containers, images, networks or volumes
    Inspect(InspectArgs),
    /// Show what happens, as it happens
    Events(EventsArgs),
    /// Show versions of the client and of the daemons
    Version(FormatArgs),
    /// Show what this installation has and uses
    Info(FormatArgs),
    /// Show the daemons with versions, contracts and health; fails when one is down or unhealthy
    Status(FormatArgs),
    /// Start the daemons (they also start on first use)
    Up,
    /// Stop the daemons; running containers keep running
    Down(DownArgs),
    /// Print a completion script for a shell
    Completion(CompletionArgs),
}

/// `davit container ...`
#[derive(Debug, Subcommand)]
pub enum ContainerGroup {
    /// List containers
    #[command(visible_alias = "list")]
    Ls(container::PsArgs),
    /// Show details of containers
    Inspect(container::InspectContainerArgs),
    /// Remove all stopped containers
    Prune(container::PruneArgs),
    /// The rest.
    #[command(flatten)]
    Command(ContainerCommand),
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_definition_is_consistent_and_every_command_is_explained() {
        fn check(command: &clap::Command) {
            for sub in command.get_subcommands() {
                assert!(sub.get_about().is_some(), "{} has no explanation", sub.get_name());
                for arg in sub.get_arguments() {
                    assert!(
                        arg.get_help().is_some(),
                        "{} {} has no explanation",
                        sub.get_name(),
                        arg.get_id()
                    );
                }
                check(sub);
            }
        }
        Cli::command().debug_assert();
        check(&Cli::command());
    }

    fn parse(line: &str) -> Cli {
        switches::parse(line.split(' ').map(Into::into)).unwrap_or_else(|e| panic!("{line}: {e}"))
    }

    #[test]
    fn dockers_lines_are_understood() {
        for line in [
            "davit net create my-bridge",
            "davit net inspect -v n",
            "davit net connect --ingress-rate 10mbit --ingress-burst 64k --egress-burst 64k n c",
            "davit run --publish-all=false img",
            "davit run -Pit -p published=9080,target=80 img",
            "davit net check --repair --format json",
            "davit net check front back",
            "davit net explain web [fd00::2]:53/udp --format json",
            "davit network graph --format dot -o file a b",
            "davit network create --driver bridge --subnet 10.0.0.0/24 --gateway 10.0.0.1 n",
            "davit image ls -q",
            "davit container ls -a",
            "davit container run -it --rm img sh -c true",
            "davit ps -aq --no-trunc --filter name=x --format json",
            "davit logs -ft --tail 5 --since 10m c",
            "davit exec -itu root -w / -e A=1 c ls -la",
            "davit stop -t 3 a b",
            "davit rm -fv a",
            "davit --state-dir /a --run-dir /b status --format json",
            "davit inspect --type container -f {{.Id}} c",
            "davit image from-host -t tools /bin/sh",
            "davit top c -eo pid,comm",
            "davit wait --condition running --condition exited c",
            "davit update -m -1 --memory-swap -1 --cpus 1.5 --pids-limit -1 --restart on-failure:3 a b",
            "davit stats -a --no-trunc --no-stream --format {{.Name}} a",
            "davit rm -fl",
            "davit stop -a -i",
            "davit login -u me --password-stdin reg.example:5000",
            "davit push -aq reg.example:5000/app",
            "davit pull -a app",
            "davit image prune -af --filter until=24h --filter label!=keep",
            "davit rmi --no-prune -f a b",
            "davit history -H --no-trunc a",
            "davit history --human=false a",
            "davit system df -v",
            "davit system prune -af --volumes --filter label=a",
            "davit volume create -d local -o type=tmpfs -o device=tmpfs -o o=size=1m --label a v",
            "davit volume prune -a -f --filter label=a",
            "davit run --volumes-from a:ro --volumes-from b --volume-driver local img",
            "davit ps -as",
            "davit cp -aLq c:/etc/. here",
            "davit commit -p=false -c CMD=x -m m -a me c repo:tag",
            "davit container export -o file c",
            "davit container diff c",
            "davit storage check --repair --quick --format json alpine web:1",
            "davit storage gc",
            "davit clone --run -m 64m -p 81:80 --pause=false a b",
            "davit container clone --destroy -f --name b a",
            "davit console --no-replay --detach-keys ctrl-a vm",
            "davit freeze a b",
            "davit thaw a",
            "davit run -d --system img /sbin/init",
            "davit run --system=runit img",
        ] {
            parse(line);
        }
    }
}
