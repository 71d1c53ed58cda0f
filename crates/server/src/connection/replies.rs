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
#[derive(Default)]
pub(super) struct Replies {
    out: BytesMut,
    /// Requests whose turn has not come, the earliest first; the first one is unanswered.
    waiting: VecDeque<(Form, Option<Reply>)>,
    /// The number of the first of them.
    first: u64,
    /// Bytes of the answers among them.
    held_bytes: usize,
}

impl Replies {
    /// Takes a place for an answer that comes later; its number.
    pub(super) fn reserve(&mut self, form: Form) -> u64 {
        self.waiting.push_back((form, None));
        self.first + self.waiting.len() as u64 - 1
    }

    /// The number that the next request will have.
    pub(super) fn next(&self) -> u64 {
        self.first + self.waiting.len() as u64
    }

    /// Answers the latest request.
    pub(super) fn push(&mut self, form: Form, reply: Reply) {
        if self.waiting.is_empty() {
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
            *slot = Some(reply);
        }
        while let Some((form, slot)) = self.waiting.front_mut() {
            let Some(reply) = slot.take() else { break };
            let form = *form;
            self.waiting.pop_front();
            self.first += 1;
            self.held_bytes -= weight(&reply);
            encode(&mut self.out, form, &reply);
        }
    }

    /// Requests without their turn.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The bytes to be sent now.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.out
    }

    /// Bytes that are kept, sendable or not.
    pub(super) fn held_bytes(&self) -> usize {
        self.out.len() + self.held_bytes
    }

    /// Forgets bytes that were sent.
    pub(super) fn advance(&mut self, sent: usize) {
        self.out.advance(sent);
        if self.out.is_empty() && self.out.capacity() > SPARE_BYTES_MAX {
            self.out = BytesMut::new();
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
        let mut replies = Replies::default();
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
    fn silent_answers_keep_the_order_and_are_not_sent() {
        let mut replies = Replies::default();
        let one = replies.reserve(SILENT);
        replies.push(LOUD, Reply::Integer(2));
        replies.push(SILENT, Reply::Integer(3));
        replies.answer(one, Reply::Integer(1));
        assert_eq!(replies.bytes(), b":2\r\n");
        assert_eq!(replies.waiting(), 0);
    }

    #[test]
    fn each_answer_has_the_protocol_of_its_request() {
        let mut replies = Replies::default();
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
