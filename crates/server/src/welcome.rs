//! What is printed when the server is ready: where it listens, what it serves, what to try next.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use tidegate::{Class, Strategy};

use crate::check_config::{class_table, shared_line};
use crate::config::{Config, size_text};
use crate::console;

/// Prints the start-up lines. Programs may wait for `listening on ADDRESS:PORT` in the first one.
pub(crate) fn print(
    config: &Config,
    address: SocketAddr,
    admin: Option<SocketAddr>,
    file: Option<&Path>,
) -> io::Result<()> {
    console::print(lines(config, address, admin, file).join("\n"))
}

fn lines(
    config: &Config,
    address: SocketAddr,
    admin: Option<SocketAddr>,
    file: Option<&Path>,
) -> Vec<String> {
    let mut lines = vec![
        format!(
            "tidegate {} listening on {address}",
            env!("CARGO_PKG_VERSION")
        ),
        String::new(),
        format!("  store    {}", config.store_url),
    ];
    lines.extend(shared_line(config).map(|line| format!("  {line}")));
    lines.extend([
        format!("  journal  {}", config.journal_path.display()),
        format!("  near     {}", size_text(config.near_bytes)),
    ]);
    lines.extend(admin.map(|admin| format!("  metrics  http://{admin}/metrics")));
    lines.push(String::new());
    lines.extend(
        class_table(config)
            .into_iter()
            .map(|line| format!("  {line}")),
    );
    lines.extend([String::new(), "Try next:".to_owned()]);
    lines.extend(table(&next_steps(config, address, file)));
    lines
}

/// Commands, and what each shows.
fn next_steps(
    config: &Config,
    address: SocketAddr,
    file: Option<&Path>,
) -> Vec<(String, &'static str)> {
    let host = match address.ip() {
        ip if ip.is_unspecified() || ip.to_string() == "127.0.0.1" => String::new(),
        ip => format!("-h {ip} "),
    };
    let client = format!("redis-cli {host}-p {}", address.port());
    let mut steps = vec![
        (format!("{client} SET greeting hello"), "write"),
        (
            format!("{client} TIDEGATE EXPLAIN greeting"),
            "what is known of a key",
        ),
    ];
    let default = config
        .classes
        .iter()
        .find(|class| class.name == tidegate::DEFAULT_CLASS);
    let default = default.cloned().unwrap_or_else(Class::default_class);
    let readable = |name: &str| {
        name.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    if let Some(file) = config.store_url.sqlite_file()
        && default.strategy != Strategy::CacheOnly
        && readable(&default.table.name)
    {
        let table = &default.table.name;
        steps.push((
            format!("sqlite3 {} 'select * from {table}'", quoted(file)),
            "the rows",
        ));
    }
    if file.is_none() {
        let step = "tidegate reference > tidegate.toml".to_owned();
        steps.push((step, "classes of keys, another store: every key explained"));
        steps.push((
            "tidegate serve --config tidegate.toml".to_owned(),
            "serve as it says",
        ));
    }
    steps
}

/// As a shell takes it.
fn quoted(file: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
    if file.bytes().all(plain) {
        file.to_owned()
    } else {
        format!("'{}'", file.replace('\'', "'\\''"))
    }
}

fn table(steps: &[(String, &str)]) -> Vec<String> {
    let width = steps
        .iter()
        .map(|(step, _)| step.chars().count())
        .max()
        .unwrap_or(0);
    steps
        .iter()
        .map(|(step, shows)| format!("  {step:width$}  # {shows}"))
        .collect()
}
