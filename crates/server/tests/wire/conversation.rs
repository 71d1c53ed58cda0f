//! Holds one conversation with two servers and lists where their replies differ.

use crate::scenario::{Action, Replies, Rule, Scenario, Step};
use bytes::BytesMut;
use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;
use tidegate_resp::{Reply, ReplyDecoder, encode_request};

/// How long a server may take for one reply.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs the scenario on both servers; one text per difference.
pub(crate) fn hold(scenario: &Scenario, one: (&str, u16), other: (&str, u16)) -> Vec<String> {
    let mut connections = [Connection::open(one.1), Connection::open(other.1)];
    let mut differences = Vec::new();
    for step in &scenario.steps {
        let [left, right] = match &step.action {
            Action::Reconnect => {
                connections = [Connection::open(one.1), Connection::open(other.1)];
                continue;
            }
            _ => connections
                .each_mut()
                .map(|connection| connection.perform(step)),
        };
        let rule = match &step.action {
            Action::Commands { rule, .. } => rule.clone(),
            _ => Rule::Equal,
        };
        if !agree(&left, &right, &rule) {
            differences.push(format!(
                "{}.wire:{}: {}\n  {}:\n{}  {}:\n{}",
                scenario.name,
                step.line,
                step.text,
                one.0,
                show(&left),
                other.0,
                show(&right),
            ));
        }
        // A conversation that one side has left, or in which a reply is missing, goes on with new connections, so that
        // one difference does not hide the rest.
        let is_over = |answers: &[Answer]| {
            answers
                .iter()
                .any(|answer| !matches!(answer, Answer::Reply { .. }))
        };
        if is_over(&left) || is_over(&right) {
            connections = [Connection::open(one.1), Connection::open(other.1)];
        }
    }
    differences
}

/// What came back.
#[derive(Clone, Debug, PartialEq)]
enum Answer {
    /// A reply and its bytes.
    Reply { raw: Vec<u8>, value: Reply },
    /// The server closed the connection.
    Closed,
    /// Nothing came in time.
    Silence,
    /// Not the Redis protocol.
    Malformed(String),
}

struct Connection {
    stream: TcpStream,
    decoder: ReplyDecoder,
    /// Received and not yet taken by the decoder.
    buffer: BytesMut,
    /// All bytes since the last whole reply.
    raw: Vec<u8>,
}

impl Connection {
    fn open(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("the server listens");
        stream.set_nodelay(true).expect("a TCP option");
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("a TCP option");
        stream
            .set_write_timeout(Some(PATIENCE))
            .expect("a TCP option");
        Self {
            stream,
            decoder: ReplyDecoder::default(),
            buffer: BytesMut::new(),
            raw: Vec::new(),
        }
    }

    fn perform(&mut self, step: &Step) -> Vec<Answer> {
        match &step.action {
            Action::Commands {
                commands,
                rule: Rule::Until(wanted),
            } => self.ask_until(&commands[0], *wanted),
            Action::Commands { commands, rule } => {
                let mut out = BytesMut::new();
                commands
                    .iter()
                    .for_each(|command| encode_request(&mut out, command));
                self.send(&out);
                match rule {
                    Rule::Close => self.read_until_closed(),
                    _ => self.read_replies(commands.len()),
                }
            }
            Action::Raw { pieces, replies } => {
                pieces.iter().for_each(|piece| self.send(piece));
                match replies {
                    Replies::Count(count) => self.read_replies(*count),
                    Replies::UntilClosed => self.read_until_closed(),
                }
            }
            Action::Scan { options } => vec![self.scan(options)],
            Action::Reconnect => Vec::new(),
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        // A server may close before it has read all; what it answered is still to be read.
        let _ = self.stream.write_all(bytes);
    }

    fn ask(&mut self, command: &[Vec<u8>]) -> Answer {
        let mut out = BytesMut::new();
        encode_request(&mut out, command);
        self.send(&out);
        self.read_reply()
    }

    /// Asks again until the wanted integer comes. Real time has to pass, and only the servers know when it has.
    #[expect(
        clippy::disallowed_methods,
        reason = "real servers are given a real deadline"
    )]
    fn ask_until(&mut self, command: &[Vec<u8>], wanted: i64) -> Vec<Answer> {
        let start = std::time::Instant::now();
        loop {
            let answer = self.ask(command);
            let arrived =
                matches!(&answer, Answer::Reply { value: Reply::Integer(n), .. } if *n == wanted);
            let is_integer = matches!(
                &answer,
                Answer::Reply {
                    value: Reply::Integer(_),
                    ..
                }
            );
            if arrived || !is_integer || start.elapsed() > PATIENCE {
                return vec![answer];
            }
            std::thread::yield_now();
        }
    }

    fn read_replies(&mut self, count: usize) -> Vec<Answer> {
        let mut answers = Vec::new();
        while answers.len() < count && answers.iter().all(|a| matches!(a, Answer::Reply { .. })) {
            answers.push(self.read_reply());
        }
        answers
    }

    fn read_until_closed(&mut self) -> Vec<Answer> {
        let mut answers = Vec::new();
        while answers
            .iter()
            .all(|answer| matches!(answer, Answer::Reply { .. }))
        {
            answers.push(self.read_reply());
        }
        answers
    }

    fn read_reply(&mut self) -> Answer {
        let mut chunk = [0; 16 * 1024];
        loop {
            match self.decoder.decode(&mut self.buffer) {
                Ok(Some(value)) => {
                    let after = self.raw.split_off(self.raw.len() - self.buffer.len());
                    return Answer::Reply {
                        raw: std::mem::replace(&mut self.raw, after),
                        value,
                    };
                }
                Ok(None) => {}
                Err(error) => return Answer::Malformed(error.to_string()),
            }
            match self.stream.read(&mut chunk) {
                Ok(0) => return Answer::Closed,
                Ok(len) => {
                    self.buffer.extend_from_slice(&chunk[..len]);
                    self.raw.extend_from_slice(&chunk[..len]);
                }
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => return Answer::Silence,
                    ErrorKind::Interrupted => {}
                    // Closing a connection from which not all was read resets it.
                    _ => return Answer::Closed,
                },
            }
        }
    }

    /// The keys of a full iteration as one sorted array. A key may come twice, so the order and the number of its
    /// comings are no part of the answer.
    fn scan(&mut self, options: &[Vec<u8>]) -> Answer {
        let mut keys = BTreeSet::new();
        let mut cursor = b"0".to_vec();
        for _ in 0..100_000 {
            let mut command = vec![b"SCAN".to_vec(), cursor];
            command.extend_from_slice(options);
            let answer = self.ask(&command);
            let Answer::Reply {
                value: Reply::Array(parts),
                ..
            } = &answer
            else {
                return answer;
            };
            let [Reply::Bulk(next), Reply::Array(found)] = &parts[..] else {
                return answer;
            };
            keys.extend(found.iter().map(|key| format!("{key:?}")));
            if next == "0" {
                let keys: Vec<Reply> = keys.into_iter().map(Reply::bulk).collect();
                return Answer::Reply {
                    raw: Vec::new(),
                    value: Reply::Array(keys),
                };
            }
            cursor = next.to_vec();
        }
        Answer::Malformed("SCAN never came back to cursor 0".to_owned())
    }
}

fn agree(left: &[Answer], right: &[Answer], rule: &Rule) -> bool {
    left.len() == right.len()
        && left.iter().zip(right).all(|pair| match (pair, rule) {
            // A missing reply is never right, even if it is missing on both sides.
            ((Answer::Silence | Answer::Malformed(_), _), _) => false,
            (_, Rule::Equal | Rule::Close) => pair.0 == pair.1,
            ((Answer::Reply { value: left, .. }, Answer::Reply { value: right, .. }), _) => {
                agree_by(left, right, rule)
            }
            (_, _) => false,
        })
}

fn agree_by(left: &Reply, right: &Reply, rule: &Rule) -> bool {
    match rule {
        Rule::Equal | Rule::Close => left == right,
        Rule::Within(distance) => match (left, right) {
            (Reply::Integer(left), Reply::Integer(right)) => {
                left.abs_diff(*right) <= distance.unsigned_abs()
                    // -1 and -2 are words, not times.
                    && (*left < 0) == (*right < 0)
            }
            _ => false,
        },
        Rule::Until(wanted) => {
            *left == Reply::Integer(*wanted) && *right == Reply::Integer(*wanted)
        }
        Rule::Shape => shape(left) == shape(right),
        Rule::Unordered => match (left, right) {
            (Reply::Array(left), Reply::Array(right)) => sorted(left) == sorted(right),
            _ => false,
        },
        Rule::Vary(names) => without(left, names) == without(right, names),
    }
}

fn sorted(items: &[Reply]) -> Vec<String> {
    let mut texts: Vec<String> = items.iter().map(|item| format!("{item:?}")).collect();
    texts.sort();
    texts
}

/// The reply's kinds and lengths, without its values.
fn shape(reply: &Reply) -> Reply {
    match reply {
        Reply::Integer(_) => Reply::Integer(0),
        Reply::Bulk(_) => Reply::bulk(""),
        Reply::Simple(_) => Reply::simple(""),
        Reply::Verbatim { format, .. } => Reply::Verbatim {
            format: *format,
            text: bytes::Bytes::new(),
        },
        Reply::Array(items) => Reply::Array(items.iter().map(shape).collect()),
        Reply::Map(entries) => Reply::Map(
            entries
                .iter()
                .map(|(key, value)| (shape(key), shape(value)))
                .collect(),
        ),
        // An error is never alike by its shape alone.
        other => other.clone(),
    }
}

/// The reply with the values of some names blanked.
fn without(reply: &Reply, names: &[String]) -> Reply {
    let blank = |key: &Reply, value: &Reply| match key {
        Reply::Bulk(key) if names.iter().any(|name| name.as_bytes() == key) => Reply::Null,
        _ => value.clone(),
    };
    match reply {
        Reply::Map(entries) => Reply::Map(
            entries
                .iter()
                .map(|(key, value)| (key.clone(), blank(key, value)))
                .collect(),
        ),
        Reply::Array(items) => Reply::Array(
            items
                .chunks(2)
                .flat_map(|pair| match pair {
                    [key, value] => vec![key.clone(), blank(key, value)],
                    rest => rest.to_vec(),
                })
                .collect(),
        ),
        other => other.clone(),
    }
}

fn show(answers: &[Answer]) -> String {
    answers
        .iter()
        .map(|answer| match answer {
            Answer::Reply { raw, value } if raw.is_empty() => format!("    {value:?}\n"),
            Answer::Reply { raw, .. } => {
                let mut text = raw.escape_ascii().to_string();
                text.truncate(400);
                format!("    {text}\n")
            }
            other => format!("    ({other:?})\n"),
        })
        .collect()
}
