//! `INFO`: figures by sections, in the form that Redis gives them.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use tidegate::Strategy;
use tidegate_resp::{Reply, Request};

use super::arguments::is;
use super::connection::REDIS_VERSION;
use super::errors;
use super::row::Work;
use crate::config::size_text;
use crate::server::{Counters, Server};
use crate::shared_figures::SHARED_FIGURES;

/// The sections, and whether they are shown unless asked for by name. Counting all keys is work for the store.
const SECTIONS: [(&str, bool); 8] = [
    ("server", true),
    ("clients", true),
    ("memory", true),
    ("stats", true),
    ("tidegate", true),
    ("shared", true),
    ("writeback", true),
    ("keyspace", false),
];

pub(super) fn info(server: &Arc<Server>, request: &Request) -> Result<Work, Reply> {
    let asked = |name: &str, by_default: bool| {
        let mut words = request.arguments().skip(1).peekable();
        let matches = |word: &[u8]| {
            is(word, name)
                || is(word, "all")
                || is(word, "everything")
                || (by_default && is(word, "default"))
        };
        if words.peek().is_none() {
            by_default
        } else {
            words.any(matches)
        }
    };
    let names = SECTIONS
        .into_iter()
        .filter(|(name, by_default)| asked(name, *by_default));
    let names: Vec<&str> = names.map(|(name, _)| name).collect();
    let server = Arc::clone(server);
    Ok(Box::pin(async move {
        let mut text = String::new();
        for name in names {
            if !text.is_empty() {
                text.push_str("\r\n");
            }
            // Writing to a string cannot fail.
            let _ = match name {
                "server" => about_server(&mut text, &server),
                "clients" => about_clients(&mut text, &server),
                "memory" => about_memory(&mut text, &server),
                "stats" => about_stats(&mut text, &server),
                "tidegate" => about_tidegate(&mut text, &server),
                "shared" => about_shared(&mut text, &server),
                "writeback" => about_write_back(&mut text, &server),
                _ => match server.gate.count().await {
                    Ok(keys) => about_keyspace(&mut text, keys),
                    Err(error) => return errors::of_gate(&error),
                },
            };
        }
        Reply::Verbatim {
            format: *b"txt",
            text: text.into(),
        }
    }))
}

type Written = std::fmt::Result;

fn about_server(text: &mut String, server: &Server) -> Written {
    let uptime = server.uptime().as_secs();
    write!(text, "# Server\r\n")?;
    write!(text, "redis_version:{REDIS_VERSION}\r\n")?;
    write!(text, "tidegate_version:{}\r\n", env!("CARGO_PKG_VERSION"))?;
    write!(text, "redis_mode:standalone\r\n")?;
    write!(
        text,
        "os:{} {}\r\n",
        std::env::consts::OS,
        std::env::consts::ARCH
    )?;
    write!(text, "arch_bits:{}\r\n", usize::BITS)?;
    write!(text, "process_id:{}\r\n", std::process::id())?;
    write!(text, "tcp_port:{}\r\n", server.address.port())?;
    write!(
        text,
        "server_time_usec:{}\r\n",
        server.gate.now().as_millis().saturating_mul(1000)
    )?;
    write!(text, "uptime_in_seconds:{uptime}\r\n")?;
    write!(text, "uptime_in_days:{}\r\n", uptime / 86_400)
}

fn about_clients(text: &mut String, server: &Server) -> Written {
    write!(text, "# Clients\r\n")?;
    write!(text, "connected_clients:{}\r\n", server.clients.len())?;
    write!(text, "maxclients:{}\r\n", server.config.connections_max)
}

fn about_memory(text: &mut String, server: &Server) -> Written {
    let near = server.gate.stats().near;
    write!(text, "# Memory\r\n")?;
    // What the near cache holds, not what the process takes.
    write!(text, "used_memory:{}\r\n", near.bytes)?;
    write!(text, "used_memory_human:{}\r\n", size_text(near.bytes))?;
    write!(text, "maxmemory:{}\r\n", near.capacity_bytes)?;
    write!(
        text,
        "maxmemory_human:{}\r\n",
        size_text(near.capacity_bytes)
    )
}

fn about_stats(text: &mut String, server: &Server) -> Written {
    let stats = server.gate.stats();
    let sum =
        |figure: fn(&tidegate::ClassStats) -> u64| stats.classes.iter().map(figure).sum::<u64>();
    let counters = &server.counters;
    write!(text, "# Stats\r\n")?;
    write!(
        text,
        "total_connections_received:{}\r\n",
        Counters::get(&counters.connections)
    )?;
    write!(
        text,
        "total_commands_processed:{}\r\n",
        Counters::get(&counters.commands)
    )?;
    write!(
        text,
        "total_net_input_bytes:{}\r\n",
        Counters::get(&counters.bytes_in)
    )?;
    write!(
        text,
        "total_net_output_bytes:{}\r\n",
        Counters::get(&counters.bytes_out)
    )?;
    write!(
        text,
        "rejected_connections:{}\r\n",
        Counters::get(&counters.connections_rejected)
    )?;
    write!(text, "evicted_keys:{}\r\n", stats.near.evictions)?;
    // A read answered from memory is a hit, whether the key is there or known to be absent.
    write!(
        text,
        "keyspace_hits:{}\r\n",
        sum(|c| c.hits + c.negative_hits + c.stale)
    )?;
    write!(text, "keyspace_misses:{}\r\n", sum(|c| c.misses))?;
    write!(
        text,
        "unexpected_error_replies:{}\r\n",
        Counters::get(&counters.broke_down)
    )
}

fn about_tidegate(text: &mut String, server: &Server) -> Written {
    let stats = server.gate.stats();
    write!(text, "# Tidegate\r\n")?;
    write!(text, "store:{}\r\n", server.store)?;
    write!(text, "near_entries:{}\r\n", stats.near.entries)?;
    write!(text, "near_bytes:{}\r\n", stats.near.bytes)?;
    write!(text, "quarantined_entries:{}\r\n", stats.quarantined)?;
    for class in &stats.classes {
        write!(
            text,
            "class_{}:strategy={}",
            class.name,
            class.strategy.as_str()
        )?;
        write!(
            text,
            ",hits={},negative_hits={}",
            class.hits, class.negative_hits
        )?;
        write!(
            text,
            ",misses={},stale={},loads={}",
            class.misses, class.stale, class.loads
        )?;
        write!(
            text,
            ",coalesced={},writes={}",
            class.coalesced, class.writes
        )?;
        write!(
            text,
            ",refused={},failed={},unknown={}\r\n",
            class.refused, class.failed, class.unknown
        )?;
    }
    Ok(())
}

/// The cache that several nodes share, if there is one.
fn about_shared(text: &mut String, server: &Server) -> Written {
    write!(text, "# Shared\r\n")?;
    let stats = server.gate.stats();
    let Some(shared) = &stats.shared else {
        return write!(text, "shared_cache:none\r\n");
    };
    let place = server.shared.as_deref().unwrap_or("none");
    write!(text, "shared_cache:{place}\r\n")?;
    write!(text, "breaker:{}\r\n", shared.breaker.as_str())?;
    let hits: u64 = stats.classes.iter().map(|class| class.shared_hits).sum();
    write!(text, "shared_hits:{hits}\r\n")?;
    for figure in &SHARED_FIGURES {
        write!(text, "{}:{}\r\n", figure.name, (figure.of)(shared))?;
    }
    let disagreement = shared.disagreement.as_deref().unwrap_or("none");
    write!(text, "disagreement:{disagreement}\r\n")
}

/// What is not in the store yet, how it gets there, and how long that takes.
fn about_write_back(text: &mut String, server: &Server) -> Written {
    let stats = server.gate.stats();
    let sum =
        |figure: fn(&tidegate::ClassStats) -> u64| stats.classes.iter().map(figure).sum::<u64>();
    let classes = || {
        let classes = stats.classes.iter();
        classes.filter(|class| class.strategy == Strategy::WriteBack)
    };
    let oldest = classes().filter_map(|class| class.oldest_dirty).max();
    // Classes drain beside each other, so the slowest one counts.
    let drains: Option<Vec<_>> = classes().map(|class| class.time_to_drain).collect();
    let drain = drains.map(|drains| drains.into_iter().max().unwrap_or_default());
    write!(text, "# Writeback\r\n")?;
    write!(text, "dirty_entries:{}\r\n", sum(|c| c.dirty_entries))?;
    write!(text, "dirty_bytes:{}\r\n", sum(|c| c.dirty_bytes))?;
    write!(text, "oldest_dirty_ms:{}\r\n", millis(oldest))?;
    write!(text, "parked_entries:{}\r\n", sum(|c| c.parked))?;
    write!(text, "parked_bytes:{}\r\n", sum(|c| c.parked_bytes))?;
    write!(
        text,
        "journal_bytes:{}\r\n",
        stats.journal_bytes.unwrap_or(0)
    )?;
    write!(
        text,
        "journal_bytes_max:{}\r\n",
        stats.journal_bytes_max.unwrap_or(0)
    )?;
    write!(
        text,
        "journal_failed:{}\r\n",
        u8::from(stats.journal_failed)
    )?;
    write!(text, "flushed_entries:{}\r\n", sum(|c| c.flushed))?;
    write!(text, "superseded_entries:{}\r\n", sum(|c| c.superseded))?;
    write!(text, "discarded_entries:{}\r\n", sum(|c| c.discarded))?;
    write!(text, "flush_rounds:{}\r\n", sum(|c| c.flush_rounds))?;
    write!(text, "flush_failures:{}\r\n", sum(|c| c.flush_failures))?;
    write!(text, "flushes_in_flight:{}\r\n", stats.flushes_in_flight)?;
    write!(text, "flush_window:{}\r\n", stats.flush_window)?;
    // The sum of no numbers is -0.0.
    let rate: f64 = classes()
        .map(|class| class.flush_rate)
        .fold(0.0, |a, b| a + b);
    write!(text, "flush_rate_per_sec:{rate:.1}\r\n")?;
    match drain {
        Some(drain) => write!(text, "time_to_drain_ms:{}\r\n", millis(Some(drain)))?,
        None => write!(text, "time_to_drain_ms:unknown\r\n")?,
    }
    write!(text, "breaker:{}\r\n", stats.breaker.as_str())?;
    for class in classes() {
        write!(
            text,
            "writeback_{}:dirty={},dirty_bytes={}",
            class.name, class.dirty_entries, class.dirty_bytes
        )?;
        write!(text, ",oldest_ms={}", millis(class.oldest_dirty))?;
        write!(
            text,
            ",parked={},flushed={},superseded={}",
            class.parked, class.flushed, class.superseded
        )?;
        write!(
            text,
            ",rounds={},failures={}",
            class.flush_rounds, class.flush_failures
        )?;
        write!(text, ",rate={:.1}\r\n", class.flush_rate)?;
    }
    Ok(())
}

fn millis(duration: Option<Duration>) -> u128 {
    duration.unwrap_or_default().as_millis()
}

fn about_keyspace(text: &mut String, keys: u64) -> Written {
    write!(text, "# Keyspace\r\n")?;
    if keys > 0 {
        write!(text, "db0:keys={keys}\r\n")?;
    }
    Ok(())
}
