//! The answers of one connection: given in any order, sent in the order of the requests.

use std::collections::VecDeque;

use bytes::{Buf, BytesMut};
use tidegate_resp::{Protocol, Reply};

/// An output buffer larger than this is given back when it is empty.
const SPARE_BYTES_MAX: usize = 256 * 1024;

/// How an answer is to be written, decided when its request was taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Form {
    pub(super) protocol: Protocol,
    /// The client asked for no answer.
    pub(super) silent: bool,
}

/// What waits to be sent.
pub(super) struct Replies {
    out: BytesMut,
    /// Nothing more is written to `out` while it has so many bytes. An answer that waits shares its values with
    /// the cache; written out it has bytes of its own.
    out_bytes_max: usize,
    /// Requests whose turn has not come, the earliest first; the first one is unanswered, or `out` is full.
    waiting: VecDeque<(Form, Option<Reply>)>,
    /// How many of them are unanswered.
    unanswered: usize,
    /// The number of the first of them.
    first: u64,
    /// Bytes of the answers among them.
    held_bytes: usize,
}

impl Replies {
    pub(super) fn new(out_bytes_max: u64) -> Self {
        Self {
            out: BytesMut::new(),
            out_bytes_max: usize::try_from(out_bytes_max).unwrap_or(usize::MAX),
            waiting: VecDeque::new(),
            unanswered: 0,
            first: 0,
            held_bytes: 0,
        }
    }

    /// Takes a place for an answer that comes later; its number.
    pub(super) fn reserve(&mut self, form: Form) -> u64 {
        self.waiting.push_back((form, None));
        self.unanswered += 1;
        self.first + self.waiting.len() as u64 - 1
    }

    /// The number that the next request will have.
    pub(super) fn next(&self) -> u64 {
        self.first + self.waiting.len() as u64
    }

    /// Answers the latest request.
    pub(super) fn push(&mut self, form: Form, reply: Reply) {
        if self.waiting.is_empty() && self.out.len() < self.out_bytes_max {
            self.first += 1;
            encode(&mut self.out, form, &reply);
        } else {
            self.held_bytes += weight(&reply);
            self.waiting.push_back((form, Some(reply)));
        }
    }

    /// Answers a request for which a place was taken.
    pub(super) fn answer(&mut self, number: u64, reply: Reply) {
        let place = number
            .checked_sub(self.first)
            .and_then(|place| usize::try_from(place).ok());
        if let Some((_, slot)) = place.and_then(|place| self.waiting.get_mut(place)) {
            self.held_bytes += weight(&reply);
            self.unanswered -= usize::from(slot.is_none());
            *slot = Some(reply);
        }
        self.write_out();
    }

    /// Writes out the answers whose turn has come, as far as there is room.
    fn write_out(&mut self) {
        while self.out.len() < self.out_bytes_max
            && let Some((form, slot)) = self.waiting.front_mut()
        {
            let Some(reply) = slot.take() else { break };
            let form = *form;
            self.waiting.pop_front();
            self.first += 1;
            self.held_bytes -= weight(&reply);
            encode(&mut self.out, form, &reply);
        }
    }

    /// Requests without their turn, answered or not.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Requests without their answer.
    pub(super) fn unanswered(&self) -> usize {
        self.unanswered
    }

    /// The bytes to be sent now.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.out
    }

    /// Bytes that are kept, sendable or not.
    pub(super) fn held_bytes(&self) -> usize {
        self.out.len() + self.held_bytes
    }

    /// Forgets bytes that were sent; when all are, the next answers take their place.
    pub(super) fn advance(&mut self, sent: usize) {
        self.out.advance(sent);
        if self.out.is_empty() {
            if self.out.capacity() > SPARE_BYTES_MAX {
                self.out = BytesMut::new();
            }
            self.write_out();
        }
    }
}

fn encode(out: &mut BytesMut, form: Form, reply: &Reply) {
    if !form.silent {
        reply.encode(out, form.protocol);
    }
}

/// About how many bytes an answer keeps in memory.
fn weight(reply: &Reply) -> usize {
    size_of::<Reply>()
        + match reply {
            Reply::Simple(text) | Reply::Error(text) | Reply::Bulk(text) => text.len(),
            Reply::Verbatim { text, .. } => text.len(),
            Reply::Array(items) | Reply::Set(items) => items.iter().map(weight).sum(),
            Reply::Map(entries) => entries.iter().map(|(k, v)| weight(k) + weight(v)).sum(),
            _ => 0,
        }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    const LOUD: Form = Form {
        protocol: Protocol::Resp2,
        silent: false,
    };
    const SILENT: Form = Form {
        protocol: Protocol::Resp2,
        silent: true,
    };

    #[test]
    fn answers_leave_in_the_order_of_their_requests() {
        let mut replies = Replies::new(1 << 20);
        replies.push(LOUD, Reply::Integer(0));
        let one = replies.reserve(LOUD);
        let two = replies.reserve(LOUD);
        replies.push(LOUD, Reply::Integer(3));
        let four = replies.reserve(LOUD);
        assert_eq!(replies.next(), four + 1);
        replies.answer(two, Reply::Integer(2));
        assert_eq!(replies.bytes(), b":0\r\n");
        replies.answer(one, Reply::Integer(1));
        assert_eq!(replies.bytes(), b":0\r\n:1\r\n:2\r\n:3\r\n");
        assert_eq!(replies.waiting(), 1);
        replies.advance(16);
        replies.answer(four, Reply::Integer(4));
        assert_eq!(replies.bytes(), b":4\r\n");
        assert_eq!(replies.held_bytes(), 4);
    }

    #[test]
    fn answers_beyond_the_bound_are_written_out_when_what_is_before_them_is_sent() {
        let mut replies = Replies::new(8);
        let slow = replies.reserve(LOUD);
        let values: Vec<Bytes> = (0..3).map(|n| Bytes::from(vec![b'a' + n; 9])).collect();
        for value in &values {
            replies.push(LOUD, Reply::Bulk(value.clone()));
        }
        assert_eq!((replies.waiting(), replies.unanswered()), (4, 1));
        replies.answer(slow, Reply::Integer(0));
        // The first one had room, and the second one too, for it began below the bound.
        assert_eq!(replies.bytes(), b":0\r\n$9\r\naaaaaaaaa\r\n");
        assert_eq!((replies.waiting(), replies.unanswered()), (2, 0));
        assert!(replies.held_bytes() >= 19 + 2 * 9);
        replies.push(LOUD, Reply::Integer(4));
        replies.advance(18);
        assert_eq!(replies.bytes(), b"\n");
        replies.advance(1);
        assert_eq!(replies.bytes(), b"$9\r\nbbbbbbbbb\r\n");
        replies.advance(15);
        assert_eq!(replies.bytes(), b"$9\r\nccccccccc\r\n");
        replies.advance(15);
        assert_eq!(replies.bytes(), b":4\r\n");
        replies.advance(4);
        assert_eq!((replies.waiting(), replies.held_bytes()), (0, 0));
    }

    #[test]
    fn silent_answers_keep_the_order_and_are_not_sent() {
        let mut replies = Replies::new(1 << 20);
        let one = replies.reserve(SILENT);
        replies.push(LOUD, Reply::Integer(2));
        replies.push(SILENT, Reply::Integer(3));
        replies.answer(one, Reply::Integer(1));
        assert_eq!(replies.bytes(), b":2\r\n");
        assert_eq!(replies.waiting(), 0);
    }

    #[test]
    fn each_answer_has_the_protocol_of_its_request() {
        let mut replies = Replies::new(1 << 20);
        let one = replies.reserve(LOUD);
        replies.push(
            Form {
                protocol: Protocol::Resp3,
                silent: false,
            },
            Reply::Null,
        );
        replies.answer(one, Reply::Null);
        assert_eq!(replies.bytes(), b"$-1\r\n_\r\n");
    }
}
