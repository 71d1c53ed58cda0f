//! All metrics, each with its unit in its name and the question it answers in its help. Labels never hold keys.

mod shared_cache;

use tidegate::{BreakerState, Class, ClassStats, Gate, Stats, Strategy};

use super::page::{Kind, Page};
use crate::server::{Counters, Server};

/// The page of a server, now.
pub(super) fn page(server: &Server) -> String {
    let mut page = Page::default();
    let stats = server.gate.stats();
    about_process(&mut page, server);
    about_clients(&mut page, server);
    about_near(&mut page, &stats);
    about_traffic(&mut page, &stats);
    if let Some(shared) = &stats.shared {
        shared_cache::about_shared(&mut page, shared, &stats.classes);
    }
    about_write_back(&mut page, &stats, &server.gate);
    about_flushing(&mut page, &stats);
    page.into_text()
}

fn about_process(page: &mut Page, server: &Server) {
    page.family(
        "tidegate_build_info",
        Kind::Gauge,
        "Always 1; the version is a label.",
    )
    .sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    page.family(
        "tidegate_start_time_seconds",
        Kind::Gauge,
        "When the server started, in seconds since 1970.",
    )
    .value(seconds(server.started.as_millis()));
}

fn about_clients(page: &mut Page, server: &Server) {
    let counters = &server.counters;
    page.family(
        "tidegate_connections",
        Kind::Gauge,
        "Clients connected now.",
    )
    .value(server.clients.len());
    page.family("tidegate_connections_max", Kind::Gauge, "How many may be.")
        .value(server.config.connections_max);
    let figures = [
        (
            "tidegate_connections_total",
            "Connections taken.",
            &counters.connections,
        ),
        (
            "tidegate_connections_rejected_total",
            "Connections turned away because there were as many as allowed.",
            &counters.connections_rejected,
        ),
        (
            "tidegate_commands_total",
            "Commands run.",
            &counters.commands,
        ),
        (
            "tidegate_commands_broken_total",
            "Commands that broke down; each is a bug.",
            &counters.broke_down,
        ),
        (
            "tidegate_received_bytes_total",
            "Bytes of requests.",
            &counters.bytes_in,
        ),
        (
            "tidegate_sent_bytes_total",
            "Bytes of answers.",
            &counters.bytes_out,
        ),
    ];
    for (name, help, counter) in figures {
        page.family(name, Kind::Counter, help)
            .value(Counters::get(counter));
    }
}

fn about_near(page: &mut Page, stats: &Stats) {
    let near = &stats.near;
    page.family(
        "tidegate_near_entries",
        Kind::Gauge,
        "Entries in the near cache.",
    )
    .value(near.entries);
    page.family(
        "tidegate_near_bytes",
        Kind::Gauge,
        "Bytes in the near cache: keys, values and overhead.",
    )
    .value(near.bytes);
    page.family(
        "tidegate_near_capacity_bytes",
        Kind::Gauge,
        "How many it may have.",
    )
    .value(near.capacity_bytes);
    page.family(
        "tidegate_near_evictions_total",
        Kind::Counter,
        "Entries that left the near cache for want of room.",
    )
    .value(near.evictions);
}

/// A bound of a class.
type Bound = fn(&Class) -> u64;

/// A figure of a class.
type Figure = fn(&ClassStats) -> u64;

fn about_traffic(page: &mut Page, stats: &Stats) {
    let reads: [(&str, Figure); 4] = [
        ("hit", |c| c.hits),
        ("negative", |c| c.negative_hits),
        ("stale", |c| c.stale),
        ("miss", |c| c.misses),
    ];
    page.family(
        "tidegate_reads_total",
        Kind::Counter,
        "Reads by where the answer came from: hit (memory), negative (memory, known absent), stale (past its ttl, the \
         store being away), miss (waited for).",
    );
    outcomes(page, stats, &reads);
    page.family(
        "tidegate_loads_total",
        Kind::Counter,
        "Keys asked of the store.",
    );
    figure(page, &stats.classes, |c| c.loads);
    page.family(
        "tidegate_coalesced_total",
        Kind::Counter,
        "Reads and writes that shared the load or commit of another.",
    );
    figure(page, &stats.classes, |c| c.coalesced);
    let writes: [(&str, Figure); 4] = [
        ("acknowledged", |c| c.writes),
        ("refused", |c| c.refused),
        ("failed", |c| c.failed),
        ("unknown", |c| c.unknown),
    ];
    page.family(
        "tidegate_writes_total",
        Kind::Counter,
        "Writes by their answer: acknowledged, refused (never), failed (not now), unknown (sent and not answered).",
    );
    outcomes(page, stats, &writes);
    page.family(
        "tidegate_quarantined_entries",
        Kind::Gauge,
        "Keys whose last write has an unknown outcome; they are read from the store until it is known.",
    )
    .value(stats.quarantined);
}

fn about_write_back(page: &mut Page, stats: &Stats, gate: &Gate) {
    let mut gauge = |name, help, figure_of: Figure| {
        page.family(name, Kind::Gauge, help);
        figure(page, write_back(stats), figure_of);
    };
    gauge(
        "tidegate_dirty_entries",
        "Acknowledged entries that the store does not have yet, dead letters not counted.",
        |c| c.dirty_entries,
    );
    gauge(
        "tidegate_dirty_bytes",
        "What the bound on dirty bytes counts: keys, values and overhead, dead letters too.",
        |c| c.dirty_bytes,
    );
    gauge(
        "tidegate_dead_letter_bytes",
        "The part of the dirty bytes that dead letters have.",
        |c| c.parked_bytes,
    );
    gauge(
        "tidegate_dead_letters",
        "Acknowledged entries that the store refuses, kept until a person decides.",
        |c| c.parked,
    );
    let bounds: [(&str, &str, Bound); 2] = [
        (
            "tidegate_dirty_bytes_max",
            "The bound on dirty bytes.",
            |class| class.dirty_bytes_max,
        ),
        (
            "tidegate_dirty_entries_max",
            "The bound on dirty entries.",
            |class| class.dirty_entries_max,
        ),
    ];
    for (name, help, bound) in bounds {
        page.family(name, Kind::Gauge, help);
        for class in gate.classes() {
            if class.strategy == Strategy::WriteBack {
                page.sample(&[("class", &class.name)], bound(class));
            }
        }
    }
    page.family(
        "tidegate_flush_lag_seconds",
        Kind::Gauge,
        "How long the oldest dirty entry has been waiting; 0 if there is none.",
    );
    for class in write_back(stats) {
        let lag = class.oldest_dirty.unwrap_or_default();
        page.sample(&[("class", &class.name)], lag.as_secs_f64());
    }
    if let Some(bytes) = stats.journal_bytes {
        page.family(
            "tidegate_journal_bytes",
            Kind::Gauge,
            "What the journal occupies.",
        )
        .value(bytes);
    }
    page.family(
        "tidegate_journal_failed",
        Kind::Gauge,
        "1 if a sync of the journal failed: it takes nothing more until the server is started again.",
    )
    .value(u8::from(stats.journal_failed));
    if let Some(bytes) = stats.journal_bytes_max {
        page.family(
            "tidegate_journal_bytes_max",
            Kind::Gauge,
            "What the journal may occupy.",
        )
        .value(bytes);
    }
}

fn about_flushing(page: &mut Page, stats: &Stats) {
    let flushed: [(&str, Figure); 3] = [
        ("stored", |c| c.flushed),
        ("superseded", |c| c.superseded),
        ("discarded", |c| c.discarded),
    ];
    page.family(
        "tidegate_flushed_entries_total",
        Kind::Counter,
        "Dirty entries by their end: stored, superseded by something newer in the store, discarded on request.",
    );
    for class in write_back(stats) {
        for (outcome, figure) in flushed {
            page.sample(
                &[("class", &class.name), ("outcome", outcome)],
                figure(class),
            );
        }
    }
    let counters: [(&str, &str, Figure); 2] = [
        (
            "tidegate_flush_batches_total",
            "Batches sent to the store.",
            |c| c.flush_rounds,
        ),
        (
            "tidegate_flush_batch_failures_total",
            "Those of them that failed and were tried again.",
            |c| c.flush_failures,
        ),
    ];
    for (name, help, figure_of) in counters {
        page.family(name, Kind::Counter, help);
        figure(page, write_back(stats), figure_of);
    }
    page.family(
        "tidegate_flush_entries_per_second",
        Kind::Gauge,
        "Entries that reach the store in a second, over some ten seconds.",
    );
    for class in write_back(stats) {
        page.sample(&[("class", &class.name)], class.flush_rate);
    }
    page.family(
        "tidegate_drain_estimate_seconds",
        Kind::Gauge,
        "How long it takes to flush what is dirty, at that rate; +Inf while nothing is being flushed.",
    );
    for class in write_back(stats) {
        let labels = [("class", class.name.as_str())];
        match class.time_to_drain {
            Some(time) => page.sample(&labels, time.as_secs_f64()),
            None => page.sample(&labels, "+Inf"),
        };
    }
    let gauges = [
        (
            "tidegate_flushes_in_flight",
            "Batches on their way to the store.",
            stats.flushes_in_flight,
        ),
        (
            "tidegate_flushes_in_flight_max",
            "How many there may be at once, as the store's commits allow now.",
            stats.flush_window,
        ),
        (
            "tidegate_flush_batch_entries_max",
            "How many entries a batch may have, as the store's commits allow now.",
            stats.flush_batch,
        ),
    ];
    for (name, help, value) in gauges {
        page.family(name, Kind::Gauge, help).value(value);
    }
    page.family(
        "tidegate_flusher_restarts_total",
        Kind::Counter,
        "How often a flusher broke down and was started anew; each is a bug.",
    )
    .value(stats.flusher_restarts);
    page.family(
        "tidegate_store_breaker_state",
        Kind::Gauge,
        "1 for the state the breaker is in: closed (flushes go), open (they wait), half-open (one goes, to see).",
    );
    breaker(page, stats.breaker);
}

/// A sample for each state, 1 for the one it is in.
fn breaker(page: &mut Page, is_in: BreakerState) {
    for state in [
        BreakerState::Closed,
        BreakerState::Open,
        BreakerState::HalfOpen,
    ] {
        page.sample(&[("state", state.as_str())], u8::from(is_in == state));
    }
}

/// The classes that have dirty entries.
fn write_back(stats: &Stats) -> impl Iterator<Item = &ClassStats> {
    stats
        .classes
        .iter()
        .filter(|class| class.strategy == Strategy::WriteBack)
}

fn figure<'a>(page: &mut Page, classes: impl IntoIterator<Item = &'a ClassStats>, figure: Figure) {
    for class in classes {
        page.sample(&[("class", &class.name)], figure(class));
    }
}

fn outcomes(page: &mut Page, stats: &Stats, outcomes: &[(&str, Figure)]) {
    for class in &stats.classes {
        for (outcome, figure) in outcomes {
            page.sample(
                &[("class", &class.name), ("outcome", outcome)],
                figure(class),
            );
        }
    }
}

fn seconds(millis: u64) -> String {
    format!("{}.{:03}", millis / 1000, millis % 1000)
}
