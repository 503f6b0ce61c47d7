//! `dlock`: runs a command while it holds a distributed lock, tells who holds what, and checks the set-up.
//!
//! - [`run`] is what flock(1) is on one machine: on every machine that reaches the same store.
//! - [`holder`] and [`list`] ask the store, and take no lock.
//! - [`doctor`] connects as `run` does, and prints each check with its result.
//!
//! The locks are those of the library: the same settings, the same names, the same keys.

mod cli;
mod connect;
mod doctor;
mod ending;
mod events;
mod holder;
mod list;
mod manual;
mod output;
mod run;
mod store;
mod telling;

use std::ffi::OsString;
use std::io;
use std::process::ExitCode;

use tokio::runtime::{Builder, Runtime};

use self::cli::{Cli, Command};
use self::ending::{Ending, USAGE};

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    if let Some(code) = run::helper(words.get(1..).unwrap_or_default()) {
        return code;
    }
    let cli = match Cli::read(&words) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no mistakes. A reader that has gone is none of ours either.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { USAGE } else { 0 });
        }
    };
    start(cli).exit()
}

fn start(cli: Cli) -> Ending {
    match cli.command {
        Command::Completions { shell } => manual::completions(shell),
        Command::Man { command } => manual::page(command.as_deref()),
        Command::Doctor(arguments) => {
            // It shows what the library says itself.
            block_on(async || doctor::doctor(&cli.store, &arguments).await)
        }
        Command::Run(arguments) => {
            events::show(cli.verbose);
            block_on(async || run::run(&cli.store, &arguments).await)
        }
        Command::Holder(arguments) => {
            events::show(cli.verbose);
            block_on(async || holder::holder(&cli.store, &arguments).await)
        }
        Command::List(arguments) => {
            events::show(cli.verbose);
            block_on(async || list::list(&cli.store, &arguments).await)
        }
    }
}

/// On the first thread, which lives as long as the process: a child is killed when the thread that has
/// started it ends.
fn block_on(command: impl AsyncFnOnce() -> Ending) -> Ending {
    let runtime: io::Result<Runtime> = Builder::new_current_thread().enable_all().build();
    match runtime {
        Ok(runtime) => {
            let ending = runtime.block_on(command());
            // A file that is read from a pipe may have no end.
            runtime.shutdown_background();
            ending
        }
        Err(error) => Ending::system("start the runtime", &error),
    }
}
