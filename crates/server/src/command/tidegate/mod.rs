//! What only this server has: [`TIDEGATE CLASS`, `EVICT`, `EXPLAIN`](self), [`DEADLETTERS`](dead_letters), [`FLUSH` and
//! `SECURE`](flush). The rows of the command table are in [`rows`].

mod dead_letters;
mod flush;
mod rows;
mod words;

use std::sync::Arc;

use tidegate::{Class, Durability, Strategy};
use tidegate_resp::{Reply, Request};

pub(super) use rows::SUBCOMMANDS;

use super::arguments::{at, own, own_from};
use super::errors;
use super::row::Prepared;
use super::session::Session;
use super::string::count;
use crate::config::duration_text;
use crate::server::Server;

type Result<T> = std::result::Result<T, Reply>;

fn evict(server: &Arc<Server>, request: &Request) -> Result<Prepared> {
    let (gate, keys) = (server.gate.clone(), own_from(request, 2));
    Ok(Prepared::change(async move {
        match gate.evict_shared(&keys).await {
            Ok(evicted) => count(evicted),
            Err(error) => errors::of_gate(&error),
        }
    }))
}

fn explain(server: &Arc<Server>, request: &Request) -> Result<Prepared> {
    let (gate, key) = (server.gate.clone(), own(request, 2));
    Ok(Prepared::read(async move {
        facts(&gate.explain_shared(&key).await.to_string())
    }))
}

/// Lines of `name: value` as a map.
fn facts(lines: &str) -> Reply {
    let fact = |line: &str| {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        (
            Reply::bulk(name.trim().to_owned()),
            Reply::bulk(value.trim().to_owned()),
        )
    };
    Reply::Map(lines.lines().map(fact).collect())
}

fn class(server: &Arc<Server>, request: &Request) -> Result<Prepared> {
    let reply = match request.len() {
        2 => Reply::Array(server.gate.classes().iter().map(about).collect()),
        3 => about(server.gate.class_of(at(request, 2))),
        _ => return Err(errors::wrong_arity("tidegate|class")),
    };
    Ok(Prepared::read(async move { reply }))
}

fn about(class: &Class) -> Reply {
    let mut facts = vec![
        ("name", class.name.clone()),
        ("keys", class.keys.to_string()),
        ("strategy", class.strategy.as_str().to_owned()),
    ];
    if class.strategy != Strategy::CacheOnly {
        facts.push(("table", class.table.name.clone()));
    }
    facts.push((
        "ttl",
        class.ttl.map_or_else(|| "none".to_owned(), duration_text),
    ));
    facts.push(("durability", durability(class).to_owned()));
    let facts = facts.into_iter();
    Reply::Map(
        facts
            .map(|(name, value)| (Reply::bulk(name), Reply::bulk(value)))
            .collect(),
    )
}

/// What an acknowledged write of a class has survived, in the words of the configuration.
pub(crate) fn durability(class: &Class) -> &'static str {
    match (class.strategy, class.durability) {
        (Strategy::ReadOnly, _) => "none",
        (Strategy::CacheOnly, _) => "memory",
        (Strategy::WriteBack, Durability::Memory) => "memory",
        (Strategy::WriteBack, Durability::Shared) => "redis",
        (Strategy::WriteBack, Durability::Both) => "both",
        (Strategy::WriteBack, _) => "journal",
        _ => "store",
    }
}

fn help(_: &mut Session, _: &Request) -> Reply {
    super::catalogue::help("tidegate")
}
