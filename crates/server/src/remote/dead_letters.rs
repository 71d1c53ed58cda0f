//! `tidegate dead-letters`: writes that the store refused, and what a person does about them.

use std::fs::File;
use std::io::{self, BufRead, Read, Write};
use std::time::Duration;

use serde_json::{Value, json};
use tidegate::SystemClock;
use tidegate::port::{Clock, Timestamp};
use tidegate_resp::Reply;

use super::connection::Connection;
use super::fields::items;
use super::flush;
use super::letter::Letter;
use super::{Failure, NO_LETTER, Result, bytes, print, shown};
use crate::cli::{
    DeadLettersAction, DiscardLetter, EditLetter, ListLetters, RetryLetters, ShowLetter,
};
use crate::columns::aligned;
use crate::console;
use crate::exit_codes::Exit;

/// How many letters are asked for at once.
const PAGE: usize = 500;

/// The longest value taken, in bytes.
const VALUE_BYTES_MAX: u64 = tidegate::VALUE_BYTES_MAX as u64;

pub(crate) fn run(action: &DeadLettersAction) -> Exit {
    let done = match action {
        DeadLettersAction::List(arguments) => list(arguments),
        DeadLettersAction::Show(arguments) => show(arguments),
        DeadLettersAction::Retry(arguments) => retry(arguments),
        DeadLettersAction::Edit(arguments) => edit(arguments),
        DeadLettersAction::Discard(arguments) => discard(arguments),
    };
    done.unwrap_or_else(Failure::end)
}

fn now() -> Timestamp {
    SystemClock::new().now()
}

fn list(arguments: &ListLetters) -> Result<Exit> {
    let mut connection = Connection::open(&arguments.remote.server)?;
    let mut letters: Vec<Letter> = Vec::new();
    let mut after = arguments.after.as_deref().map(|key| bytes(key).to_vec());
    // One more than asked for is looked at, to know whether there are more.
    let limit = arguments.limit.get();
    let wanted = limit.saturating_add(1);
    while letters.len() < wanted {
        let count = PAGE.min(wanted - letters.len());
        let number = count.to_string();
        let mut request: Vec<&[u8]> = vec![b"TIDEGATE", b"DEADLETTERS", b"LIST"];
        if let Some(class) = &arguments.class {
            request.extend([&b"CLASS"[..], class.as_bytes()]);
        }
        if let Some(after) = &after {
            request.extend([&b"AFTER"[..], after]);
        }
        request.extend([&b"COUNT"[..], number.as_bytes()]);
        let page = items(connection.ask(&request)?)?;
        let page = page
            .into_iter()
            .map(Letter::of)
            .collect::<Result<Vec<_>>>()?;
        let ended = page.len() < count;
        letters.extend(page);
        after = letters.last().map(|letter| letter.key.to_vec());
        if ended {
            break;
        }
    }
    let more = letters.len() > limit;
    letters.truncate(limit);
    if arguments.remote.json {
        let letters: Vec<Value> = letters.iter().map(Letter::json).collect();
        print(Value::from(letters).to_string())?;
    } else if letters.is_empty() {
        console::say("no dead letters");
    } else {
        let now = now();
        let mut rows = vec![Letter::HEAD.map(str::to_owned)];
        rows.extend(letters.iter().map(|letter| letter.row(now)));
        print(aligned(&rows).join("\n"))?;
    }
    if more {
        console::say(format!(
            "there are more than {}; see them with --limit, or go on with --after KEY",
            arguments.limit
        ));
    }
    Ok(Exit::Success)
}

fn find(connection: &mut Connection, key: &[u8], with_value: bool) -> Result<Letter> {
    let mut request: Vec<&[u8]> = vec![b"TIDEGATE", b"DEADLETTERS", b"SHOW", key];
    if with_value {
        request.push(b"VALUE");
    }
    match connection.ask(&request)? {
        Reply::Null | Reply::NullArray => Err(Failure::Said(format!(
            "{NO_LETTER}there is no dead letter of key '{}'",
            shown(key)
        ))),
        reply => Letter::of(reply),
    }
}

fn show(arguments: &ShowLetter) -> Result<Exit> {
    let mut connection = Connection::open(&arguments.remote.server)?;
    let letter = find(&mut connection, bytes(&arguments.key), arguments.value)?;
    if arguments.remote.json {
        print(letter.json().to_string())?;
    } else {
        print(letter.lines(now()).join("\n"))?;
    }
    Ok(Exit::Success)
}

fn retry(arguments: &RetryLetters) -> Result<Exit> {
    let mut connection = Connection::open(&arguments.remote.server)?;
    match &arguments.key {
        Some(key) => retry_one(&mut connection, bytes(key), arguments),
        None => retry_all(&mut connection, arguments),
    }
}

fn retry_one(connection: &mut Connection, key: &[u8], arguments: &RetryLetters) -> Result<Exit> {
    let request: [&[u8]; 5] = [b"TIDEGATE", b"DEADLETTERS", b"RETRY", b"KEY", key];
    if connection.ask(&request)? == Reply::Integer(0) {
        // Says that there is none.
        find(connection, key, false)?;
    }
    let why = flush::key_to_store(connection, key, arguments.timeout)?;
    if arguments.remote.json {
        print(json!({"retried": 1, "stored": why.is_none(), "error": why}).to_string())?;
    }
    match why {
        None => {
            console::say(format!("{}: the store has it now", shown(key)));
            Ok(Exit::Success)
        }
        Some(why) => {
            console::say(format!(
                "{}: not in the store: {}",
                shown(key),
                shown(why.as_bytes())
            ));
            Ok(Exit::Left)
        }
    }
}

fn retry_all(connection: &mut Connection, arguments: &RetryLetters) -> Result<Exit> {
    let mut request = vec!["TIDEGATE", "DEADLETTERS", "RETRY", "ALL"];
    if let Some(class) = &arguments.class {
        request.extend(["CLASS", class]);
    }
    let Reply::Integer(retried) = connection.ask(&request)? else {
        return Err(Failure::Odd("no number of letters retried".to_owned()));
    };
    let report = flush::all(connection, arguments.class.as_deref(), arguments.timeout)?;
    let (left, parked) = (report.total.left, report.total.parked);
    if arguments.remote.json {
        print(json!({"retried": retried, "left": left, "parked": parked}).to_string())?;
    } else {
        print(format!(
            "{retried} retried; {parked} are dead letters now, {left} writes are still on their way"
        ))?;
    }
    Ok(if left == 0 && parked == 0 {
        Exit::Success
    } else {
        Exit::Left
    })
}

fn edit(arguments: &EditLetter) -> Result<Exit> {
    let key = bytes(&arguments.key);
    let mut connection = Connection::open(&arguments.remote.server)?;
    let version = match &arguments.if_version {
        Some(version) => version.clone(),
        None => find(&mut connection, key, false)?.version,
    };
    let value = match &arguments.file {
        Some(file) => {
            let opened = File::open(file)
                .map_err(|error| Failure::Local(format!("{}: {error}", file.display())))?;
            read_value(opened)?
        }
        None => {
            if io::IsTerminal::is_terminal(&io::stdin()) {
                console::say("type the new value; end it with Ctrl-D at the beginning of a line");
            }
            read_value(io::stdin().lock())?
        }
    };
    let request: [&[u8]; 6] = [
        b"TIDEGATE",
        b"DEADLETTERS",
        b"EDIT",
        key,
        version.as_bytes(),
        &value,
    ];
    let timeout = Duration::from_secs(30);
    connection.ask_until(&request, timeout)?;
    let why = flush::key_to_store(&mut connection, key, timeout)?;
    if arguments.remote.json {
        print(json!({"edited": true, "stored": why.is_none(), "error": why}).to_string())?;
    }
    match why {
        None => {
            console::say(format!("{}: edited, and the store has it", shown(key)));
            Ok(Exit::Success)
        }
        Some(why) => {
            console::say(format!(
                "{}: edited, and not in the store: {}",
                shown(key),
                shown(why.as_bytes())
            ));
            Ok(Exit::Left)
        }
    }
}

fn read_value(from: impl Read) -> Result<Vec<u8>> {
    let mut value = Vec::new();
    from.take(VALUE_BYTES_MAX + 1)
        .read_to_end(&mut value)
        .map_err(|error| Failure::Local(format!("cannot read the value: {error}")))?;
    if value.len() as u64 > VALUE_BYTES_MAX {
        return Err(Failure::Local(format!(
            "the value is longer than {VALUE_BYTES_MAX} bytes, which is the most"
        )));
    }
    Ok(value)
}

fn discard(arguments: &DiscardLetter) -> Result<Exit> {
    let key = bytes(&arguments.key);
    let mut connection = Connection::open(&arguments.remote.server)?;
    let letter = find(&mut connection, key, false)?;
    let version = arguments
        .if_version
        .clone()
        .unwrap_or_else(|| letter.version.clone());
    if !arguments.yes {
        console::say(letter.lines(now()).join("\n"));
        if !confirmed("Discard it for good? Type yes: ")? {
            console::say("nothing was changed");
            return Ok(Exit::Failure);
        }
    }
    let request: [&[u8]; 5] = [
        b"TIDEGATE",
        b"DEADLETTERS",
        b"DISCARD",
        key,
        version.as_bytes(),
    ];
    connection.ask_until(&request, Duration::from_secs(30))?;
    if arguments.remote.json {
        print(json!({"discarded": 1}).to_string())?;
    } else {
        console::say(format!("{}: discarded", shown(key)));
    }
    Ok(Exit::Success)
}

fn confirmed(question: &str) -> Result<bool> {
    let cannot =
        |error: io::Error| Failure::Local(format!("cannot ask: {error}; --yes does not ask"));
    let mut terminal = io::stderr().lock();
    terminal
        .write_all(question.as_bytes())
        .and_then(|()| terminal.flush())
        .map_err(cannot)?;
    drop(terminal);
    let mut answer = String::new();
    io::stdin()
        .lock()
        .take(1024)
        .read_line(&mut answer)
        .map_err(cannot)?;
    Ok(answer.trim() == "yes")
}
