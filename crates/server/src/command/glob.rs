//! The patterns of `SCAN … MATCH`: `*`, `?`, `[abc]`, `[a-z]`, `[^x]`, and `\` before what is meant literally.

/// Whether `text` matches. As in Redis 7.0, an empty text matches the empty pattern only. Takes at most the product of the two lengths, whatever the pattern.
pub(super) fn matches(pattern: &[u8], text: &[u8]) -> bool {
    if text.is_empty() {
        return pattern.is_empty();
    }
    let (mut rest, mut at) = (pattern, 0);
    // Where to go on if the way taken fails: behind the last star, one byte further.
    let mut back: Option<(&[u8], usize)> = None;
    loop {
        if let [b'*', after @ ..] = rest {
            if after.is_empty() {
                return true;
            }
            back = Some((after, at));
            rest = after;
            continue;
        }
        let step = match (rest.is_empty(), text.get(at)) {
            (true, None) => return true,
            (true, Some(_)) => None,
            (false, None) => return false,
            (false, Some(byte)) => match_one(rest, *byte),
        };
        match (step, &mut back) {
            (Some(after), _) => {
                rest = after;
                at += 1;
            }
            (None, Some((behind_star, from))) => {
                *from += 1;
                at = *from;
                rest = behind_star;
            }
            (None, None) => return false,
        }
    }
}

/// Matches one byte against the first element of a pattern that is no star; gives what follows the element.
fn match_one(pattern: &[u8], byte: u8) -> Option<&[u8]> {
    match pattern {
        [b'?', after @ ..] => Some(after),
        [b'[', set @ ..] => match_set(set, byte),
        [b'\\', literal, after @ ..] => (*literal == byte).then_some(after),
        [literal, after @ ..] => (*literal == byte).then_some(after),
        [] => None,
    }
}

/// A set may lack its end: then it reaches to the end of the pattern.
fn match_set(set: &[u8], byte: u8) -> Option<&[u8]> {
    let (negated, mut rest) = match set {
        [b'^', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let mut found = false;
    loop {
        rest = match rest {
            [] | [b']', ..] => break,
            [b'\\', literal, after @ ..] => {
                found |= *literal == byte;
                after
            }
            [low, b'-', high, after @ ..] => {
                found |= (*low.min(high)..=*low.max(high)).contains(&byte);
                after
            }
            [literal, after @ ..] => {
                found |= *literal == byte;
                after
            }
        };
    }
    (found != negated).then_some(rest.strip_prefix(b"]").unwrap_or(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_redis_matches_them() {
        for (pattern, text, expected) in [
            ("*", "a", true),
            ("*", "", false),
            ("**", "", false),
            ("", "", true),
            ("", "a", false),
            ("a*", "abc", true),
            ("*c", "abc", true),
            ("a*c*e", "abcde", true),
            ("a*c*f", "abcde", false),
            ("h?llo", "hello", true),
            ("h?llo", "hllo", false),
            ("h[ae]llo", "hallo", true),
            ("h[ae]llo", "hillo", false),
            ("h[^e]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[a-c]llo", "hbllo", true),
            ("h[c-a]llo", "hbllo", true),
            ("h[a-c]llo", "hdllo", false),
            ("[a\\]b]", "]", true),
            ("[a", "a", true),
            ("[^", "a", true),
            ("[]", "a", false),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("a\\", "a\\", true),
            ("*[x]*", "aaxaa", true),
            ("**a**", "bab", true),
            ("a**", "a", true),
        ] {
            assert_eq!(
                matches(pattern.as_bytes(), text.as_bytes()),
                expected,
                "{pattern} {text}"
            );
        }
    }

    #[test]
    fn a_hostile_pattern_ends_soon() {
        assert!(!matches("a*".repeat(1000).as_bytes(), &[b'b'; 1000]));
        assert!(!matches(b"*a*a*a*a*a*a*a*a*b", &[b'a'; 10_000]));
    }
}
