//! `TIDEGATE FLUSH` and `TIDEGATE SECURE`: waiting until writes are where they are safe.

use std::sync::Arc;
use std::time::Duration;

use tidegate::{ClassFlush, Durability, FlushReport};
use tidegate_resp::{Reply, Request};

use super::super::arguments::{at, is};
use super::super::errors;
use super::super::row::Work;
use super::Result;
use super::words::{deadline, options, text};
use crate::server::Server;

/// How long is waited unless a `TIMEOUT` says otherwise.
const DEADLINE: Duration = Duration::from_secs(30);

/// `FLUSH [[KEY] key | CLASS name] [TIMEOUT ms]`. A key named like an option is named after `KEY`.
pub(super) fn flush(server: &Arc<Server>, request: &Request) -> Result<Work> {
    let is_word = |word: &[u8]| {
        ["KEY", "CLASS", "TIMEOUT"]
            .iter()
            .any(|name| is(word, name))
    };
    if let Some(key) = request.argument(2)
        && !is_word(key)
    {
        let [timeout] = options(request, 3, ["TIMEOUT"])?;
        return flush_key(server, key, timeout);
    }
    let [key, class, timeout] = options(request, 2, ["KEY", "CLASS", "TIMEOUT"])?;
    if let Some(key) = key {
        if class.is_some() {
            return Err(Reply::error("ERR KEY and CLASS exclude each other"));
        }
        return flush_key(server, key, timeout);
    }
    let deadline = deadline(timeout, DEADLINE)?;
    let class = class.map(|class| text("CLASS", class)).transpose()?;
    let (gate, class) = (server.gate.clone(), class.map(str::to_owned));
    Ok(Box::pin(async move {
        let report = match &class {
            Some(class) => gate.flush_class(class, deadline).await,
            None => gate.flush(deadline).await,
        };
        report.map_or_else(|error| errors::of_gate(&error), |report| reported(&report))
    }))
}

fn flush_key(server: &Arc<Server>, key: &[u8], timeout: Option<&[u8]>) -> Result<Work> {
    let deadline = deadline(timeout, DEADLINE)?;
    wait_for(server, key, Durability::Store, deadline)
}

/// `SECURE key JOURNAL|STORE [TIMEOUT ms]`.
pub(super) fn secure(server: &Arc<Server>, request: &Request) -> Result<Work> {
    let durability = match at(request, 3) {
        word if is(word, "JOURNAL") => Durability::Journal,
        word if is(word, "STORE") => Durability::Store,
        word => {
            let before = "ERR a write is secured in JOURNAL or STORE, not in '";
            return Err(errors::naming(before, word, "'"));
        }
    };
    let [timeout] = options(request, 4, ["TIMEOUT"])?;
    let deadline = deadline(timeout, DEADLINE)?;
    wait_for(server, at(request, 2), durability, deadline)
}

fn wait_for(
    server: &Arc<Server>,
    key: &[u8],
    durability: Durability,
    deadline: Duration,
) -> Result<Work> {
    if key.len() > tidegate::KEY_BYTES_MAX {
        return Err(errors::key_too_long());
    }
    let (gate, key) = (server.gate.clone(), bytes::Bytes::copy_from_slice(key));
    Ok(Box::pin(async move {
        match gate.secure(&key, durability, deadline).await {
            Ok(receipt) => Reply::Map(vec![
                (
                    Reply::bulk("durability"),
                    Reply::bulk(word(receipt.durability)),
                ),
                (
                    Reply::bulk("version"),
                    Reply::bulk(receipt.version.to_string()),
                ),
            ]),
            Err(error) => errors::of_gate(&error),
        }
    }))
}

fn word(durability: Durability) -> &'static str {
    match durability {
        Durability::Memory => "memory",
        Durability::Shared => "redis",
        Durability::Journal => "journal",
        Durability::Both => "both",
        _ => "store",
    }
}

fn reported(report: &FlushReport) -> Reply {
    let class = |class: &ClassFlush| {
        let mut facts = vec![(Reply::bulk("class"), Reply::bulk(class.class.clone()))];
        facts.extend(figures(class.flushed, class.left, class.parked));
        Reply::Map(facts)
    };
    let mut facts = figures(report.flushed, report.left, report.parked).to_vec();
    let classes = report.classes.iter().map(class).collect();
    facts.push((Reply::bulk("classes"), Reply::Array(classes)));
    Reply::Map(facts)
}

fn figures(flushed: u64, left: u64, parked: u64) -> [(Reply, Reply); 3] {
    let number = |n: u64| Reply::Integer(i64::try_from(n).unwrap_or(i64::MAX));
    [
        (Reply::bulk("flushed"), number(flushed)),
        (Reply::bulk("left"), number(left)),
        (Reply::bulk("parked"), number(parked)),
    ]
}
