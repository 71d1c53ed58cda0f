//! Key patterns: `session:*`, `order:?:*`, or a key itself.

use std::fmt;

/// Which keys a class has. `*` stands for any bytes, also none; `?` for one byte; `\` takes the next byte
/// as it is.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Pattern {
    text: String,
    /// The bytes before the first wildcard.
    prefix: Vec<u8>,
    /// What follows them.
    rest: Rest,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Rest {
    /// Nothing: the pattern is a key.
    Nothing,
    /// A single `*` at the end: what almost every pattern is.
    Anything,
    /// The general case.
    Glob(Vec<Part>),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Part {
    Byte(u8),
    AnyByte,
    AnyBytes,
}

impl Pattern {
    /// Reads a pattern. Every text is one.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let mut parts = Vec::new();
        let mut bytes = text.bytes();
        while let Some(byte) = bytes.next() {
            parts.push(match byte {
                b'*' => Part::AnyBytes,
                b'?' => Part::AnyByte,
                b'\\' => Part::Byte(bytes.next().unwrap_or(b'\\')),
                byte => Part::Byte(byte),
            });
        }
        parts.dedup_by(|a, b| *a == Part::AnyBytes && *b == Part::AnyBytes);
        let prefix: Vec<u8> = parts
            .iter()
            .map_while(|part| {
                if let Part::Byte(byte) = part {
                    Some(*byte)
                } else {
                    None
                }
            })
            .collect();
        let rest = match &parts[prefix.len()..] {
            [] => Rest::Nothing,
            [Part::AnyBytes] => Rest::Anything,
            rest => Rest::Glob(rest.to_vec()),
        };
        Self {
            text: text.to_owned(),
            prefix,
            rest,
        }
    }

    /// Whether `key` is one of these.
    #[must_use]
    pub fn matches(&self, key: &[u8]) -> bool {
        let Some(rest) = key.strip_prefix(&self.prefix[..]) else {
            return false;
        };
        match &self.rest {
            Rest::Nothing => rest.is_empty(),
            Rest::Anything => true,
            Rest::Glob(parts) => glob(parts, rest),
        }
    }

    /// How closely it describes a key: a pattern that is a key itself before all others, then the longest
    /// literal prefix, then the most literal bytes after it.
    pub(crate) fn rank(&self) -> (bool, usize, usize) {
        let literal = match &self.rest {
            Rest::Glob(parts) => parts.iter().filter(|p| matches!(p, Part::Byte(_))).count(),
            Rest::Nothing | Rest::Anything => 0,
        };
        (self.rest == Rest::Nothing, self.prefix.len(), literal)
    }

    /// Whether a key that begins with `byte` can match.
    pub(crate) fn may_start_with(&self, byte: u8) -> bool {
        match (self.prefix.first(), &self.rest) {
            (Some(first), _) => *first == byte,
            (None, rest) => *rest != Rest::Nothing,
        }
    }

    /// The pattern as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// Matching with one point to go back to (the last `*`), so that the time is at most the product of the
/// lengths and there is no recursion to overflow.
fn glob(parts: &[Part], key: &[u8]) -> bool {
    let (mut part, mut at) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    while at < key.len() {
        match parts.get(part) {
            Some(Part::AnyBytes) => {
                back = Some((part + 1, at));
                part += 1;
                continue;
            }
            Some(Part::AnyByte) => {
                part += 1;
                at += 1;
                continue;
            }
            Some(Part::Byte(byte)) if *byte == key[at] => {
                part += 1;
                at += 1;
                continue;
            }
            _ => {}
        }
        let Some((after, from)) = back else {
            return false;
        };
        back = Some((after, from + 1));
        part = after;
        at = from + 1;
    }
    parts[part..].iter().all(|part| *part == Part::AnyBytes)
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_written() {
        for (pattern, key, expected) in [
            ("session:*", "session:1", true),
            ("session:*", "session:", true),
            ("session:*", "sessions", false),
            ("config", "config", true),
            ("config", "config2", false),
            ("*", "", true),
            ("user:*:cart", "user:7:cart", true),
            ("user:*:cart", "user:7:carts", false),
            ("user:*:cart", "user:cart:cart:cart", true),
            ("a?c*", "abcdef", true),
            ("a?c*", "ac", false),
            ("a\\*b", "a*b", true),
            ("a\\*b", "axb", false),
            ("*a*b*c*", "xxaxxbxxc", true),
            ("*a*b*c*", "xxcxxbxxa", false),
        ] {
            assert_eq!(
                Pattern::new(pattern).matches(key.as_bytes()),
                expected,
                "{pattern} {key}"
            );
        }
    }

    #[test]
    fn a_hostile_pattern_does_not_explode() {
        assert!(!Pattern::new("*a*a*a*a*a*a*a*a*b").matches(&[b'a'; 10_000]));
        assert!(Pattern::new(&"a*".repeat(50)).matches(&[b'a'; 10_000]));
    }
}
