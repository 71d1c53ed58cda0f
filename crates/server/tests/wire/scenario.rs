//! Scenario files: lines to steps.

use bytes::BytesMut;
use std::path::PathBuf;
use std::time::UNIX_EPOCH;
use tidegate_resp::RequestDecoder;

/// One conversation.
pub(crate) struct Scenario {
    pub(crate) name: String,
    pub(crate) steps: Vec<Step>,
}

/// One thing to do with both servers.
pub(crate) struct Step {
    /// Where it stands in the file, from 1.
    pub(crate) line: usize,
    /// What the line says.
    pub(crate) text: String,
    pub(crate) action: Action,
}

pub(crate) enum Action {
    /// Send commands in one write, then read their replies.
    Commands {
        commands: Vec<Vec<Vec<u8>>>,
        rule: Rule,
    },
    /// Send bytes, each piece in its own write, then read replies.
    Raw {
        pieces: Vec<Vec<u8>>,
        replies: Replies,
    },
    /// Iterate over all keys.
    Scan { options: Vec<Vec<u8>> },
    /// Use new connections from here.
    Reconnect,
}

pub(crate) enum Replies {
    Count(usize),
    UntilClosed,
}

/// Where two replies may differ.
#[derive(Clone, PartialEq)]
pub(crate) enum Rule {
    Equal,
    Within(i64),
    Shape,
    Unordered,
    Vary(Vec<String>),
    Until(i64),
    Close,
}

pub(crate) fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/wire/scenarios")
}

impl Scenario {
    pub(crate) fn read(name: &str) -> Self {
        let path = folder().join(format!("{name}.wire"));
        let text = std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self::parse(name, &text)
    }

    pub(crate) fn parse(name: &str, text: &str) -> Self {
        let now = now_milliseconds();
        let mut steps: Vec<Step> = Vec::new();
        let mut in_pipeline = false;
        for (index, text) in text.lines().enumerate() {
            let text = text.trim();
            let was_in_pipeline = std::mem::take(&mut in_pipeline);
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let place = format!("{name}.wire:{}: {text}", index + 1);
            let filled = fill_in(text, now);
            if let Some(command) = filled.strip_prefix("| ") {
                in_pipeline = true;
                let command = words(command, &place);
                if let Some(Step {
                    action: Action::Commands { commands, .. },
                    ..
                }) = steps.last_mut().filter(|_| was_in_pipeline)
                {
                    commands.push(command);
                    continue;
                }
                let action = Action::Commands {
                    commands: vec![command],
                    rule: Rule::Equal,
                };
                steps.push(Step {
                    line: index + 1,
                    text: text.to_owned(),
                    action,
                });
                continue;
            }
            let action = parse_line(&filled, &place);
            steps.push(Step {
                line: index + 1,
                text: text.to_owned(),
                action,
            });
        }
        assert!(!steps.is_empty(), "{name}.wire says nothing");
        Self {
            name: name.to_owned(),
            steps,
        }
    }
}

fn parse_line(line: &str, place: &str) -> Action {
    if line == "reconnect" {
        return Action::Reconnect;
    }
    if let Some(rest) = line.strip_prefix("raw ") {
        let mut pieces = words(rest, place);
        let count = pieces.remove(0);
        let replies = match std::str::from_utf8(&count).map(str::parse) {
            Ok(Ok(count)) => Replies::Count(count),
            _ if count == b"close" => Replies::UntilClosed,
            _ => panic!("{place}: raw needs a number of replies or `close`"),
        };
        return Action::Raw { pieces, replies };
    }
    if line == "scan" || line.starts_with("scan ") {
        let mut options = words(line, place);
        options.remove(0);
        return Action::Scan { options };
    }
    let Some((rule, command)) = line.split_once('>') else {
        panic!("{place}: neither a command nor a directive");
    };
    let number = |text: &str| -> i64 {
        text.parse()
            .unwrap_or_else(|_| panic!("{place}: `{text}` is not a number"))
    };
    let rule = match rule.split_whitespace().collect::<Vec<_>>()[..] {
        [] => Rule::Equal,
        ["within", distance] => Rule::Within(number(distance)),
        ["until", value] => Rule::Until(number(value)),
        ["shape"] => Rule::Shape,
        ["unordered"] => Rule::Unordered,
        ["close"] => Rule::Close,
        ["vary", names] => Rule::Vary(names.split(',').map(str::to_owned).collect()),
        _ => panic!("{place}: no such rule"),
    };
    Action::Commands {
        commands: vec![words(command, place)],
        rule,
    }
}

/// Splits by the quoting rules of an inline command, for which the request decoder is at hand.
fn words(text: &str, place: &str) -> Vec<Vec<u8>> {
    let mut line = BytesMut::from(text.as_bytes());
    line.extend_from_slice(b"\n");
    let limits = tidegate_resp::RequestLimits {
        inline_bytes_max: 16 * 1024 * 1024,
        ..tidegate_resp::RequestLimits::default()
    };
    match RequestDecoder::new(limits).decode(&mut line) {
        Ok(Some(request)) => request.arguments().map(<[u8]>::to_vec).collect(),
        Ok(None) => panic!("{place}: no words"),
        Err(error) => panic!("{place}: {error}"),
    }
}

/// Replaces what stands in braces. Braces around anything else stay.
fn fill_in(text: &str, now_milliseconds: i64) -> String {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        filled.push_str(before);
        let replaced = after
            .split_once('}')
            .and_then(|(inside, after)| Some((value_of(inside, now_milliseconds)?, after)));
        if let Some((value, after)) = replaced {
            filled.push_str(&value);
            rest = after;
        } else {
            filled.push('{');
            rest = after;
        }
    }
    filled.push_str(rest);
    filled
}

fn value_of(inside: &str, now_milliseconds: i64) -> Option<String> {
    if let Some(offset) = inside.strip_prefix("nowms") {
        return Some((now_milliseconds + offset.parse::<i64>().ok()?).to_string());
    }
    if let Some(offset) = inside.strip_prefix("now") {
        return Some((now_milliseconds / 1000 + offset.parse::<i64>().ok()?).to_string());
    }
    let (repeated, times) = inside.rsplit_once('*')?;
    Some(repeated.repeat(times.parse().ok()?))
}

#[expect(
    clippy::disallowed_methods,
    reason = "real servers compare deadlines with real time"
)]
fn now_milliseconds() -> i64 {
    let since = std::time::SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970");
    i64::try_from(since.as_millis()).expect("a time of this age")
}
