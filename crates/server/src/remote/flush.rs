//! `tidegate flush`: what is dirty goes to the store, and the exit code says whether all of it did.

use std::time::Duration;

use serde_json::json;
use tidegate_resp::Reply;

use super::connection::Connection;
use super::fields::{Fields, items};
use super::{Failure, Result, bytes, print, shown};
use crate::cli::Flush;
use crate::columns::aligned;
use crate::console;
use crate::exit_codes::Exit;

pub(crate) fn run(arguments: &Flush) -> Exit {
    flush(arguments).unwrap_or_else(Failure::end)
}

fn flush(arguments: &Flush) -> Result<Exit> {
    let mut connection = Connection::open(&arguments.remote.server)?;
    if let Some(key) = &arguments.key {
        return Ok(
            match key_to_store(&mut connection, bytes(key), arguments.timeout)? {
                None => {
                    if arguments.remote.json {
                        print(json!({"durability": "store"}).to_string())?;
                    } else {
                        print(format!("{}: the store has it", shown(bytes(key))))?;
                    }
                    Exit::Success
                }
                Some(why) => {
                    console::say(format!("tidegate: {}", shown(why.as_bytes())));
                    Exit::Left
                }
            },
        );
    }
    let report = all(
        &mut connection,
        arguments.class.as_deref(),
        arguments.timeout,
    )?;
    if arguments.remote.json {
        print(report.json().to_string())?;
    } else {
        print(report.table().join("\n"))?;
    }
    Ok(if report.total.left == 0 && report.total.parked == 0 {
        Exit::Success
    } else {
        console::say(format!(
            "tidegate: {} entries are still on their way, {} are dead letters (tidegate dead-letters list)",
            report.total.left, report.total.parked
        ));
        Exit::Left
    })
}

/// Waits until the store has the newest write of a key; why it has not, if it has not.
pub(super) fn key_to_store(
    connection: &mut Connection,
    key: &[u8],
    timeout: Duration,
) -> Result<Option<String>> {
    let millis = timeout.as_millis().to_string();
    let request: [&[u8]; 6] = [
        b"TIDEGATE",
        b"FLUSH",
        b"KEY",
        key,
        b"TIMEOUT",
        millis.as_bytes(),
    ];
    match connection.ask_until(&request, timeout) {
        Ok(_) => Ok(None),
        Err(Failure::Said(text))
            if ["REFUSED ", "UNAVAILABLE ", "UNKNOWN "]
                .iter()
                .any(|word| text.starts_with(word)) =>
        {
            Ok(Some(text))
        }
        Err(other) => Err(other),
    }
}

/// Flushes everything or a class.
pub(super) fn all(
    connection: &mut Connection,
    class: Option<&str>,
    timeout: Duration,
) -> Result<Report> {
    let millis = timeout.as_millis().to_string();
    let mut request = vec!["TIDEGATE", "FLUSH"];
    if let Some(class) = class {
        request.extend(["CLASS", class]);
    }
    request.extend(["TIMEOUT", &millis]);
    Report::of(connection.ask_until(&request, timeout)?)
}

/// Entries by what became of them.
pub(super) struct Figures {
    pub(super) flushed: u64,
    pub(super) left: u64,
    pub(super) parked: u64,
}

impl Figures {
    fn of(fields: &mut Fields) -> Result<Self> {
        Ok(Self {
            flushed: fields.number("flushed")?,
            left: fields.number("left")?,
            parked: fields.number("parked")?,
        })
    }
}

/// What a flush did, in all and by class.
pub(super) struct Report {
    pub(super) total: Figures,
    classes: Vec<(String, Figures)>,
}

impl Report {
    fn of(reply: Reply) -> Result<Self> {
        let mut fields = Fields::of(reply)?;
        let classes = items(fields.take("classes"))?.into_iter().map(|class| {
            let mut fields = Fields::of(class)?;
            Ok((fields.text("class")?, Figures::of(&mut fields)?))
        });
        Ok(Self {
            classes: classes.collect::<Result<_>>()?,
            total: Figures::of(&mut fields)?,
        })
    }

    fn table(&self) -> Vec<String> {
        let row = |name: String, figures: &Figures| {
            let number = |n: u64| n.to_string();
            [
                name,
                number(figures.flushed),
                number(figures.left),
                number(figures.parked),
            ]
        };
        let mut rows = vec![["CLASS", "FLUSHED", "LEFT", "DEAD LETTERS"].map(str::to_owned)];
        rows.extend(
            self.classes
                .iter()
                .map(|(name, figures)| row(shown(name.as_bytes()), figures)),
        );
        rows.push(row("(all)".to_owned(), &self.total));
        aligned(&rows)
    }

    fn json(&self) -> serde_json::Value {
        let figures = |figures: &Figures| json!({"flushed": figures.flushed, "left": figures.left, "parked": figures.parked});
        let classes = self
            .classes
            .iter()
            .map(|(name, of)| (name.clone(), figures(of)));
        let mut report = figures(&self.total);
        report["classes"] = serde_json::Value::Object(classes.collect());
        report
    }
}
