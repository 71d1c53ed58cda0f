//! The server: `TIME`, `DBSIZE`, `FLUSHALL`, `CONFIG`. `COMMAND` and `INFO` have files of their own.

use std::sync::Arc;

use tidegate_resp::{Reply, Request};

use super::arguments::{at, is};
use super::row::Work;
use super::session::Session;
use super::string::count;
use super::{errors, glob};
use crate::server::Server;

pub(super) use super::catalogue::{
    command, command_count, command_docs, command_getkeys, command_help, command_info, command_list,
};
pub(super) use super::information::info;

type Result<T> = std::result::Result<T, Reply>;

pub(super) fn time(session: &mut Session, _: &Request) -> Reply {
    let millis = session.server.gate.now().as_millis();
    let (seconds, rest) = (millis / 1000, millis % 1000);
    // The clock of the gate counts milliseconds, so the last three digits are zero.
    Reply::Array(vec![
        Reply::bulk(seconds.to_string()),
        Reply::bulk((rest * 1000).to_string()),
    ])
}

pub(super) fn dbsize(server: &Arc<Server>, _: &Request) -> Result<Work> {
    let gate = server.gate.clone();
    Ok(Box::pin(async move {
        match gate.count().await {
            Ok(keys) => count(usize::try_from(keys).unwrap_or(usize::MAX)),
            Err(error) => errors::of_gate(&error),
        }
    }))
}

/// Empties the cache and never the store. What is dirty stays; keys of cache-only classes are gone.
pub(super) fn flushall(server: &Arc<Server>, request: &Request) -> Result<Work> {
    match (request.len(), at(request, 1)) {
        (1, _) => {}
        (2, mode) if is(mode, "SYNC") || is(mode, "ASYNC") => {}
        _ => return Err(errors::syntax()),
    }
    let gate = server.gate.clone();
    Ok(Box::pin(async move {
        match gate.evict_all_shared().await {
            Ok(()) => Reply::ok(),
            Err(error) => errors::of_gate(&error),
        }
    }))
}

pub(super) fn flushdb(server: &Arc<Server>, request: &Request) -> Result<Work> {
    flushall(server, request)
}

/// The settings that clients ask for and this server has; each as Redis names it.
pub(super) fn config_get(session: &mut Session, request: &Request) -> Reply {
    let server = &session.server;
    let known = [
        // Neither Redis's append-only file nor its snapshots exist here; the store keeps the data.
        ("appendonly", "no".to_owned()),
        ("bind", server.address.ip().to_string()),
        ("databases", "1".to_owned()),
        ("maxclients", server.config.connections_max.to_string()),
        ("port", server.address.port().to_string()),
        ("proto-max-bulk-len", tidegate::VALUE_BYTES_MAX.to_string()),
        ("save", String::new()),
        (
            "timeout",
            server
                .config
                .idle_timeout
                .map_or(0, |idle| idle.as_secs())
                .to_string(),
        ),
    ];
    let asked = |name: &str| {
        let matches =
            |pattern: &[u8]| glob::matches(&pattern.to_ascii_lowercase(), name.as_bytes());
        request.arguments().skip(2).any(matches)
    };
    let found = known.into_iter().filter(|(name, _)| asked(name));
    Reply::Map(
        found
            .map(|(name, value)| (Reply::bulk(name), Reply::bulk(value)))
            .collect(),
    )
}

pub(super) fn config_help(_: &mut Session, _: &Request) -> Reply {
    super::catalogue::help("config")
}
