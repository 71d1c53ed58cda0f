//! The commands: [`table`] says what there is, a file per family says what each does.
//!
//! A command is a function from a request to work and an answer. It knows nothing of sockets or buffers; its
//! arguments are understood, and refused if wrong, before anything is done.
//!
//! | family | file |
//! |---|---|
//! | the connection itself | `connection` |
//! | the server, `COMMAND`, `INFO` | `server`, `catalogue`, `information` |
//! | values | `string`, `counter` |
//! | keys and their lives | `key`, `expiry` |
//! | all keys | `scan` |
//! | what only this server has | `tidegate` |

mod arguments;
mod catalogue;
mod connection;
mod counter;
pub(crate) mod errors;
mod expiry;
mod glob;
mod information;
mod key;
mod long_double;
mod row;
mod scan;
mod server;
mod session;
mod string;
mod table;
mod tidegate;

pub(crate) use self::tidegate::durability;
pub(crate) use row::{Access, Command, Handler, Prepared, Work};
pub(crate) use scan::Cursors;
pub(crate) use session::{Answers, Session};

use tidegate_resp::{Reply, Request};

/// The command a request names, with its keys and number of arguments checked.
///
/// # Errors
/// The answer to a request that names no command, or one with the wrong number of arguments or a key too long.
pub(crate) fn find(request: &Request) -> Result<&'static Command, Reply> {
    let Some(command) = table::find(request.name()) else {
        return Err(errors::unknown_command(request));
    };
    let command = match request.argument(1) {
        Some(name) if !command.subcommands.is_empty() => {
            let Some(subcommand) = table::find_in(command.subcommands, name) else {
                return Err(errors::unknown_subcommand(command.name, name));
            };
            if !subcommand.takes(request.len()) {
                let full = format!("{}|{}", command.name, subcommand.name);
                return Err(errors::wrong_arity(&full));
            }
            subcommand
        }
        _ if !command.takes(request.len()) => return Err(errors::wrong_arity(command.name)),
        _ => command,
    };
    let too_long = |place| {
        request
            .argument(place)
            .is_some_and(|key| key.len() > ::tidegate::KEY_BYTES_MAX)
    };
    if command.key_places(request.len()).any(too_long) {
        return Err(errors::key_too_long());
    }
    Ok(command)
}
