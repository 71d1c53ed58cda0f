//! `COMMAND` and its subcommands, and the help of containers, all answered from the table.

use bytes::Bytes;
use tidegate_resp::{Reply, Request};

use super::arguments::{at, is};
use super::errors;
use super::glob;
use super::row::Command;
use super::session::Session;
use super::string::count as number;
use super::table::{self, COMMANDS};

fn bulk(text: &'static str) -> Reply {
    Reply::Bulk(Bytes::from_static(text.as_bytes()))
}

fn simple_set(words: &[&'static str]) -> Reply {
    Reply::Set(words.iter().map(|word| Reply::simple(*word)).collect())
}

pub(super) fn command(_: &mut Session, _: &Request) -> Reply {
    Reply::Array(COMMANDS.iter().map(|row| info_of(None, row)).collect())
}

pub(super) fn command_count(_: &mut Session, _: &Request) -> Reply {
    number(COMMANDS.len())
}

/// The rows named from a place on: a command, or a subcommand as `client|id`.
fn named(request: &Request, place: usize) -> impl Iterator<Item = Option<Named>> {
    request.arguments().skip(place).map(|name| {
        let mut parts = name.splitn(2, |byte| *byte == b'|');
        let row = table::find(parts.next()?)?;
        match parts.next() {
            None => Some((None, row)),
            Some(sub) => Some((Some(row.name), table::find_in(row.subcommands, sub)?)),
        }
    })
}

/// A row, with its container's name if it is a subcommand.
type Named = (Option<&'static str>, &'static Command);

pub(super) fn command_info(session: &mut Session, request: &Request) -> Reply {
    if request.len() == 2 {
        return command(session, request);
    }
    let info = |row: Option<Named>| row.map_or(Reply::Null, |(within, row)| info_of(within, row));
    Reply::Array(named(request, 2).map(info).collect())
}

pub(super) fn command_docs(_: &mut Session, request: &Request) -> Reply {
    let docs = |(within, row): Named| (full_name(within, row), docs_of(row));
    Reply::Map(if request.len() == 2 {
        COMMANDS.iter().map(|row| docs((None, row))).collect()
    } else {
        named(request, 2).flatten().map(docs).collect()
    })
}

pub(super) fn command_list(_: &mut Session, request: &Request) -> Reply {
    let all = COMMANDS.iter().flat_map(|row| {
        let subcommands = row
            .subcommands
            .iter()
            .map(|sub| format!("{}|{}", row.name, sub.name));
        std::iter::once(row.name.to_owned())
            .chain(subcommands)
            .map(move |name| (name, row))
    });
    let names: Vec<Reply> = match (request.len(), at(request, 3), at(request, 4)) {
        (2, ..) => all.map(|(name, _)| Reply::bulk(name)).collect(),
        (5, by, pattern) if is(at(request, 2), "FILTERBY") && is(by, "PATTERN") => all
            .filter(|(name, _)| glob::matches(pattern, name.as_bytes()))
            .map(|(name, _)| Reply::bulk(name))
            .collect(),
        (5, by, category) if is(at(request, 2), "FILTERBY") && is(by, "ACLCAT") => all
            .filter(|(_, row)| row.categories.iter().any(|one| is(category, &one[1..])))
            .map(|(name, _)| Reply::bulk(name))
            .collect(),
        _ => return errors::syntax(),
    };
    Reply::Array(names)
}

pub(super) fn command_getkeys(_: &mut Session, request: &Request) -> Reply {
    let row = table::find(at(request, 2));
    let row = row.and_then(|row| match request.argument(3) {
        Some(sub) if !row.subcommands.is_empty() => table::find_in(row.subcommands, sub),
        _ => Some(row),
    });
    let Some(row) = row else {
        return Reply::error("ERR Invalid command specified");
    };
    let arguments = request.len() - 2;
    if row.keys.first == 0 {
        return Reply::error("ERR The command has no key arguments");
    }
    if !row.takes(arguments) {
        return Reply::error("ERR Invalid number of arguments specified for command");
    }
    let key = |place: usize| Reply::bulk(Bytes::copy_from_slice(at(request, place + 2)));
    Reply::Array(row.key_places(arguments).map(key).collect())
}

pub(super) fn command_help(_: &mut Session, _: &Request) -> Reply {
    help("command")
}

/// The subcommands of a container and what they are for.
pub(super) fn help(container: &str) -> Reply {
    let mut lines = vec![format!(
        "{} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
        container.to_uppercase()
    )];
    for row in table::find(container.as_bytes()).map_or(&[][..], |row| row.subcommands) {
        let line = format!("{} {}", row.name.to_uppercase(), row.syntax);
        lines.push(line.trim_end().to_owned());
        lines.push(format!("    {}", row.summary));
    }
    Reply::Array(lines.into_iter().map(Reply::simple).collect())
}

fn full_name(within: Option<&str>, row: &Command) -> Reply {
    match within {
        None => bulk(row.name),
        Some(container) => Reply::bulk(format!("{container}|{}", row.name)),
    }
}

fn info_of(within: Option<&str>, row: &'static Command) -> Reply {
    let keys = &row.keys;
    let specifications = if keys.first == 0 {
        Vec::new()
    } else {
        vec![key_specification(row)]
    };
    Reply::Array(vec![
        full_name(within, row),
        Reply::Integer(row.arity.into()),
        simple_set(row.flags),
        number(keys.first),
        Reply::Integer(i64::try_from(keys.last).unwrap_or(0)),
        number(keys.step),
        simple_set(row.categories),
        Reply::Set(row.tips.iter().map(|tip| bulk(tip)).collect()),
        Reply::Set(specifications),
        Reply::Set(
            row.subcommands
                .iter()
                .map(|sub| info_of(Some(row.name), sub))
                .collect(),
        ),
    ])
}

fn key_specification(row: &Command) -> Reply {
    let typed = |kind: &'static str, specification: Vec<(Reply, Reply)>| {
        Reply::Map(vec![
            (bulk("type"), bulk(kind)),
            (bulk("spec"), Reply::Map(specification)),
        ])
    };
    let keys = &row.keys;
    // Counted from the first key, unless from the end.
    let last = if keys.last < 0 {
        i64::try_from(keys.last).unwrap_or(-1)
    } else {
        i64::try_from(keys.last.unsigned_abs() - keys.first).unwrap_or(0)
    };
    Reply::Map(vec![
        (bulk("flags"), simple_set(keys.flags)),
        (
            bulk("begin_search"),
            typed("index", vec![(bulk("index"), number(keys.first))]),
        ),
        (
            bulk("find_keys"),
            typed(
                "range",
                vec![
                    (bulk("lastkey"), Reply::Integer(last)),
                    (bulk("keystep"), number(keys.step)),
                    (bulk("limit"), Reply::Integer(0)),
                ],
            ),
        ),
    ])
}

fn docs_of(row: &'static Command) -> Reply {
    let mut docs = vec![
        (bulk("summary"), bulk(row.summary)),
        (bulk("since"), bulk(row.since)),
        (bulk("group"), bulk(row.group)),
        (bulk("complexity"), bulk(row.complexity)),
    ];
    if !row.subcommands.is_empty() {
        let subcommands = row.subcommands.iter();
        let subcommands = subcommands.map(|sub| (full_name(Some(row.name), sub), docs_of(sub)));
        docs.push((bulk("subcommands"), Reply::Map(subcommands.collect())));
    }
    Reply::Map(docs)
}
