//! `tidegate`: a cache in front of a database that any Redis client can talk to.
//!
//! In reading order: [`cli`] (what can be asked of the program), [`config`] (what it is told), [`serve`] ([`open`], listen,
//! shut down), [`listener`] and [`connection`] (sockets; bytes in and out), [`command`] (what each command does),
//! [`server`] and [`client`] (what connections share), [`admin`] (metrics by HTTP), [`schema`] (what the database must hold), [`remote`] (commands that talk to a
//! running server).

mod admin;
mod check_config;
mod cli;
mod client;
mod columns;
mod command;
mod config;
mod connection;
mod console;
mod exit_codes;
#[cfg(feature = "fail-points")]
mod fail_point;
mod left;
mod listener;
mod open;
mod remote;
mod schema;
mod serve;
mod server;
mod shared_figures;
mod welcome;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use exit_codes::Exit;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    log_to_stderr();
    let result = match &cli.command {
        cli::Command::Serve(arguments) => serve::run(arguments),
        cli::Command::CheckConfig(arguments) => check_config::run(arguments),
        cli::Command::Schema(arguments) => schema::run(arguments),
        cli::Command::Flush(arguments) => Ok(remote::flush(arguments)),
        cli::Command::DeadLetters(arguments) => Ok(remote::dead_letters(&arguments.action)),
        cli::Command::Reference => {
            console::print(config::REFERENCE.trim_end()).map(|()| Exit::Success)
        }
    };
    result
        .unwrap_or_else(|error| {
            console::say(format!("tidegate: {error}"));
            Exit::Failure
        })
        .into()
}

/// `TIDEGATE_LOG` says how much, such as `debug` or `tidegate=debug,info`.
fn log_to_stderr() {
    let mut filter =
        EnvFilter::try_from_env("TIDEGATE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    // The client of PostgreSQL writes the parameters of statements into its log: keys and values.
    if let Ok(silent) = "tokio_postgres=off".parse() {
        filter = filter.add_directive(silent);
    }
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
}
