//! What a dead letter of the shared cache says of itself, as the one text that the cache keeps with it.
//!
//! One line of words (the format, the reason, attempts, first and last refusal in milliseconds since the epoch, the
//! store's code or `-`), and after it the message. A text that is none of this is a message, of unknown history.

use std::sync::Arc;

use crate::dead_letters::{DeadLetterReason, Refusal};
use crate::port::Timestamp;

/// The format that is written.
const FORMAT: &str = "1";
/// The code of a refusal without one.
const NO_CODE: &str = "-";

/// A refusal as text.
pub(super) fn write(refusal: &Refusal) -> Arc<str> {
    // A code is one word: it stands among words.
    let code = refusal.code.as_deref().unwrap_or(NO_CODE);
    let code: String = code.split_whitespace().collect();
    format!(
        "{FORMAT} {} {} {} {} {code}\n{}",
        refusal.reason,
        refusal.attempts,
        refusal.first_at.as_millis(),
        refusal.last_at.as_millis(),
        refusal.message
    )
    .into()
}

/// What a text says; one that says nothing of its history is as if it had been refused at `at`.
pub(super) fn read(said: &str, at: Timestamp) -> Refusal {
    parse(said).unwrap_or_else(|| Refusal::new(DeadLetterReason::Refused, None, said, at))
}

fn parse(said: &str) -> Option<Refusal> {
    let (words, message) = said.split_once('\n')?;
    let mut words = words.split(' ');
    if words.next()? != FORMAT {
        return None;
    }
    let reason = match words.next()? {
        word if word == DeadLetterReason::Refused.as_str() => DeadLetterReason::Refused,
        word if word == DeadLetterReason::Conflict.as_str() => DeadLetterReason::Conflict,
        _ => return None,
    };
    let attempts = words.next()?.parse().ok()?;
    let first_at = Timestamp::from_millis(words.next()?.parse().ok()?);
    let last_at = Timestamp::from_millis(words.next()?.parse().ok()?);
    let code = words.next()?;
    if words.next().is_some() {
        return None;
    }
    let code = Some(code).filter(|code| *code != NO_CODE && !code.is_empty());
    let mut refusal = Refusal::new(reason, code, message, last_at);
    refusal.attempts = attempts;
    refusal.first_at = first_at;
    Some(refusal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::StoreError;

    #[test]
    fn what_is_written_is_read_again_and_anything_else_is_a_message() {
        let at = Timestamp::from_millis;
        let coded = Refusal::of(&StoreError::refused(Some("23514"), "no\nmore"), at(7));
        let plain = Refusal::new(DeadLetterReason::Conflict, None, "", at(9)).after(&coded);
        for refusal in [coded, plain] {
            assert_eq!(read(&write(&refusal), at(1)), refusal);
        }
        for text in [
            "",
            "out of luck",
            "1 refused\nx",
            "2 refused 1 1 1 -\nx",
            "1 lost 1 1 1 -\nx",
        ] {
            let refusal = read(text, at(1));
            assert_eq!((&*refusal.message, refusal.attempts), (text, 1));
        }
    }
}
