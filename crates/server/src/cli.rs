//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::config::listen;
use crate::exit_codes;

const FIRST_STEPS: &str = "\
First steps:
  tidegate serve                               serve with SQLite in ./tidegate-data, nothing to install
  redis-cli -p 6380 SET greeting hello         write through the cache into the database
  redis-cli -p 6380 TIDEGATE EXPLAIN greeting  what the cache knows of a key
  tidegate reference > tidegate.toml           a configuration with every key explained, to be edited
  tidegate serve --config tidegate.toml        serve classes of keys, each with its own strategy
  tidegate check-config tidegate.toml          see what a configuration means before it is used";

/// A cache in front of your database that any Redis client can talk to.
///
/// Every write goes through the cache to the database, back to it later, or around the cache, as the
/// class of its key says; every read is served from memory when it can be.
#[derive(Parser, Debug)]
#[command(name = "tidegate", version, verbatim_doc_comment)]
#[command(after_help = FIRST_STEPS, after_long_help = format!("{FIRST_STEPS}\n\n{}", exit_codes::HELP))]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What the program can do.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Serve Redis clients
    ///
    /// Without a configuration the data is kept in a SQLite file in ./tidegate-data, which is made if it is
    /// missing, and every key is written through.
    ///
    /// SIGTERM or Ctrl-C ends the server: it stops listening, answers what it was asked, brings what is dirty
    /// to the store and exits with 0, or with 6 if something is left. Another signal, a second or more later,
    /// ends it at once.
    ///
    /// TIDEGATE_LOG says how much is logged to stderr: error, warn, info (the default), debug, trace.
    #[command(verbatim_doc_comment)]
    Serve(Serve),
    /// Read a configuration, say what it means, or everything that is wrong with it
    ///
    /// Prints one line for each class. Opens no database and changes nothing. A configuration that is refused
    /// ends with code 3, each problem on a line of its own as FILE:LINE: key: what is wrong.
    #[command(verbatim_doc_comment)]
    CheckConfig(CheckConfig),
    /// Print a configuration with every key, its default and its meaning, all commented out
    Reference,
}

#[derive(clap::Args, Debug)]
pub(crate) struct Serve {
    /// The configuration, in TOML; without it the embedded default
    #[arg(long, short, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Listen here instead of where the configuration says; port 0 chooses a free one
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = listen::parse)]
    pub(crate) listen: Option<SocketAddr>,
    /// Keep SQLite file and journal in this folder instead of the one in the configuration
    #[arg(long, value_name = "FOLDER")]
    pub(crate) data_dir: Option<PathBuf>,
}

#[derive(clap::Args, Debug)]
pub(crate) struct CheckConfig {
    /// The configuration, in TOML
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }
}
