//! Real trouble of a real PostgreSQL under write-back load: slow, out of connections, refusing one row of a thousand, and
//! away while writers go on at full speed. Each test prints what it measured; `--nocapture` shows it.

#![expect(clippy::unwrap_used, reason = "a test that meets an error has failed")]
#![expect(clippy::disallowed_methods, reason = "trouble takes real time")]

#[path = "../support/mod.rs"]
mod support;

mod away;
mod connections;
mod latency;
mod poison;
mod slow;

use support::{Client, field};
use tidegate_resp::Reply;

/// A figure of `INFO writeback`.
fn info(client: &mut Client, name: &str) -> String {
    let text = match client.ask("INFO writeback") {
        Reply::Bulk(text) => String::from_utf8(text.to_vec()).unwrap(),
        other => panic!("{other:?}"),
    };
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(&format!("{name}:")));
    line.unwrap_or_else(|| panic!("no {name} in\n{text}"))
        .to_owned()
}

/// A number of a flush report.
fn figure(report: &Reply, name: &str) -> i64 {
    match field(report, name) {
        Reply::Integer(number) => number,
        other => panic!("{name}: {other:?}"),
    }
}
