//! The table `[shared]` as it is meant: the cache that several nodes share.

use std::collections::BTreeSet;
use std::time::Duration;

use super::duration::write as duration_text;
use super::section::{At, Sheet};
use super::shared_url::SharedUrl;
use super::store_url::StoreUrl;
use super::written::WrittenShared;

/// The shared cache and how this node deals with it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct SharedConfig {
    /// Several are of one cluster, or copies of one server.
    pub(crate) urls: Vec<SharedUrl>,
    /// What the names of all its keys begin with.
    pub(crate) prefix: String,
    /// How many parts the keys are divided into; the same on every node.
    pub(crate) shards: u16,
    /// How long others wait for the one node that loads a key.
    pub(crate) lease: Duration,
    /// How long after a write was announced the store may still commit it.
    pub(crate) mark_timeout: Duration,
    /// How often the store is asked what others changed.
    pub(crate) outside_poll: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) response_timeout: Duration,
    /// How many replicas must have a write-back write before it is acknowledged.
    pub(crate) replicas: u32,
}

impl SharedConfig {
    fn with_urls(urls: Vec<SharedUrl>) -> Self {
        Self {
            urls,
            prefix: "tg".to_owned(),
            shards: tidegate::port::SHARDS,
            lease: Duration::from_secs(1),
            mark_timeout: Duration::from_secs(2),
            outside_poll: Duration::from_millis(100),
            connect_timeout: Duration::from_secs(1),
            response_timeout: Duration::from_secs(1),
            replicas: 0,
        }
    }

    /// Where it is, without passwords.
    pub(crate) fn place(&self) -> String {
        let urls: Vec<String> = self.urls.iter().map(SharedUrl::to_string).collect();
        urls.join(", ")
    }
}

/// One server of a cluster knows the others, so no more of them need be named; beyond this it is a slip.
const URLS_MAX: usize = 64;
const SHARDS_MAX: u64 = 16_384;
const PREFIX_BYTES_MAX: usize = 64;
const REPLICAS_MAX: u64 = 16;
/// No timeout is longer, so that nobody waits an hour for a server that is gone.
const TIMEOUT_MAX: Duration = Duration::from_secs(60);

/// Fills in defaults, or refuses. What is returned is sound only if nothing was reported.
pub(super) fn mean_shared(
    written: &WrittenShared,
    store: &StoreUrl,
    environment: &dyn Fn(&str) -> Option<String>,
    sheet: &Sheet,
) -> SharedConfig {
    if !store.is_for_several_nodes() {
        sheet.report(
            written.line,
            "shared",
            format!(
                "contradicts store.url, which is {store}: nodes that share a cache share one database, such as \
                 postgres://USER@HOST:PORT/DATABASE"
            ),
        );
    }
    let mut shared = SharedConfig::with_urls(mean_urls(written, environment, sheet));
    if let Some(At { value, line }) = &written.prefix {
        let refused = match value {
            empty if empty.is_empty() => Some("must not be empty"),
            long if long.len() > PREFIX_BYTES_MAX => Some("must not be longer than 64 bytes"),
            odd if !odd.bytes().all(|b| b.is_ascii_graphic()) => {
                Some("must be printable ASCII without blanks")
            }
            braced if braced.contains(['{', '}']) => Some(
                "must not have braces, which tell the nodes of a cluster what belongs together",
            ),
            _ => None,
        };
        if let Some(why) = refused {
            sheet.report(*line, "shared.prefix", why);
        }
        shared.prefix.clone_from(value);
    }
    if let Some(At { value, line }) = written.shards {
        match u16::try_from(value) {
            Ok(shards) if (1..=SHARDS_MAX).contains(&value) => shared.shards = shards,
            _ => sheet.report(line, "shared.shards", "must be 1 to 16384"),
        }
    }
    if let Some(At { value, line }) = written.replicas {
        match u32::try_from(value) {
            Ok(replicas) if value <= REPLICAS_MAX => shared.replicas = replicas,
            _ => sheet.report(line, "shared.replicas", "must be 0 to 16"),
        }
    }
    mean_timeouts(written, &mut shared, sheet);
    shared
}

fn mean_timeouts(written: &WrittenShared, shared: &mut SharedConfig, sheet: &Sheet) {
    let least = Duration::from_millis(10);
    let timeout = |key: &str, at: &Option<At<Duration>>, meant: &mut Duration| {
        let Some(At { value, line }) = at else { return };
        if !(least..=TIMEOUT_MAX).contains(value) {
            sheet.report(*line, key, "must be 10ms to 1m");
        }
        *meant = *value;
    };
    timeout("shared.lease", &written.lease, &mut shared.lease);
    timeout(
        "shared.mark_timeout",
        &written.mark_timeout,
        &mut shared.mark_timeout,
    );
    timeout(
        "shared.outside_poll",
        &written.outside_poll,
        &mut shared.outside_poll,
    );
    timeout(
        "shared.connect_timeout",
        &written.connect_timeout,
        &mut shared.connect_timeout,
    );
    timeout(
        "shared.response_timeout",
        &written.response_timeout,
        &mut shared.response_timeout,
    );
    if shared.response_timeout >= shared.mark_timeout {
        let (key, line) = match (&written.response_timeout, &written.mark_timeout) {
            (Some(at), _) => ("shared.response_timeout", at.line),
            (None, Some(at)) => ("shared.mark_timeout", at.line),
            (None, None) => ("shared.mark_timeout", written.line),
        };
        sheet.report(
            line,
            key,
            format!(
                "response_timeout ({}) must be shorter than mark_timeout ({}), or a write that waited for the shared \
                 cache is too late for the store",
                duration_text(shared.response_timeout),
                duration_text(shared.mark_timeout),
            ),
        );
    }
}

fn mean_urls(
    written: &WrittenShared,
    environment: &dyn Fn(&str) -> Option<String>,
    sheet: &Sheet,
) -> Vec<SharedUrl> {
    let variable = |key: &str, name: &At<String>| {
        let value = environment(&name.value).filter(|value| !value.is_empty());
        if value.is_none() {
            let shown = name.value.escape_default();
            let message = format!("the environment variable '{shown}' is not set");
            sheet.report(name.line, key, message);
        }
        value
    };
    let (texts, key, line) = match (&written.url, &written.url_env) {
        (None, None) => {
            if !written.has_url {
                let why = "is missing; write url = \"redis://HOST:PORT\"";
                sheet.report(written.line, "shared.url", why);
            }
            return Vec::new();
        }
        (Some(url), None) => (url.value.0.clone(), "shared.url", url.line),
        (url, Some(name)) => {
            if url.is_some() {
                let why = "contradicts shared.url; keep one of them";
                sheet.report(name.line, "shared.url_env", why);
            }
            // Several stand with commas between them, as a variable has no lists.
            let texts = variable("shared.url_env", name).map_or_else(Vec::new, |value| {
                value.split(',').map(|one| one.trim().to_owned()).collect()
            });
            (texts, "shared.url_env", name.line)
        }
    };
    if texts.len() > URLS_MAX {
        sheet.report(line, key, "names more than 64 servers");
    }
    let password = mean_password(written, &variable, sheet);
    let mut urls = Vec::with_capacity(texts.len());
    for text in &texts {
        match SharedUrl::parse(text) {
            Ok(url) => urls.push(url),
            Err(why) => sheet.report(line, key, why),
        }
    }
    let numbers: BTreeSet<&str> = urls.iter().map(SharedUrl::number).collect();
    if numbers.len() > 1 {
        let why = "several servers are of one cluster, or copies of one: they cannot have different numbers";
        sheet.report(line, key, why);
    }
    let Some((password, from, line)) = password else {
        return urls;
    };
    let with = urls.into_iter().map(|url| url.with_password(&password));
    with.collect::<Result<_, _>>().unwrap_or_else(|why| {
        sheet.report(line, from, why);
        Vec::new()
    })
}

/// A password that is kept apart from the address, and the key and the line that say where.
fn mean_password(
    written: &WrittenShared,
    variable: &dyn Fn(&str, &At<String>) -> Option<String>,
    sheet: &Sheet,
) -> Option<(String, &'static str, usize)> {
    if let Some(name) = &written.password_env {
        if written.password_file.is_some() {
            let why = "contradicts shared.password_file; keep one of them";
            sheet.report(name.line, "shared.password_env", why);
        }
        let password = variable("shared.password_env", name)?;
        return Some((password, "shared.password_env", name.line));
    }
    let path = written.password_file.as_ref()?;
    let refuse = |why: String| sheet.report(path.line, "shared.password_file", why);
    let text = match std::fs::read_to_string(&path.value) {
        Ok(text) => text,
        Err(error) => {
            refuse(format!("cannot be read: {error}"));
            return None;
        }
    };
    // Editors end a file with a newline, which no password means.
    let password = text.trim_end_matches(['\n', '\r']);
    if password.is_empty() {
        refuse("is empty".to_owned());
        return None;
    }
    if password.contains('\n') {
        refuse("has more than one line".to_owned());
        return None;
    }
    Some((password.to_owned(), "shared.password_file", path.line))
}
