//! A configuration as it is meant: every default filled in, every contradiction refused.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tidegate::Class;

use super::meant_class::{Refusals, mean_classes};
use super::meant_shared::{SharedConfig, mean_shared};
use super::section::{At, Sheet};
use super::store_url::StoreUrl;
use super::written::{Written, WrittenJournal, WrittenServer};

/// Everything the server needs to start.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// The folder of the SQLite file and the journal.
    pub(crate) data_dir: PathBuf,
    pub(crate) server: ServerConfig,
    /// The bound of the near cache.
    pub(crate) near_bytes: u64,
    pub(crate) store_url: StoreUrl,
    /// How many lanes; nothing means as the store likes it.
    pub(crate) lanes: Option<usize>,
    /// The folder of the journal.
    pub(crate) journal_path: PathBuf,
    /// The most all files of the journal together may occupy, in bytes.
    pub(crate) journal_bytes_max: u64,
    /// The size of one file of the journal.
    pub(crate) journal_segment_bytes: u64,
    /// The cache that several nodes share; nothing: this node is alone.
    pub(crate) shared: Option<SharedConfig>,
    /// As written; `default` is not among them unless it was written.
    pub(crate) classes: Vec<Class>,
}

/// Where the server listens and how large a client may make things.
#[derive(Clone, Debug)]
pub(crate) struct ServerConfig {
    pub(crate) listen: SocketAddr,
    /// Connections at once; one more is told so and closed.
    pub(crate) connections_max: usize,
    /// Commands of one connection under way at once; the next ones wait unread.
    pub(crate) pipeline_max: usize,
    /// Bytes of one request.
    pub(crate) request_bytes_max: u64,
    /// Bytes of answers not taken by a client, beyond which nothing more is read from it; also of the values of one
    /// answer that has several.
    pub(crate) output_bytes_max: u64,
    /// How long a connection may be silent; nothing means for ever.
    pub(crate) idle_timeout: Option<Duration>,
    /// How long the shutdown may take.
    pub(crate) shutdown_timeout: Duration,
    /// How long of it the drain may take; nothing means what is left of it.
    pub(crate) drain_timeout: Option<Duration>,
    /// Where metrics are served over HTTP; nothing means nowhere.
    pub(crate) admin: Option<SocketAddr>,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 6380)),
            connections_max: 10_000,
            pipeline_max: 1_000,
            request_bytes_max: 1 << 30,
            output_bytes_max: 8 << 20,
            idle_timeout: None,
            shutdown_timeout: Duration::from_secs(30),
            drain_timeout: None,
            admin: None,
        }
    }
}

/// The folder that is made where the server is started without a configuration.
const DATA_DIR: &str = "tidegate-data";

/// What the command line says about the same things; it wins over the file.
#[derive(Clone, Default, Debug)]
pub(crate) struct Overrides {
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) data_dir: Option<PathBuf>,
}

/// Fills in defaults and reports contradictions to `sheet`. What is returned is sound only if nothing was reported.
pub(crate) fn mean(
    written: Written,
    overrides: &Overrides,
    environment: &dyn Fn(&str) -> Option<String>,
    sheet: &Sheet,
) -> Config {
    let data_dir = match (&overrides.data_dir, &written.data_dir) {
        (Some(dir), _) => dir.clone(),
        (None, Some(dir)) => PathBuf::from(&dir.value),
        (None, None) => PathBuf::from(DATA_DIR),
    };
    if let Some(At { value, line }) = &written.data_dir
        && value.is_empty()
    {
        sheet.report(*line, "data_dir", "must name a folder");
    }
    let store_url = mean_store_url(&written, &data_dir, environment, sheet);
    if let Some(At { value: 0, line }) = written.store_lanes {
        sheet.report(line, "store.lanes", "must be at least 1");
    }
    let near_bytes = written.near_capacity.map_or(256 << 20, |capacity| {
        if capacity.value.0 < 1 << 20 {
            sheet.report(capacity.line, "near.capacity", "must be at least 1MiB");
        }
        capacity.value.0
    });
    let journal = mean_journal(&written.journal, sheet);
    let shared = written.shared.as_ref();
    let shared = shared.map(|shared| mean_shared(shared, &store_url, environment, sheet));
    Config {
        journal_path: data_dir.join(journal.path),
        journal_bytes_max: journal.bytes_max,
        journal_segment_bytes: journal.segment_bytes,
        data_dir,
        server: mean_server(written.server, overrides, sheet),
        near_bytes,
        store_url,
        lanes: written.store_lanes.map(|lanes| lanes.value),
        classes: mean_classes(written.classes, &Refusals::new(sheet, shared.is_some())),
        shared,
    }
}

/// The journal's folder as written, and its bounds.
struct MeantJournal {
    path: String,
    bytes_max: u64,
    segment_bytes: u64,
}

fn mean_journal(written: &WrittenJournal, sheet: &Sheet) -> MeantJournal {
    let path = written.path.as_ref().map_or_else(
        || "journal".to_owned(),
        |path| {
            if path.value.is_empty() {
                sheet.report(path.line, "journal.path", "must name a folder");
            }
            path.value.clone()
        },
    );
    let segment_bytes = written.segment.as_ref().map_or(64 << 20, |segment| {
        let bytes = segment.value.0;
        if !(4096..=1 << 30).contains(&bytes) || !bytes.is_multiple_of(512) {
            let why = "must be 4KiB to 1GiB, in whole blocks of 512 bytes";
            sheet.report(segment.line, "journal.segment", why);
        }
        bytes
    });
    let bytes_max = written
        .size_max
        .as_ref()
        .map_or(4 << 30, |size| size.value.0);
    if bytes_max / 2 < segment_bytes {
        let (key, line) = match (&written.size_max, &written.segment) {
            (Some(size), _) => ("journal.size_max", size.line),
            (None, Some(segment)) => ("journal.segment", segment.line),
            (None, None) => ("journal.size_max", 0),
        };
        let why =
            "the journal must have room for two segments: size_max must be at least twice segment";
        sheet.report(line, key, why);
    }
    MeantJournal {
        path,
        bytes_max,
        segment_bytes,
    }
}

fn mean_store_url(
    written: &Written,
    data_dir: &std::path::Path,
    environment: &dyn Fn(&str) -> Option<String>,
    sheet: &Sheet,
) -> StoreUrl {
    let default = || "sqlite:store.db".to_owned();
    let (text, key, line) = match (&written.store_url, &written.store_url_env) {
        (None, None) => (default(), "store.url", 0),
        (Some(url), None) => (url.value.clone(), "store.url", url.line),
        (url, Some(name)) => {
            if url.is_some() {
                sheet.report(
                    name.line,
                    "store.url_env",
                    "contradicts store.url; keep one of them",
                );
            }
            let value = environment(&name.value).filter(|value| !value.is_empty());
            let text = value.unwrap_or_else(|| {
                let shown = name.value.escape_default();
                let message = format!("the environment variable '{shown}' is not set");
                sheet.report(name.line, "store.url_env", message);
                default()
            });
            (text, "store.url_env", name.line)
        }
    };
    StoreUrl::parse(&text, data_dir).unwrap_or_else(|message| {
        sheet.report(line, key, message);
        StoreUrl::memory()
    })
}

fn mean_server(written: WrittenServer, overrides: &Overrides, sheet: &Sheet) -> ServerConfig {
    let default = ServerConfig::default();
    let (listen, line) = match (overrides.listen, &written.listen) {
        (Some(listen), _) => (listen, 0),
        (None, Some(listen)) => (listen.value, listen.line),
        (None, None) => (default.listen, 0),
    };
    let allow_remote = written.allow_remote.is_some_and(|allow| allow.value);
    let admin = written
        .admin
        .and_then(|admin| Some((admin.value.0?, admin.line)));
    if let Some((address, line)) = admin {
        if !address.ip().is_loopback() && !allow_remote {
            sheet.report(
                line,
                "server.admin",
                format!(
                    "{address} can be reached from other machines, and metrics are for everybody who reaches it; \
                     if the network keeps strangers out, set allow_remote = true under [server]"
                ),
            );
        }
        if address == listen && address.port() != 0 {
            sheet.report(
                line,
                "server.admin",
                "is the address that server.listen has; choose another port",
            );
        }
    }
    if !listen.ip().is_loopback() && !allow_remote {
        sheet.report(
            line,
            "server.listen",
            format!(
                "{listen} can be reached from other machines, and the server has no passwords and no TLS: \
                 whoever reaches it reads and writes everything; if the network keeps strangers out, \
                 set allow_remote = true under [server]"
            ),
        );
    }
    let at_least = |key: &str, written: Option<At<usize>>, least: usize, default: usize| {
        written.map_or(default, |At { value, line }| {
            if value < least {
                sheet.report(line, key, format!("must be at least {least}"));
            }
            value
        })
    };
    let output = written
        .output_max
        .map_or(default.output_bytes_max, |At { value, line }| {
            if value.0 < 4096 {
                sheet.report(line, "server.output_max", "must be at least 4KiB");
            }
            value.0
        });
    let request = written
        .request_max
        .map_or(default.request_bytes_max, |At { value, line }| {
            if !(1024..=u64::from(u32::MAX)).contains(&value.0) {
                sheet.report(
                    line,
                    "server.request_max",
                    "must be at least 1KiB and less than 4GiB",
                );
            }
            value.0
        });
    ServerConfig {
        listen,
        connections_max: at_least(
            "server.connections_max",
            written.connections_max,
            1,
            default.connections_max,
        ),
        pipeline_max: at_least(
            "server.pipeline_max",
            written.pipeline_max,
            1,
            default.pipeline_max,
        ),
        request_bytes_max: request,
        output_bytes_max: output,
        idle_timeout: written
            .idle_timeout
            .map(|at| at.value)
            .filter(|idle| !idle.is_zero()),
        shutdown_timeout: written
            .shutdown_timeout
            .map_or(default.shutdown_timeout, |at| at.value),
        drain_timeout: written.drain_timeout.map(|at| at.value),
        admin: admin.map(|(address, _)| address),
    }
}
