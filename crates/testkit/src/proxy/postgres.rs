//! PostgreSQL's protocol, as far as it takes to know where the answer to a statement begins and ends.
//!
//! Everything the client sends up to a `Sync` or a simple query is one round, and the server ends its answer to
//! each with one `ReadyForQuery`; the start of the connection ends with one too. So the answer to the n-th round is
//! what lies between the n-th and the next of them, also if the client does not wait between rounds.

use std::collections::HashMap;

const SSL_REQUEST: u32 = 80_877_103;
const GSS_REQUEST: u32 = 80_877_104;

/// What the bytes of a client hold.
pub(super) enum Asked {
    /// Nothing that is looked for.
    Nothing,
    /// The end of the round whose answer is to be lost, after so many of the bytes.
    UpTo(usize),
    /// It comes after that.
    Deaf,
}

/// What is known of one connection.
#[derive(Default)]
pub(super) struct Conversation {
    /// What the client sent and is not a whole message yet.
    unfinished: Vec<u8>,
    /// Whether the first message, which has no type, was sent.
    started: bool,
    /// One-letter answers that the server still owes, to questions before the start.
    letters: usize,
    /// It went on in a language that is not understood.
    secret: bool,
    /// The texts of prepared statements.
    statements: HashMap<Vec<u8>, String>,
    /// The round the client is in fits.
    fits: bool,
    /// Rounds that the client has ended.
    rounds: u64,
    /// The round whose answer is lost.
    lost: Option<u64>,
    /// The head of the server's message that is not whole yet, and what is left of its body.
    head: Vec<u8>,
    body_left: usize,
    /// How often the server has said that it is ready.
    ready: u64,
}

impl Conversation {
    /// The client has sent this.
    pub(super) fn asked(&mut self, bytes: &[u8], fits: impl Fn(&str) -> bool) -> Asked {
        if self.lost.is_some() {
            return Asked::Deaf;
        }
        if self.secret {
            return Asked::Nothing;
        }
        let before = self.unfinished.len();
        self.unfinished.extend_from_slice(bytes);
        let mut at = 0;
        while let Some(message) = self.message(at) {
            let end = at + message.len();
            self.take(&message, &fits);
            at = end;
            if self.lost.is_some() {
                return Asked::UpTo(at.saturating_sub(before));
            }
        }
        self.unfinished.drain(..at);
        Asked::Nothing
    }

    /// The whole message that begins there.
    fn message(&self, at: usize) -> Option<Vec<u8>> {
        let rest = self.unfinished.get(at..)?;
        let kind = usize::from(self.started);
        let length = u32::from_be_bytes(rest.get(kind..kind + 4)?.try_into().ok()?);
        let end = kind + usize::try_from(length).ok()?.max(4);
        rest.get(..end).map(<[u8]>::to_vec)
    }

    fn take(&mut self, message: &[u8], fits: &impl Fn(&str) -> bool) {
        if !self.started {
            let code = message.get(4..8).and_then(|code| code.try_into().ok());
            match code.map(u32::from_be_bytes) {
                Some(SSL_REQUEST | GSS_REQUEST) => self.letters += 1,
                _ => self.started = true,
            }
            return;
        }
        let mut words = message[5..].split(|byte| *byte == 0);
        let mut word = || words.next().unwrap_or_default();
        match message[0] {
            b'Q' => {
                self.fits |= fits(&String::from_utf8_lossy(word()));
                self.end_round();
            }
            b'S' | b'F' => self.end_round(),
            b'P' => {
                let name = word().to_vec();
                let text = String::from_utf8_lossy(word()).into_owned();
                self.statements.insert(name, text);
            }
            b'B' => {
                let (_portal, name) = (word(), word());
                self.fits |= self.statements.get(name).is_some_and(|text| fits(text));
            }
            _ => {}
        }
    }

    fn end_round(&mut self) {
        self.rounds += 1;
        if std::mem::take(&mut self.fits) {
            self.lost = Some(self.rounds);
        }
    }

    /// The server has sent this: how much of it goes on, and whether the connection is cut then, because the answer
    /// that is lost has come to its end.
    pub(super) fn answered(&mut self, bytes: &[u8]) -> (usize, bool) {
        // Nothing goes on once the answer that is lost has begun.
        let begun = self.lost.is_some_and(|lost| self.ready >= lost);
        let mut kept = if begun { 0 } else { bytes.len() };
        let mut at = 0;
        while at < bytes.len() && !self.secret {
            if self.letters > 0 {
                self.letters -= 1;
                self.secret = bytes[at] != b'N';
                at += 1;
                continue;
            }
            if self.body_left > 0 {
                let taken = self.body_left.min(bytes.len() - at);
                self.body_left -= taken;
                at += taken;
            } else {
                self.head.push(bytes[at]);
                at += 1;
                if let [_, a, b, c, d] = self.head[..] {
                    let length = u32::from_be_bytes([a, b, c, d]);
                    self.body_left = usize::try_from(length)
                        .unwrap_or(usize::MAX)
                        .saturating_sub(4);
                }
            }
            if self.body_left == 0 && self.head.len() == 5 {
                let ready = self.head[0] == b'Z';
                self.head.clear();
                if ready {
                    self.ready += 1;
                    if self.lost == Some(self.ready) {
                        kept = at;
                    }
                    if self.lost.is_some_and(|lost| self.ready > lost) {
                        return (kept, true);
                    }
                }
            }
        }
        (kept, false)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panic")]

    use super::{Asked, Conversation};

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap();
        let mut message = vec![kind];
        message.extend_from_slice(&length.to_be_bytes());
        message.extend_from_slice(body);
        message
    }

    fn start() -> Vec<u8> {
        [&8_u32.to_be_bytes()[..], &196_608_u32.to_be_bytes()].concat()
    }

    /// Where the lost round ends in the client's bytes, sent in pieces of this size.
    fn end_of_lost(bytes: &[u8], piece: usize) -> (Conversation, Option<usize>) {
        let mut conversation = Conversation::default();
        let mut sent = 0;
        for piece in bytes.chunks(piece) {
            match conversation.asked(piece, |text| text.contains("commit")) {
                Asked::Nothing => sent += piece.len(),
                Asked::UpTo(end) => return (conversation, Some(sent + end)),
                Asked::Deaf => unreachable!("it is asked no more"),
            }
        }
        (conversation, None)
    }

    #[test]
    fn a_round_is_found_in_pieces_of_any_size_and_its_answer_is_lost() {
        let extended = [
            message(b'P', b"s1\0commit\0\0\0"),
            message(b'B', b"\0s1\0\0\0\0\0\0\0"),
            message(b'E', b"\0\0\0\0\0"),
            message(b'S', b""),
        ];
        for round in [message(b'Q', b"commit\0"), extended.concat()] {
            let before = [start(), message(b'Q', b"select 1\0"), message(b'S', b"")].concat();
            let asked = [before.clone(), round.clone(), message(b'Q', b"x\0")].concat();
            let expected = before.len() + round.len();
            for piece in 1..asked.len() {
                let (mut conversation, end) = end_of_lost(&asked, piece);
                assert_eq!(end, Some(expected), "pieces of {piece}");
                // The answers to the start and to two rounds go on, the third is lost to its end.
                let ready = message(b'Z', b"I");
                let kept = [message(b'R', b"\0\0\0\0"), ready.repeat(3)].concat();
                let answer = [kept.clone(), message(b'C', b"COMMIT\0"), ready.clone()].concat();
                let mut passed = 0;
                let mut cut = false;
                for piece in answer.chunks(piece) {
                    assert!(!cut);
                    let (went_on, cut_now) = conversation.answered(piece);
                    passed += went_on;
                    cut = cut_now;
                }
                assert_eq!((passed, cut), (kept.len(), true), "pieces of {piece}");
            }
        }
    }

    #[test]
    fn a_statement_that_is_prepared_and_not_bound_is_not_lost() {
        let asked = [
            start(),
            message(b'P', b"s1\0commit\0\0\0"),
            message(b'S', b""),
        ];
        assert_eq!(end_of_lost(&asked.concat(), 7).1, None);
    }

    #[test]
    fn a_question_for_encryption_is_answered_by_one_letter() {
        let ssl = [&8_u32.to_be_bytes()[..], &80_877_103_u32.to_be_bytes()].concat();
        let asked = [ssl, start(), message(b'Q', b"commit\0")].concat();
        let (mut conversation, end) = end_of_lost(&asked, 3);
        assert_eq!(end, Some(asked.len()));
        let answer = [b"N".to_vec(), message(b'Z', b"I"), message(b'Z', b"I")].concat();
        assert_eq!(conversation.answered(&answer), (7, true));
    }
}
