//! The commands, one file a topic.

mod attach;
mod clone;
mod commit;
mod confirm;
mod console;
mod cp;
mod create;
mod df;
mod diff;
mod events;
mod exec;
mod export;
mod health;
mod image;
mod inspect;
mod lifecycle;
mod login;
mod logs;
mod net_check;
mod net_create;
mod net_explain;
mod net_graph;
mod network;
mod prune;
mod ps;
mod pull;
mod push;
mod run;
mod save;
mod stats;
mod status;
mod storage;
mod system;
mod transfer;
mod volume;

use clap::CommandFactory as _;

use crate::app::App;
use crate::args::container::ContainerCommand;
use crate::args::system::SystemCommand;
use crate::args::{Cli, Command, ContainerGroup};
use crate::error::Outcome;

/// Runs a command; what comes back is the exit code.
pub async fn dispatch(app: &App, command: Command) -> Outcome<i32> {
    match command {
        Command::Container(c) => return Box::pin(container(app, *c)).await,
        Command::ContainerGroup(group) => match *group {
            ContainerGroup::Ls(args) => ps::ps(app, &args).await,
            ContainerGroup::Inspect(args) => {
                inspect::inspect(app, args.format.as_deref(), Some("container"), args.size, &args.names).await
            }
            ContainerGroup::Prune(args) => prune::containers(app, &args).await,
            ContainerGroup::Command(c) => return Box::pin(container(app, c)).await,
        },
        Command::Healthcheck(c) => return health::run(app, &c).await,
        Command::Image(c) => image::image(app, c).await,
        Command::Images(args) => image::list(app, &args).await,
        Command::Rmi(args) => image::remove(app, &args).await,
        Command::Tag(args) => image::tag(app, &args).await,
        Command::Pull(args) => pull::command(app, &args).await,
        Command::Push(args) => push::push(app, &args).await,
        Command::Login(args) => login::login(app, &args).await,
        Command::Logout(args) => login::logout(&args),
        Command::Load(args) => transfer::load(app, &args).await,
        Command::Save(args) => save::save(app, &args).await,
        Command::Import(args) => transfer::import(app, &args).await,
        Command::History(args) => image::history(app, &args).await,
        Command::Network(c) => network::network(app, c).await,
        Command::Volume(c) => volume::volume(app, c).await,
        Command::System(c) => match c {
            SystemCommand::Df(args) => df::df(app, &args).await,
            SystemCommand::Prune(args) => prune::system(app, &args).await,
            SystemCommand::Info(args) => system::info(app, args.format.as_deref()).await,
            SystemCommand::Events(args) => events::events(app, &args).await,
        },
        Command::Storage(c) => storage::storage(app, c).await,
        Command::Inspect(args) => {
            inspect::inspect(app, args.format.as_deref(), args.kind.as_deref(), args.size, &args.names).await
        }
        Command::Events(args) => events::events(app, &args).await,
        Command::Version(args) => system::version(app, args.format.as_deref()).await,
        Command::Info(args) => system::info(app, args.format.as_deref()).await,
        Command::Status(args) => return status::status(app, args.format.as_deref()).await,
        Command::Up => system::up(app).await,
        Command::Down(args) => system::down(app, &args).await,
        Command::Completion(args) => {
            let mut script = Vec::new();
            clap_complete::generate(args.shell, &mut Cli::command(), "davit", &mut script);
            crate::output::print(&String::from_utf8_lossy(&script));
            Ok(())
        }
    }?;
    Ok(0)
}

async fn container(app: &App, command: ContainerCommand) -> Outcome<i32> {
    match command {
        ContainerCommand::Run(args) => return run::run(app, &args).await,
        ContainerCommand::Exec(args) => return exec::exec(app, &args).await,
        ContainerCommand::Attach(args) => return attach::attach(app, &args).await,
        ContainerCommand::Start(args) => return attach::start(app, &args).await,
        ContainerCommand::Console(args) => return console::console(app, &args).await,
        ContainerCommand::Clone(args) => clone::clone(app, &args).await,
        ContainerCommand::Create(args) => create::create(app, &args).await,
        ContainerCommand::Stop(args) => lifecycle::stop(app, &args).await,
        ContainerCommand::Restart(args) => lifecycle::restart(app, &args).await,
        ContainerCommand::Kill(args) => lifecycle::kill(app, &args).await,
        ContainerCommand::Rm(args) => lifecycle::remove(app, &args).await,
        ContainerCommand::Ps(args) => ps::ps(app, &args).await,
        ContainerCommand::Logs(args) => logs::logs(app, &args).await,
        ContainerCommand::Wait(args) => lifecycle::wait(app, &args).await,
        ContainerCommand::Update(args) => lifecycle::update(app, &args).await,
        ContainerCommand::Stats(args) => stats::stats(app, &args).await,
        ContainerCommand::Pause(args) => lifecycle::pause(app, &args.containers).await,
        ContainerCommand::Unpause(args) => lifecycle::unpause(app, &args.containers).await,
        ContainerCommand::Rename(args) => lifecycle::rename(app, &args).await,
        ContainerCommand::Top(args) => ps::top(app, &args).await,
        ContainerCommand::Port(args) => ps::port(app, &args).await,
        ContainerCommand::Commit(args) => commit::commit(app, &args).await,
        ContainerCommand::Cp(args) => cp::cp(app, &args).await,
        ContainerCommand::Diff(args) => diff::diff(app, &args).await,
        ContainerCommand::Export(args) => export::export(app, &args).await,
    }?;
    Ok(0)
}
