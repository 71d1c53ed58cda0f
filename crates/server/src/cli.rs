//! The command line.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::config::{duration, listen};
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
    /// to the store and exits with 0; with 6 if something is left, which is in the journal; with 8 if something
    /// is gone that only memory had. A line says how much, and where. Another signal, a second or more later,
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
    /// Print the SQL that makes what a configuration needs in its database
    ///
    /// Connects to nothing. The server makes what is missing itself where it may. Where its role must not, somebody
    /// else runs this first, for example:
    ///   tidegate schema --config tidegate.toml | psql --set ON_ERROR_STOP=1 --dbname shop
    /// and grants the role what the last lines say. It can be run again: what is there stays as it is.
    #[command(verbatim_doc_comment)]
    Schema(Schema),
    /// Bring what is dirty in a running server to its store, and say what is left
    ///
    /// Without arguments everything, else one class, or one key. Writes made meanwhile are not waited for.
    ///
    /// Ends with 0 if the store has everything that was asked for, with 6 if something is left.
    #[command(verbatim_doc_comment)]
    Flush(Flush),
    /// List, show, retry, edit or discard writes that the store refused
    ///
    /// A dead letter is a write that a client was told is done (the journal has it), and that the store then
    /// refused: a constraint, a type, a missing right; or a row changed by somebody else in between. It is kept,
    /// also over restarts, until one of these happens:
    ///   - the cause is removed (the table, the right), and it is retried;
    ///   - its value is edited, which writes the key anew;
    ///   - it is discarded, which is the only way to lose it;
    ///   - somebody writes the key again, which supersedes it.
    ///
    /// What to do at night:
    ///   tidegate dead-letters list                  what is there, and why: the code is the database's own
    ///   tidegate dead-letters show KEY              one of them in full; --value shows the value too
    ///   tidegate dead-letters retry KEY             after the cause is gone; or --all
    ///   tidegate dead-letters edit KEY < value.txt  where the value is what is wrong
    /// Nothing has to be done at once: a dead letter holds up no write of another key. But it counts as dirty, so
    /// very many of them leave a class no room for new writes (dirty_max, dirty_entries_max).
    #[command(verbatim_doc_comment)]
    DeadLetters(DeadLetters),
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

#[derive(clap::Args, Debug)]
pub(crate) struct Schema {
    /// The configuration, in TOML; without it the embedded default
    #[arg(long, short, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Where PostgreSQL keeps what names no schema: the first of the role's search path
    #[arg(long, value_name = "NAME", default_value = "public")]
    pub(crate) schema: String,
}

/// Which server to talk to, and how to print what it says.
#[derive(clap::Args, Debug)]
pub(crate) struct Remote {
    /// The running server: HOST:PORT
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:6380")]
    pub(crate) server: String,
    /// Print JSON instead of a table
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(clap::Args, Debug)]
pub(crate) struct Flush {
    /// Only this key
    #[arg(value_name = "KEY", conflicts_with = "class")]
    pub(crate) key: Option<OsString>,
    /// Only the keys of this class
    #[arg(long, value_name = "CLASS")]
    pub(crate) class: Option<String>,
    /// How long to wait for it, such as 500ms or 1m
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration::parse)]
    pub(crate) timeout: Duration,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

#[derive(clap::Args, Debug)]
pub(crate) struct DeadLetters {
    #[command(subcommand)]
    pub(crate) action: DeadLettersAction,
}

/// What can be done about dead letters.
#[derive(Subcommand, Debug)]
pub(crate) enum DeadLettersAction {
    /// List them in the order of their keys, without their values
    List(ListLetters),
    /// Show one of them; ends with 10 if there is none of this key
    Show(ShowLetter),
    /// Send one of them, or all, to the store once more, and say what came of it
    ///
    /// A retry writes the same version as before, so it never overwrites anything newer; an addition (a class with
    /// delta) is added to what the row holds now. Ends with 6 if the
    /// store refused again or did not answer in time, with 10 if there is no dead letter of this key.
    #[command(verbatim_doc_comment)]
    Retry(RetryLetters),
    /// Give one of them another value, which writes its key anew
    ///
    /// The value is taken from a file or from standard input, byte by byte: a newline at the end is part of it.
    /// It is the whole value of the key, also where the dead letter is an addition.
    /// Refused, with code 10, if the key was written since the letter was looked at. Ends with 6 if the store
    /// refused the new value too, or did not answer in time.
    #[command(verbatim_doc_comment)]
    Edit(EditLetter),
    /// Throw one of them away for good; readers then see what the store has
    ///
    /// Shows the letter and asks first, unless --yes is given. An answer other than "yes" changes nothing and ends
    /// with 1. Ends with 10 if there is no dead letter of this key and version.
    #[command(verbatim_doc_comment)]
    Discard(DiscardLetter),
}

#[derive(clap::Args, Debug)]
pub(crate) struct ListLetters {
    /// Only those of this class
    #[arg(long, value_name = "CLASS")]
    pub(crate) class: Option<String>,
    /// Only those whose keys come after this one
    #[arg(long, value_name = "KEY")]
    pub(crate) after: Option<OsString>,
    /// How many at most
    #[arg(long, value_name = "NUMBER", default_value = "1000")]
    pub(crate) limit: NonZeroUsize,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

#[derive(clap::Args, Debug)]
pub(crate) struct ShowLetter {
    /// Its key
    #[arg(value_name = "KEY")]
    pub(crate) key: OsString,
    /// Show the value too, which may be nobody's business
    #[arg(long)]
    pub(crate) value: bool,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

#[derive(clap::Args, Debug)]
pub(crate) struct RetryLetters {
    /// The key of one
    #[arg(value_name = "KEY", group = "which", required_unless_present = "all")]
    pub(crate) key: Option<OsString>,
    /// All of them
    #[arg(long, group = "which", required_unless_present = "key")]
    pub(crate) all: bool,
    /// With --all: those of this class
    #[arg(long, value_name = "CLASS", requires = "all")]
    pub(crate) class: Option<String>,
    /// How long to wait for what comes of it
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration::parse)]
    pub(crate) timeout: Duration,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

#[derive(clap::Args, Debug)]
pub(crate) struct EditLetter {
    /// Its key
    #[arg(value_name = "KEY")]
    pub(crate) key: OsString,
    /// The file with the new value; without it, standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Only if it is still of this version; without it, the version it has when the command begins
    #[arg(long, value_name = "VERSION")]
    pub(crate) if_version: Option<String>,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

#[derive(clap::Args, Debug)]
pub(crate) struct DiscardLetter {
    /// Its key
    #[arg(value_name = "KEY")]
    pub(crate) key: OsString,
    /// Only if it is still of this version; without it, the version it has when the command begins
    #[arg(long, value_name = "VERSION")]
    pub(crate) if_version: Option<String>,
    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) remote: Remote,
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
