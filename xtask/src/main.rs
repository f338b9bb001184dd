//! The project's own commands: `cargo xtask demo`, `test`, `check`, `bench`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bench;
mod cargo;
mod check;
mod demo;
mod fuzz;
mod packages;
mod test;

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "Commands for people who work on davit")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Shows the suite at work, as the commands that a person would type
    Demo(demo::Options),
    /// Installs what the tests need, then checks, builds and tests everything
    Test,
    /// Asks a loopback port for a page (the demo uses it inside other namespaces)
    #[command(hide = true)]
    Fetch {
        /// The port
        port: u16,
    },
    /// Feeds storaged's parsers with what no one would write, each for a bounded time
    Fuzz(fuzz::Options),
    /// Formatting, lints, dependency edges, file lengths
    Check,
    /// Measures davit against the engines that are installed
    Bench {
        #[command(subcommand)]
        what: bench::What,
    },
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("Error: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    match Args::parse().command {
        Command::Demo(options) => demo::run(&options),
        Command::Test => test::run(),
        Command::Fetch { port } => {
            print!("{}", demo::get(port)?);
            Ok(())
        }
        Command::Fuzz(options) => fuzz::run(&options),
        Command::Check => check::run(),
        Command::Bench { what } => bench::run(&what),
    }
}
