//! How the program ends, for scripts and service managers.

use std::process::ExitCode;

/// What the exit code says. Codes never change their meaning.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Exit {
    /// Done; after `serve`: the store has everything.
    Success = 0,
    /// Something failed that no other code names.
    Failure = 1,
    /// The command line was not understood (clap ends with this code itself).
    #[expect(
        dead_code,
        reason = "clap ends the program with this code; it stands here for its number"
    )]
    Usage = 2,
    /// The configuration was refused.
    Config = 3,
    /// The address cannot be listened on.
    Listen = 4,
    /// The data folder, the store or the journal cannot be opened, or were not yet when a signal came.
    Open = 5,
    /// Acknowledged writes are not yet in the store; after `serve`, the next start goes on with them.
    Left = 6,
    /// Ended by a second signal, without a drain.
    Forced = 7,
    /// Shut down, and writes that only memory had are gone.
    Lost = 8,
    /// The running server cannot be reached, or does not do as asked.
    Server = 9,
    /// There is no dead letter of this key, or not of this version.
    NoLetter = 10,
}

/// The table of codes, for the help.
pub(crate) const HELP: &str = "\
Exit codes:
  0  done; after serve: the store has everything
  1  something failed that no other code names
  2  the command line was not understood
  3  the configuration was refused
  4  the address cannot be listened on
  5  the data folder, the store or the journal cannot be opened, or were not yet when a signal came
  6  acknowledged writes are not yet in the store; after serve: the next start goes on with them
  7  ended by a second signal, without a drain
  8  shut down, and acknowledged writes that only memory had are gone (durability memory)
  9  the running server cannot be reached, or does not do as asked
  10  there is no dead letter of this key, or not of this version";

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_names_every_code() {
        let codes = [
            Exit::Success,
            Exit::Failure,
            Exit::Config,
            Exit::Listen,
            Exit::Open,
            Exit::Left,
            Exit::Forced,
            Exit::Lost,
            Exit::Server,
            Exit::NoLetter,
        ];
        for exit in codes {
            assert!(HELP.contains(&format!("\n  {}  ", exit as u8)), "{exit:?}");
        }
        assert_eq!(HELP.lines().count(), codes.len() + 2);
    }
}
