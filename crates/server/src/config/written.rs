//! A configuration as it was written: every key optional, each with its line, nothing judged.

use std::net::SocketAddr;
use std::time::Duration;

use toml::de::DeTable;

use super::section::{AdminAddress, At, Bytes, OptionalColumn, Section, Sheet, Texts};

/// The whole file.
#[derive(Default, Debug)]
pub(crate) struct Written {
    pub(crate) data_dir: Option<At<String>>,
    pub(crate) server: WrittenServer,
    pub(crate) near_capacity: Option<At<Bytes>>,
    pub(crate) store_url: Option<At<String>>,
    pub(crate) store_url_env: Option<At<String>>,
    pub(crate) store_lanes: Option<At<usize>>,
    pub(crate) journal: WrittenJournal,
    /// Nothing: this node is alone.
    pub(crate) shared: Option<WrittenShared>,
    pub(crate) classes: Vec<WrittenClass>,
}

/// The table `[journal]`.
#[derive(Default, Debug)]
pub(crate) struct WrittenJournal {
    pub(crate) path: Option<At<String>>,
    pub(crate) size_max: Option<At<Bytes>>,
    pub(crate) segment: Option<At<Bytes>>,
}

/// The table `[shared]`.
#[derive(Debug)]
pub(crate) struct WrittenShared {
    pub(crate) line: usize,
    /// Whether an address is there at all, be it right or wrong.
    pub(crate) has_url: bool,
    pub(crate) url: Option<At<Texts>>,
    pub(crate) url_env: Option<At<String>>,
    pub(crate) password_env: Option<At<String>>,
    pub(crate) password_file: Option<At<String>>,
    pub(crate) prefix: Option<At<String>>,
    pub(crate) shards: Option<At<u64>>,
    pub(crate) lease: Option<At<Duration>>,
    pub(crate) mark_timeout: Option<At<Duration>>,
    pub(crate) outside_poll: Option<At<Duration>>,
    pub(crate) connect_timeout: Option<At<Duration>>,
    pub(crate) response_timeout: Option<At<Duration>>,
    pub(crate) replicas: Option<At<u64>>,
}

/// The table `[server]`.
#[derive(Default, Debug)]
pub(crate) struct WrittenServer {
    pub(crate) listen: Option<At<SocketAddr>>,
    pub(crate) allow_remote: Option<At<bool>>,
    pub(crate) connections_max: Option<At<usize>>,
    pub(crate) pipeline_max: Option<At<usize>>,
    pub(crate) request_max: Option<At<Bytes>>,
    pub(crate) output_max: Option<At<Bytes>>,
    pub(crate) idle_timeout: Option<At<Duration>>,
    pub(crate) shutdown_timeout: Option<At<Duration>>,
    pub(crate) drain_timeout: Option<At<Duration>>,
    pub(crate) admin: Option<At<AdminAddress>>,
}

/// One table `[[class]]`.
#[derive(Debug)]
pub(crate) struct WrittenClass {
    /// `class[1]`, for messages.
    pub(crate) path: String,
    /// Where the table begins.
    pub(crate) line: usize,
    pub(crate) name: Option<At<String>>,
    pub(crate) keys: Option<At<String>>,
    pub(crate) strategy: Option<At<String>>,
    pub(crate) level: Option<At<String>>,
    pub(crate) ttl: Option<At<Duration>>,
    pub(crate) ttl_jitter: Option<At<f64>>,
    pub(crate) negative_ttl: Option<At<Duration>>,
    pub(crate) stale_if_error: Option<At<Duration>>,
    pub(crate) load_timeout: Option<At<Duration>>,
    pub(crate) table: Option<At<String>>,
    pub(crate) create_table: Option<At<bool>>,
    pub(crate) trigger: Option<At<bool>>,
    pub(crate) outbox: Option<At<bool>>,
    pub(crate) value_type: Option<At<String>>,
    pub(crate) columns: Option<WrittenColumns>,
    pub(crate) write_back: WrittenWriteBack,
}

/// The keys of a class that only write-back classes have.
#[derive(Debug)]
pub(crate) struct WrittenWriteBack {
    pub(crate) durability: Option<At<String>>,
    pub(crate) linger: Option<At<Duration>>,
    pub(crate) batch: Option<At<usize>>,
    pub(crate) batch_bytes: Option<At<Bytes>>,
    pub(crate) dirty_max: Option<At<Bytes>>,
    pub(crate) dirty_entries_max: Option<At<u64>>,
    pub(crate) dirty_age_max: Option<At<Duration>>,
    pub(crate) when_full: Option<At<String>>,
    pub(crate) block_timeout: Option<At<Duration>>,
    pub(crate) when_journal_fails: Option<At<String>>,
    pub(crate) conflict: Option<At<String>>,
    pub(crate) delta: Option<At<bool>>,
}

/// The table `columns` of a class.
#[derive(Debug)]
pub(crate) struct WrittenColumns {
    pub(crate) line: usize,
    pub(crate) key: Option<At<String>>,
    pub(crate) value: Option<At<String>>,
    pub(crate) version: Option<At<String>>,
    pub(crate) expires_at: Option<At<OptionalColumn>>,
    pub(crate) updated_at: Option<At<OptionalColumn>>,
}

/// Reads a file, reporting to `sheet` what is no TOML, an unknown key, or a value of the wrong type.
pub(crate) fn read(text: &str, sheet: &Sheet) -> Written {
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let line = error.span().map_or(1, |span| sheet.line(span.start));
        sheet.report(line, "", error.message());
    }
    let mut root = Section::root(sheet, document.get_ref());
    let mut near = root.section("near");
    let mut store = root.section("store");
    let mut journal = root.section("journal");
    let written = Written {
        data_dir: root.take("data_dir"),
        server: read_server(root.section("server")),
        near_capacity: near.take("capacity"),
        store_url: store.take("url"),
        store_url_env: store.take("url_env"),
        store_lanes: store.take("lanes"),
        journal: WrittenJournal {
            path: journal.take("path"),
            size_max: journal.take("size_max"),
            segment: journal.take("segment"),
        },
        shared: read_shared(root.section("shared")),
        classes: root.sections("class").into_iter().map(read_class).collect(),
    };
    for section in [near, store, journal, root] {
        section.finish();
    }
    written
}

fn read_shared(mut section: Section<'_>) -> Option<WrittenShared> {
    let shared = WrittenShared {
        line: section.line,
        has_url: section.has("url") || section.has("url_env"),
        url: section.take("url"),
        url_env: section.take("url_env"),
        password_env: section.take("password_env"),
        password_file: section.take("password_file"),
        prefix: section.take("prefix"),
        shards: section.take("shards"),
        lease: section.take("lease"),
        mark_timeout: section.take("mark_timeout"),
        outside_poll: section.take("outside_poll"),
        connect_timeout: section.take("connect_timeout"),
        response_timeout: section.take("response_timeout"),
        replicas: section.take("replicas"),
    };
    let written = section.is_written();
    section.finish();
    written.then_some(shared)
}

fn read_server(mut section: Section<'_>) -> WrittenServer {
    let server = WrittenServer {
        listen: section.take("listen"),
        allow_remote: section.take("allow_remote"),
        connections_max: section.take("connections_max"),
        pipeline_max: section.take("pipeline_max"),
        request_max: section.take("request_max"),
        output_max: section.take("output_max"),
        idle_timeout: section.take("idle_timeout"),
        shutdown_timeout: section.take("shutdown_timeout"),
        drain_timeout: section.take("drain_timeout"),
        admin: section.take("admin"),
    };
    section.finish();
    server
}

fn read_class(mut section: Section<'_>) -> WrittenClass {
    let columns = section.section("columns");
    let class = WrittenClass {
        path: section.path().to_owned(),
        line: section.line,
        name: section.take("name"),
        keys: section.take("keys"),
        strategy: section.take("strategy"),
        level: section.take("level"),
        ttl: section.take("ttl"),
        ttl_jitter: section.take("ttl_jitter"),
        negative_ttl: section.take("negative_ttl"),
        stale_if_error: section.take("stale_if_error"),
        load_timeout: section.take("load_timeout"),
        table: section.take("table"),
        create_table: section.take("create_table"),
        trigger: section.take("trigger"),
        outbox: section.take("outbox"),
        value_type: section.take("value_type"),
        columns: read_columns(columns),
        write_back: read_write_back(&mut section),
    };
    section.finish();
    class
}

fn read_write_back(section: &mut Section<'_>) -> WrittenWriteBack {
    WrittenWriteBack {
        durability: section.take("durability"),
        linger: section.take("linger"),
        batch: section.take("batch"),
        batch_bytes: section.take("batch_bytes"),
        dirty_max: section.take("dirty_max"),
        dirty_entries_max: section.take("dirty_entries_max"),
        dirty_age_max: section.take("dirty_age_max"),
        when_full: section.take("when_full"),
        block_timeout: section.take("block_timeout"),
        when_journal_fails: section.take("when_journal_fails"),
        conflict: section.take("conflict"),
        delta: section.take("delta"),
    }
}

fn read_columns(mut section: Section<'_>) -> Option<WrittenColumns> {
    let columns = WrittenColumns {
        line: section.line,
        key: section.take("key"),
        value: section.take("value"),
        version: section.take("version"),
        expires_at: section.take("expires_at"),
        updated_at: section.take("updated_at"),
    };
    let written = section.is_written();
    section.finish();
    written.then_some(columns)
}
