//! `SCAN`: all keys, in steps, with a cursor that any connection may go on from.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidegate::port::Timestamp;
use tidegate::{Key, ScanCursor};
use tidegate_resp::number::parse_integer;
use tidegate_resp::{Reply, Request};

use super::arguments::{at, is};
use super::row::Work;
use super::{errors, glob};
use crate::server::Server;

/// Keys looked at by one call unless COUNT says otherwise.
const COUNT: usize = 10;

/// Keys looked at by one call at most, whatever COUNT says, which is a hint only.
const COUNT_MAX: usize = 10_000;

/// Cursors remembered. The one used longest ago is forgotten first.
const CURSORS_MAX: usize = 4096;

/// What a `SCAN` asks for.
struct Question {
    cursor: u64,
    pattern: Option<Vec<u8>>,
    count: usize,
    /// All values are strings; of any other type there are none.
    strings: bool,
}

impl Question {
    fn wants(&self, key: &Key) -> bool {
        self.pattern
            .as_ref()
            .is_none_or(|pattern| glob::matches(pattern, key.as_bytes()))
    }
}

fn parse(request: &Request) -> Result<Question, Reply> {
    let cursor = std::str::from_utf8(at(request, 1)).ok();
    let cursor = cursor.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let cursor = cursor
        .and_then(|text| text.parse().ok())
        .ok_or_else(invalid_cursor)?;
    let mut question = Question {
        cursor,
        pattern: None,
        count: COUNT,
        strings: true,
    };
    let mut place = 2;
    while let Some(option) = request.argument(place) {
        let Some(value) = request.argument(place + 1) else {
            return Err(errors::syntax());
        };
        if is(option, "COUNT") {
            let count = parse_integer(value).ok_or_else(errors::not_an_integer)?;
            if count < 1 {
                return Err(errors::syntax());
            }
            question.count = usize::try_from(count).unwrap_or(COUNT_MAX).min(COUNT_MAX);
        } else if is(option, "MATCH") {
            question.pattern = Some(value.to_vec()).filter(|pattern| pattern != b"*");
        } else if is(option, "TYPE") {
            question.strings = is(value, "string");
        } else {
            return Err(errors::syntax());
        }
        place += 2;
    }
    Ok(question)
}

fn invalid_cursor() -> Reply {
    Reply::error("ERR invalid cursor")
}

pub(super) fn scan(server: &Arc<Server>, request: &Request) -> Result<Work, Reply> {
    let question = parse(request)?;
    let from = server
        .cursors
        .find(question.cursor)
        .ok_or_else(invalid_cursor)?;
    let server = Arc::clone(server);
    Ok(Box::pin(async move {
        if !question.strings {
            return page(0, Vec::new());
        }
        // The walk of the gate has phases, some of them empty; a client is given whole pages.
        let mut next = Some(from);
        let mut looked_at = 0;
        let mut found = Vec::new();
        while let Some(from) = next.take_if(|_| looked_at < question.count) {
            let (keys, then) = match server.gate.scan(from, question.count - looked_at).await {
                Ok(page) => page,
                Err(error) => return errors::of_gate(&error),
            };
            looked_at += keys.len();
            let keys = keys.iter().filter(|key| question.wants(key));
            found.extend(keys.map(|key| Reply::bulk(key.as_bytes().to_vec())));
            next = then;
        }
        page(next.map_or(0, |next| server.cursors.remember(next)), found)
    }))
}

fn page(cursor: u64, keys: Vec<Reply>) -> Reply {
    Reply::Array(vec![Reply::bulk(cursor.to_string()), Reply::Array(keys)])
}

/// Which place of the walk each cursor stands for, shared by all connections. Asking again with the same cursor
/// gives the same page again, so a client may repeat a step whose answer it lost.
pub(crate) struct Cursors {
    places: Mutex<Places>,
}

struct Places {
    /// Never used twice, and not after a restart either, so that an old cursor is refused instead of misread.
    next: u64,
    /// By cursor: the place, and when it was used last.
    known: HashMap<u64, (ScanCursor, u64)>,
    /// Counts uses.
    uses: u64,
}

impl Cursors {
    /// `started` sets the first cursor apart from those of earlier runs; all of them fit into 53 bits, which is as
    /// much as some clients can carry.
    pub(crate) fn new(started: Timestamp) -> Self {
        let next = (started.as_millis() & 0xf_ffff_ffff) << 16 | 1;
        Self {
            places: Mutex::new(Places {
                next,
                known: HashMap::new(),
                uses: 0,
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The place of a cursor; 0 is the start.
    fn find(&self, cursor: u64) -> Option<ScanCursor> {
        if cursor == 0 {
            return Some(ScanCursor::default());
        }
        let mut places = self.lock();
        places.uses += 1;
        let uses = places.uses;
        let (place, used) = places.known.get_mut(&cursor)?;
        *used = uses;
        Some(place.clone())
    }

    /// A cursor for a place.
    fn remember(&self, place: ScanCursor) -> u64 {
        let mut places = self.lock();
        if places.known.len() >= CURSORS_MAX {
            // Half of them at once, so that the search is seldom.
            let mut uses: Vec<u64> = places.known.values().map(|(_, used)| *used).collect();
            let middle = uses.len() / 2;
            let (_, oldest_kept, _) = uses.select_nth_unstable(middle);
            let oldest_kept = *oldest_kept;
            places.known.retain(|_, (_, used)| *used >= oldest_kept);
        }
        let cursor = places.next;
        places.next += 1;
        places.uses += 1;
        let uses = places.uses;
        places.known.insert(cursor, (place, uses));
        cursor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_are_idempotent_and_bounded() {
        let cursors = Cursors::new(Timestamp::from_millis(1_795_412_080_336));
        let first = cursors.remember(ScanCursor::default());
        assert!(first < 1 << 53);
        assert!(cursors.find(first).is_some() && cursors.find(first).is_some());
        assert!(cursors.find(first + 1).is_none());
        assert!(cursors.find(0).is_some());
        for _ in 0..3 * CURSORS_MAX {
            cursors.remember(ScanCursor::default());
            assert!(cursors.find(first).is_some(), "a cursor in use is kept");
        }
        assert!(cursors.lock().known.len() <= CURSORS_MAX);
        assert!(cursors.find(first + 1).is_none(), "an old one is forgotten");
    }

    #[test]
    fn cursors_of_an_earlier_run_are_unknown() {
        let earlier = Cursors::new(Timestamp::from_millis(1_795_412_080_336));
        let cursor = earlier.remember(ScanCursor::default());
        let later = Cursors::new(Timestamp::from_millis(1_795_412_080_337));
        later.remember(ScanCursor::default());
        assert!(later.find(cursor).is_none());
    }
}
