//! `davit-fs-ops`: fixed amounts of file-system work, timed from inside. `cargo xtask bench fs` runs them on every engine.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

mod op;
mod stage;
mod tree;

#[derive(Debug, Parser)]
#[command(name = "davit-fs-ops", about = "Fixed amounts of file-system work, timed from inside")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Prints every operation as JSON: what it is called, what one unit of it is
    List,
    /// Makes the lower layers (0 is the topmost) in a directory
    Lowers {
        /// Where
        directory: PathBuf,
        /// Makes this part of the files
        #[arg(long, default_value_t = 1)]
        part: usize,
    },
    /// Makes one lower layer of many files, for looking at memory
    Million {
        /// Where
        directory: PathBuf,
        /// How many files
        #[arg(long, default_value_t = 1_000_000)]
        files: usize,
    },
    /// Reads all directories and asks for every file's attributes; prints how many there were
    Visit {
        /// Where
        directory: PathBuf,
    },
    /// Does one operation on the mounted layers and prints a line of JSON: nanoseconds and units
    Run {
        /// Its name
        op: String,
        /// Where the layers are mounted
        root: PathBuf,
        /// Does this part of the work
        #[arg(long, default_value_t = 1)]
        part: usize,
        /// Prepares and then waits for a line on standard input (to attach a profiler)
        #[arg(long)]
        wait: bool,
    },
}

fn main() -> anyhow::Result<()> {
    match Args::parse().command {
        Command::List => {
            for op in op::ALL {
                println!("{}", serde_json::json!({"name": op.name, "unit": op.unit, "about": op.about}));
            }
        }
        Command::Lowers { directory, part } => tree::make_lowers(&directory, part)?,
        Command::Million { directory, files } => tree::make_million(&directory, files)?,
        Command::Visit { directory } => {
            std::env::set_current_dir(&directory)
                .with_context(|| format!("cannot enter {}", directory.display()))?;
            println!("{}", op::walk(".", true)?);
        }
        Command::Run { op, root, part, wait } => {
            let op = op::ALL.iter().find(|o| o.name == op).context("no such operation")?;
            std::env::set_current_dir(&root).with_context(|| format!("cannot enter {}", root.display()))?;
            let measured = (op.run)(&stage::Stage { part, wait })?;
            println!("{}", serde_json::to_string(&measured)?);
        }
    }
    Ok(())
}
