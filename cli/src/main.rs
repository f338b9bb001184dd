//! davit: the command line of the container engine. It speaks to the three daemons through their contracts and to a container's monitor for
//! its streams, and knows nothing of how they work.

mod app;
mod args;
mod attach;
mod cmd;
mod credentials;
mod error;
mod graph;
mod output;
mod parse;
mod spec;
mod supervisor;
mod view;

use clap::CommandFactory as _;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use davit_contracts::layout::{Layout, Overrides};
use davit_contracts::{Error, Kind};

use crate::app::App;
use crate::args::container::ContainerCommand;
use crate::args::{Cli, Command, ContainerGroup};
use crate::error::{Failure, Outcome};

fn main() {
    let code = run();
    attach::terminal::restore();
    // Not a return: a thread may still be inside a blocking read of standard input.
    std::process::exit(code);
}

fn run() -> i32 {
    let cli: Cli = match args::switches::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(e) => return usage(&e),
    };
    let runs = gives_the_programs_code(&cli.command);
    let outcome = prepare(&cli).and_then(|app| {
        // One thread: every command waits for one thing at a time.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| Failure::io("cannot start", &e))?;
        runtime.block_on(cmd::dispatch(&app, cli.command))
    });
    match outcome {
        Ok(code) => code,
        Err(failure) => {
            failure.tell();
            failure.exit_code(runs)
        }
    }
}

fn prepare(cli: &Cli) -> Outcome<App> {
    let overrides = Overrides {
        state: cli.global.state_dir.clone(),
        run: cli.global.run_dir.clone(),
        config: cli.global.config_dir.clone(),
    };
    let layout =
        Layout::with_overrides(overrides).map_err(|e| Error::from_error(Kind::InvalidArgument, &e))?;
    Ok(App::new(layout, cli.global.debug))
}

/// Whether a failure's exit code must be told from the program's own.
fn gives_the_programs_code(command: &Command) -> bool {
    let inner = match command {
        Command::Container(c) => c,
        Command::ContainerGroup(group) => match group.as_ref() {
            ContainerGroup::Command(c) => c,
            _ => return false,
        },
        // 1 is that it is not healthy.
        Command::Healthcheck(_) => return true,
        _ => return false,
    };
    match inner {
        ContainerCommand::Run(_) | ContainerCommand::Exec(_) => true,
        ContainerCommand::Start(args) => args.attach || args.interactive,
        _ => false,
    }
}

/// Help and version are answers; anything else is a mistake, 125 for flags and for the commands that run programs.
fn usage(e: &clap::Error) -> i32 {
    // The parser counts a variable such as DAVIT_RUN_DIR as an argument, and complains where help is wanted.
    if e.kind() == ErrorKind::MissingSubcommand {
        output::complain!("{}", Cli::command().render_help());
        return 0;
    }
    let _ = e.print();
    match e.kind() {
        ErrorKind::DisplayHelp
        | ErrorKind::DisplayVersion
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => 0,
        _ if about_a_flag(e) => 125,
        _ => {
            let words: Vec<String> =
                std::env::args().skip(1).filter(|a| !a.starts_with('-')).take(3).collect();
            if words.iter().any(|w| w == "run" || w == "exec") { 125 } else { 1 }
        }
    }
}

/// Docker's exit code for a flag that does not exist or has a wrong value is 125, whatever the command.
fn about_a_flag(e: &clap::Error) -> bool {
    matches!(e.get(ContextKind::InvalidArg), Some(ContextValue::String(arg)) if arg.starts_with('-'))
}
