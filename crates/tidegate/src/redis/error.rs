//! What errors of Redis mean to a caller.
//!
//! A text of the server may repeat arguments of a command, so none is passed on but for those that name no argument.

use redis::{ErrorKind, RedisError, ServerError};
use tidegate_core::port::SharedError;

/// What to do about an error that the server answered. Nothing was done but for [`Refusal::Failed`].
#[derive(Debug)]
pub(super) enum Refusal {
    /// The script is not known by its hash: tell its text and send it again.
    NoScript,
    /// The slot is elsewhere for good: at this address.
    Moved(Address),
    /// For this command the slot is at this address, once it is told so.
    Ask(Address),
    /// The slot is on its way: try again soon.
    TryAgain,
    /// The server is a replica, or loads its data, or knows of no owner of the slot: leave it.
    Leave(SharedError),
    /// To be told to the caller.
    Failed(SharedError),
}

/// A server of a cluster.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
}

impl Address {
    /// Of `host:port`, where the host may be empty: the same as that of who says so.
    pub(super) fn read(text: &str, same_host: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let host = match host {
            "" | "?" => same_host,
            host => host,
        };
        Some(Self {
            host: host.to_owned(),
            port: port.parse().ok()?,
        })
    }
}

/// Sorts an error of the server, which is on `host`.
pub(super) fn refusal(error: &ServerError, host: &str) -> Refusal {
    let address = || {
        let text = error.details()?.split_ascii_whitespace().nth(1)?;
        Address::read(text, host)
    };
    let code = error.code();
    let details = error.details().unwrap_or_default();
    match code {
        "NOSCRIPT" => Refusal::NoScript,
        "MOVED" => address().map_or(Refusal::TryAgain, Refusal::Moved),
        "ASK" => address().map_or(Refusal::TryAgain, Refusal::Ask),
        "TRYAGAIN" => Refusal::TryAgain,
        "READONLY" => Refusal::Leave(SharedError::unavailable("the server is a replica")),
        "LOADING" => Refusal::Leave(SharedError::unavailable("the server loads its data")),
        "MASTERDOWN" => Refusal::Leave(SharedError::unavailable(
            "the server is a replica that has lost its primary",
        )),
        "CLUSTERDOWN" => Refusal::Leave(SharedError::unavailable("the cluster is down")),
        "OOM" => Refusal::Failed(SharedError::unavailable(
            "it has no room: raise maxmemory, or let it evict with a volatile-* policy",
        )),
        "NOREPLICAS" => Refusal::Failed(SharedError::unavailable(
            "it has too few replicas in step (min-replicas-to-write)",
        )),
        "MISCONF" => Refusal::Failed(SharedError::unavailable(
            "it cannot write to its disk (MISCONF)",
        )),
        "BUSY" => Refusal::Failed(SharedError::unavailable("it is busy with another script")),
        "NOAUTH" | "WRONGPASS" => Refusal::Failed(SharedError::configuration(
            "the shared cache refuses user or password",
        )),
        "NOPERM" => Refusal::Failed(SharedError::configuration(format_args!(
            "the user of the shared cache lacks a permission: {}",
            permission(details)
        ))),
        "WRONGTYPE" => Refusal::Failed(SharedError::configuration(
            "the shared cache has a key of another kind where an entry belongs: give it a prefix of its own",
        )),
        "CROSSSLOT" => Refusal::Failed(SharedError::configuration(
            "the shared cache spreads the keys of a shard over slots",
        )),
        _ => Refusal::Failed(SharedError::unavailable(format_args!(
            "it answered {}{}",
            code.escape_debug(),
            script_fault(details)
        ))),
    }
}

/// What the server says is not permitted: a command or "keys", and no argument.
fn permission(details: &str) -> String {
    let command = details
        .split_once("run the '")
        .and_then(|(_, rest)| rest.split_once('\''))
        .map(|(command, _)| command);
    match command {
        Some(command) => format!("add +{} to its ACL rule", command.escape_debug()),
        None => {
            "add ~PREFIX:* and ~PREFIX.* (with the prefix of the cache) to its ACL rule".to_owned()
        }
    }
}

/// The place of a fault in a script, which holds no argument.
fn script_fault(details: &str) -> String {
    let place = details.split_once("user_script:").map(|(_, rest)| rest);
    let line = place.and_then(|rest| rest.split(':').next());
    match line.filter(|line| line.bytes().all(|b| b.is_ascii_digit())) {
        Some(line) => format!(" in line {line} of a script"),
        None => String::new(),
    }
}

/// An error on the way to the server and back. What was sent may have been done.
pub(super) fn lost(error: &RedisError, place: &str) -> SharedError {
    if error.is_timeout() {
        return SharedError::unavailable(format_args!("{place} did not answer in time"));
    }
    match error.kind() {
        ErrorKind::AuthenticationFailed => SharedError::configuration(format_args!(
            "the shared cache at {place} refuses user or password"
        )),
        ErrorKind::Io => SharedError::unavailable(format_args!("the connection to {place} broke")),
        ErrorKind::Server(_) | ErrorKind::Extension => match error.code() {
            Some("WRONGPASS" | "NOAUTH") => SharedError::configuration(format_args!(
                "the shared cache at {place} refuses user or password"
            )),
            code => SharedError::unavailable(format_args!(
                "{place} answered {}",
                code.unwrap_or("an error").escape_debug()
            )),
        },
        _ => SharedError::unavailable(format_args!("{place}: {}", error.category())),
    }
}

/// An answer that is not what the command answers.
pub(super) fn odd(what: &str) -> SharedError {
    SharedError::unavailable(format_args!(
        "it answered {what} in a form that is not known"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_without_a_host_is_on_the_same() {
        let read = |text| Address::read(text, "here").map(|a| (a.host, a.port));
        assert_eq!(read("10.0.0.1:7000"), Some(("10.0.0.1".to_owned(), 7000)));
        assert_eq!(read(":7000"), Some(("here".to_owned(), 7000)));
        assert_eq!(read("?:7000"), Some(("here".to_owned(), 7000)));
        assert_eq!(read("::1:7000"), Some(("::1".to_owned(), 7000)));
        assert_eq!(read("nothing"), None);
    }

    #[test]
    fn what_a_text_repeats_is_not_passed_on() {
        assert_eq!(
            script_fault("secret user_script:12: secret"),
            " in line 12 of a script"
        );
        assert_eq!(script_fault("with args beginning with: 'secret'"), "");
        let told = permission("User me has no permissions to run the 'info' command");
        assert!(told.contains("+info"), "{told}");
    }
}
