//! `TIDEGATE DEADLETTERS`: acknowledged writes that the store refuses, and what a person does about them.

use std::sync::Arc;

use bytes::Bytes;
use tidegate::{DeadLetter, Version};
use tidegate_resp::number::parse_integer;
use tidegate_resp::{Reply, Request};

use super::super::arguments::{at, is, own};
use super::super::errors;
use super::super::row::Work;
use super::Result;
use super::words::{options, text};
use crate::server::Server;

pub(super) const SYNTAX: &str = "LIST [CLASS name] [AFTER key] [COUNT n] | SHOW key [VALUE] | \
     RETRY [KEY] key | RETRY ALL [CLASS name] | EDIT key version value | DISCARD key version | HELP";

/// How many letters one `LIST` answers, unless it is told, and at most.
const COUNT: usize = 100;
const COUNT_MAX: usize = 1000;

/// What can be asked: the word, how many arguments there are with `TIDEGATE DEADLETTERS WORD`, and what answers.
struct Action {
    word: &'static str,
    arguments: std::ops::RangeInclusive<usize>,
    run: fn(&Arc<Server>, &Request) -> Result<Work>,
    syntax: &'static str,
    summary: &'static str,
}

static ACTIONS: [Action; 6] = [
    Action {
        word: "discard",
        arguments: 5..=5,
        run: discard,
        syntax: "key version",
        summary: "Throws one away for good; readers then get the row of the store.",
    },
    Action {
        word: "edit",
        arguments: 6..=6,
        run: edit,
        syntax: "key version value",
        summary: "Writes another value in its place, if it is still of this version.",
    },
    Action {
        word: "help",
        arguments: 3..=3,
        run: help,
        syntax: "",
        summary: "What DEADLETTERS can do.",
    },
    Action {
        word: "list",
        arguments: 3..=9,
        run: list,
        syntax: "[CLASS name] [AFTER key] [COUNT n]",
        summary: "Dead letters in the order of their keys, without their values.",
    },
    Action {
        word: "retry",
        arguments: 4..=6,
        run: retry,
        syntax: "[KEY] key | ALL [CLASS name]",
        summary: "Sends one or all to the store once more; how many.",
    },
    Action {
        word: "show",
        arguments: 4..=5,
        run: show,
        syntax: "key [VALUE]",
        summary: "One dead letter, with its value only if that is asked for.",
    },
];

pub(super) fn dead_letters(server: &Arc<Server>, request: &Request) -> Result<Work> {
    let word = at(request, 2);
    let Some(action) = ACTIONS.iter().find(|action| is(word, action.word)) else {
        return Err(errors::unknown_subcommand("TIDEGATE DEADLETTERS", word));
    };
    if !action.arguments.contains(&request.len()) {
        let name = format!("tidegate|deadletters|{}", action.word);
        return Err(errors::wrong_arity(&name));
    }
    (action.run)(server, request)
}

fn ready(reply: Reply) -> Work {
    Box::pin(std::future::ready(reply))
}

fn help(_: &Arc<Server>, _: &Request) -> Result<Work> {
    let mut lines = vec!["TIDEGATE DEADLETTERS <action> [<arg> ...]. Actions are:".to_owned()];
    for action in &ACTIONS {
        let line = format!("{} {}", action.word.to_uppercase(), action.syntax);
        lines.push(line.trim_end().to_owned());
        lines.push(format!("    {}", action.summary));
    }
    Ok(ready(Reply::Array(
        lines.into_iter().map(Reply::simple).collect(),
    )))
}

fn list(server: &Arc<Server>, request: &Request) -> Result<Work> {
    let [class, after, count] = options(request, 3, ["CLASS", "AFTER", "COUNT"])?;
    let class = known_class(server, class)?;
    let count = match count {
        None => COUNT,
        Some(count) => parse_integer(count)
            .and_then(|count| usize::try_from(count).ok())
            .filter(|count| (1..=COUNT_MAX).contains(count))
            .ok_or_else(|| Reply::error(format!("ERR COUNT is 1 to {COUNT_MAX}")))?,
    };
    let letters = server.gate.dead_letters(class, after, count);
    Ok(ready(Reply::Array(letters.iter().map(told).collect())))
}

fn show(server: &Arc<Server>, request: &Request) -> Result<Work> {
    if request.len() == 5 && !is(at(request, 4), "VALUE") {
        let after = "' is no option here; there is: VALUE";
        return Err(errors::naming("ERR '", at(request, 4), after));
    }
    let Some(letter) = server.gate.dead_letter(at(request, 3)) else {
        return Ok(ready(Reply::Null));
    };
    let mut facts = facts(&letter);
    if request.len() == 5 {
        let value = letter.value.map_or(Reply::Null, Reply::Bulk);
        facts.push((Reply::bulk("value"), value));
        if let Some(added) = letter.added {
            facts.push((Reply::bulk("added"), Reply::bulk(format!("{added:+}"))));
        }
    }
    Ok(ready(Reply::Map(facts)))
}

/// A key named `ALL` or `KEY` is named after `KEY`.
fn retry(server: &Arc<Server>, request: &Request) -> Result<Work> {
    let first = at(request, 3);
    if is(first, "ALL") {
        let [class] = options(request, 4, ["CLASS"])?;
        let retried = server.gate.retry_dead_letters(known_class(server, class)?);
        let retried = i64::try_from(retried).unwrap_or(i64::MAX);
        return Ok(ready(Reply::Integer(retried)));
    }
    let key = match request.len() {
        4 => first,
        5 if is(first, "KEY") => at(request, 4),
        _ => return Err(errors::syntax()),
    };
    let retried = server.gate.retry_dead_letter(key);
    Ok(ready(Reply::Integer(i64::from(retried))))
}

fn edit(server: &Arc<Server>, request: &Request) -> Result<Work> {
    let version = version(at(request, 4))?;
    expect_letter(server, at(request, 3), version)?;
    let (gate, key, value) = (server.gate.clone(), own(request, 3), own(request, 5));
    Ok(Box::pin(async move {
        match gate.edit_dead_letter(&key, version, value).await {
            Ok(_) => Reply::ok(),
            Err(error) => errors::of_gate(&error),
        }
    }))
}

fn discard(server: &Arc<Server>, request: &Request) -> Result<Work> {
    let version = version(at(request, 4))?;
    expect_letter(server, at(request, 3), version)?;
    let (gate, key) = (server.gate.clone(), own(request, 3));
    Ok(Box::pin(async move {
        match gate.discard_dead_letter(&key, version).await {
            Ok(true) => Reply::ok(),
            Ok(false) => no_letter(&key, " any more"),
            Err(error) => errors::of_gate(&error),
        }
    }))
}

/// Refuses early and in words what the gate would refuse: no letter, or one of another version.
fn expect_letter(server: &Server, key: &[u8], version: Version) -> Result<()> {
    match server.gate.dead_letter(key) {
        None => Err(no_letter(key, "")),
        Some(letter) if letter.version != version => {
            let after = format!("' is of version {} and not {version}", letter.version);
            Err(errors::naming(
                "NOLETTER the dead letter of key '",
                key,
                &after,
            ))
        }
        Some(_) => Ok(()),
    }
}

fn no_letter(key: &[u8], since: &str) -> Reply {
    errors::naming(
        "NOLETTER there is no dead letter of key '",
        key,
        &format!("'{since}"),
    )
}

/// A version as it is shown, `3.17`, or as the store keeps it.
fn version(bytes: &[u8]) -> Result<Version> {
    let wrong = || {
        let after = "' is no version; it is shown by LIST and SHOW, such as 3.17";
        errors::naming("ERR '", bytes, after)
    };
    let text = text("version", bytes)?;
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse::<u64>().ok()).flatten()
    };
    let version = match text.split_once('.') {
        None => number(text).map(Version::from_raw),
        Some((generation, place)) => number(generation)
            .zip(number(place))
            .map(|(generation, place)| Version::compose(generation, place)),
    };
    // Numbers that are too large are cut when a version is made of them, and so show as another one.
    version
        .filter(|version| !text.contains('.') || version.to_string() == text)
        .ok_or_else(wrong)
}

/// The name of a class, if one is asked for.
fn known_class<'a>(server: &Server, class: Option<&'a [u8]>) -> Result<Option<&'a str>> {
    let Some(bytes) = class else { return Ok(None) };
    let name = text("CLASS", bytes)?;
    if server.gate.classes().iter().any(|class| class.name == name) {
        Ok(Some(name))
    } else {
        Err(errors::naming("ERR there is no class '", bytes, "'"))
    }
}

fn told(letter: &DeadLetter) -> Reply {
    Reply::Map(facts(letter))
}

/// Everything but the value.
fn facts(letter: &DeadLetter) -> Vec<(Reply, Reply)> {
    let number = |n: u64| Reply::Integer(i64::try_from(n).unwrap_or(i64::MAX));
    let change = match (letter.is_delete, letter.is_addition) {
        (true, _) => "delete",
        (false, true) => "add",
        (false, false) => "put",
    };
    let code = letter.code.clone().map_or(Reply::Null, Reply::bulk);
    let facts = [
        (
            "key",
            Reply::Bulk(Bytes::copy_from_slice(letter.key.as_bytes())),
        ),
        ("class", Reply::bulk(letter.class.clone())),
        ("version", Reply::bulk(letter.version.to_string())),
        ("change", Reply::bulk(change)),
        ("value_bytes", number(letter.value_bytes as u64)),
        ("reason", Reply::bulk(letter.reason.as_str())),
        ("code", code),
        ("message", Reply::bulk(letter.message.clone())),
        ("attempts", number(letter.attempts.into())),
        ("first_at_ms", number(letter.first_at.as_millis())),
        ("last_at_ms", number(letter.last_at.as_millis())),
    ];
    facts
        .into_iter()
        .map(|(name, value)| (Reply::bulk(name), value))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_they_are_shown() {
        let shown = Version::compose(3, 17);
        assert_eq!(version(shown.to_string().as_bytes()), Ok(shown));
        assert_eq!(version(shown.raw().to_string().as_bytes()), Ok(shown));
        for text in [
            "",
            ".",
            "3.",
            ".17",
            "a",
            "-1",
            "3.17.1",
            "03.17",
            "9999999999.1",
            "3.99999999999999999",
        ] {
            assert!(version(text.as_bytes()).is_err(), "{text}");
        }
    }
}
