//! The connection itself: `PING`, `HELLO`, `CLIENT` and their kin.

use tidegate_resp::number::parse_integer;
use tidegate_resp::{Protocol, Reply, Request};

use super::arguments::{at, integer, is, own};
use super::errors;
use super::session::{Answers, Session};

/// The version of Redis whose replies and errors these are.
pub(super) const REDIS_VERSION: &str = "7.0.15";

pub(super) fn ping(_: &mut Session, request: &Request) -> Reply {
    match request.len() {
        1 => Reply::simple("PONG"),
        2 => Reply::bulk(own(request, 1)),
        _ => errors::wrong_arity("ping"),
    }
}

pub(super) fn echo(_: &mut Session, request: &Request) -> Reply {
    Reply::bulk(own(request, 1))
}

pub(super) fn quit(session: &mut Session, _: &Request) -> Reply {
    session.closing = true;
    Reply::ok()
}

pub(super) fn reset(session: &mut Session, _: &Request) -> Reply {
    session.set_protocol(Protocol::Resp2);
    session.answers = Answers::On;
    session.client.words().name.clear();
    Reply::simple("RESET")
}

pub(super) fn select(_: &mut Session, request: &Request) -> Reply {
    match integer(request, 1) {
        Ok(0) => Reply::ok(),
        Ok(_) => Reply::error("ERR DB index is out of range"),
        Err(refused) => refused,
    }
}

pub(super) fn hello(session: &mut Session, request: &Request) -> Reply {
    let protocol = match request.argument(1).map(parse_integer) {
        None => session.protocol,
        Some(Some(2)) => Protocol::Resp2,
        Some(Some(3)) => Protocol::Resp3,
        Some(Some(_)) => return Reply::error("NOPROTO unsupported protocol version"),
        Some(None) => {
            return Reply::error("ERR Protocol version is not an integer or out of range");
        }
    };
    let mut name = None;
    let mut place = 2;
    while let Some(option) = request.argument(place) {
        let more = request.len() - place - 1;
        if is(option, "SETNAME") && more >= 1 {
            if !is_clean(at(request, place + 1)) {
                return unclean("Client names");
            }
            name = Some(at(request, place + 1).to_vec());
            place += 2;
        } else if is(option, "AUTH") && more >= 2 {
            return Reply::error("ERR this server has no passwords; leave AUTH out of HELLO");
        } else {
            return errors::naming("ERR Syntax error in HELLO option '", option, "'");
        }
    }
    session.set_protocol(protocol);
    if let Some(name) = name {
        session.client.words().name = name;
    }
    let version = match protocol {
        Protocol::Resp2 => 2,
        Protocol::Resp3 => 3,
    };
    let bulk = |text: &'static str| Reply::bulk(text);
    Reply::Map(vec![
        (bulk("server"), bulk("redis")),
        (bulk("version"), bulk(REDIS_VERSION)),
        (bulk("proto"), Reply::Integer(version)),
        (bulk("id"), Reply::Integer(id(session))),
        (bulk("mode"), bulk("standalone")),
        (bulk("role"), bulk("master")),
        (bulk("modules"), Reply::Array(Vec::new())),
    ])
}

fn id(session: &Session) -> i64 {
    i64::try_from(session.client.id).unwrap_or(i64::MAX)
}

/// A command that only has subcommands: the arity check leaves it nothing to answer.
pub(super) fn container(_: &mut Session, request: &Request) -> Reply {
    errors::unknown_command(request)
}

pub(super) fn client_id(session: &mut Session, _: &Request) -> Reply {
    Reply::Integer(id(session))
}

pub(super) fn client_getname(session: &mut Session, _: &Request) -> Reply {
    let words = session.client.words();
    if words.name.is_empty() {
        Reply::Null
    } else {
        Reply::bulk(words.name.clone())
    }
}

pub(super) fn client_setname(session: &mut Session, request: &Request) -> Reply {
    if !is_clean(at(request, 2)) {
        return unclean("Client names");
    }
    session.client.words().name = at(request, 2).to_vec();
    Reply::ok()
}

pub(super) fn client_setinfo(session: &mut Session, request: &Request) -> Reply {
    let (option, value) = (at(request, 2), at(request, 3));
    let is_name = is(option, "LIB-NAME");
    if !is_name && !is(option, "LIB-VER") {
        return errors::naming("ERR Unrecognized option '", option, "'");
    }
    if !is_clean(value) {
        return unclean(if is_name { "lib-name" } else { "lib-ver" });
    }
    let mut words = session.client.words();
    let word = if is_name {
        &mut words.library
    } else {
        &mut words.library_version
    };
    *word = value.to_vec();
    Reply::ok()
}

/// Whether a name can stand in a line of `CLIENT LIST`.
fn is_clean(name: &[u8]) -> bool {
    name.iter().all(u8::is_ascii_graphic)
}

fn unclean(what: &str) -> Reply {
    Reply::error(format!(
        "ERR {what} cannot contain spaces, newlines or special characters."
    ))
}

fn text(text: Vec<u8>) -> Reply {
    Reply::Verbatim {
        format: *b"txt",
        text: text.into(),
    }
}

pub(super) fn client_info(session: &mut Session, _: &Request) -> Reply {
    let mut line = session.client.line(session.server.gate.now());
    line.push(b'\n');
    text(line)
}

pub(super) fn client_list(session: &mut Session, request: &Request) -> Reply {
    let now = session.server.gate.now();
    let all = session.server.clients.all();
    let chosen = match (request.argument(2), request.len()) {
        (None, _) => all,
        (Some(option), 4) if is(option, "TYPE") => match at(request, 3) {
            kind if is(kind, "normal") => all,
            kind if ["master", "replica", "slave", "pubsub"]
                .iter()
                .any(|k| is(kind, k)) =>
            {
                Vec::new()
            }
            kind => return errors::naming("ERR Unknown client type '", kind, "'"),
        },
        (Some(option), 4..) if is(option, "ID") => {
            let ids: Option<Vec<u64>> = request
                .arguments()
                .skip(3)
                .map(|id| parse_integer(id).and_then(|id| u64::try_from(id).ok()))
                .collect();
            let Some(ids) = ids else {
                return Reply::error("ERR Invalid client ID");
            };
            all.into_iter()
                .filter(|client| ids.contains(&client.id))
                .collect()
        }
        _ => return errors::syntax(),
    };
    let mut lines = Vec::new();
    for client in chosen {
        lines.extend(client.line(now));
        lines.push(b'\n');
    }
    text(lines)
}

pub(super) fn client_no_evict(_: &mut Session, request: &Request) -> Reply {
    on_or_off(at(request, 2))
}

pub(super) fn client_no_touch(_: &mut Session, request: &Request) -> Reply {
    on_or_off(at(request, 2))
}

fn on_or_off(switch: &[u8]) -> Reply {
    if is(switch, "ON") || is(switch, "OFF") {
        Reply::ok()
    } else {
        errors::syntax()
    }
}

pub(super) fn client_reply(session: &mut Session, request: &Request) -> Reply {
    let switch = at(request, 2);
    if is(switch, "ON") {
        session.answers = Answers::On;
    } else if is(switch, "OFF") {
        session.answers = Answers::Off;
    } else if !is(switch, "SKIP") {
        return errors::syntax();
    } else if session.answers == Answers::On {
        session.answers = Answers::SkipNext;
    }
    Reply::ok()
}

pub(super) fn client_help(_: &mut Session, _: &Request) -> Reply {
    super::catalogue::help("client")
}
