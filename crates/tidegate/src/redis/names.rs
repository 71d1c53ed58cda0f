//! The names of the keys in Redis.
//!
//! | name | is |
//! |---|---|
//! | `tg:{s17}:session:abc` | the entry of key `abc` of class `session`, in shard 17 |
//! | `tg:{s17}:.m` | the generation of shard 17; no class is called `.m` |
//! | `tg.{s17}.marks` | its marks by deadline |
//! | `tg.{s17}.dirty`, `tg.{s17}.parked`, `tg.{s17}.claims` | the names of its dirty and parked entries, and its claims |
//! | `tg.{s17}.figures` | its dirty bytes, and the last version it gave out |
//!
//! What a near cache has to be told of begins with `tg:`, the rest does not. The braces put all of a shard into one slot
//! of a cluster.

use std::sync::Arc;

use tidegate_core::Key;
use tidegate_core::port::{Shard, SharedError, SharedKey, shard_of};

/// How many slots a cluster has.
pub(super) const SLOTS: u16 = 16_384;

/// The names of one shard.
pub(super) struct ShardNames {
    /// What the names of its entries begin with.
    entry: Vec<u8>,
    pub(super) meta: Vec<u8>,
    pub(super) marks: Vec<u8>,
    pub(super) dirty: Vec<u8>,
    pub(super) parked: Vec<u8>,
    pub(super) claims: Vec<u8>,
    pub(super) figures: Vec<u8>,
    /// Where it is in a cluster.
    pub(super) slot: u16,
}

/// All names under one prefix.
pub(super) struct Names {
    prefix: String,
    shards: Vec<ShardNames>,
}

/// An entry in Redis.
pub(super) struct EntryName {
    pub(super) shard: Shard,
    pub(super) full: Vec<u8>,
    /// Where class and key begin in it.
    short: usize,
}

impl EntryName {
    /// Class and key, without the prefix.
    pub(super) fn short(&self) -> &[u8] {
        &self.full[self.short..]
    }
}

/// What a change in Redis was of.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Changed {
    Entry(SharedKey),
    Meta,
    Other,
}

impl Names {
    pub(super) fn new(prefix: &str, shards: u16) -> Self {
        let of = |shard: u16| {
            let tag = format!("s{shard}");
            let other = |name: &str| format!("{prefix}.{{{tag}}}.{name}").into_bytes();
            ShardNames {
                entry: format!("{prefix}:{{{tag}}}:").into_bytes(),
                meta: format!("{prefix}:{{{tag}}}:.m").into_bytes(),
                marks: other("marks"),
                dirty: other("dirty"),
                parked: other("parked"),
                claims: other("claims"),
                figures: other("figures"),
                slot: crc16(tag.as_bytes()) % SLOTS,
            }
        };
        Self {
            prefix: prefix.to_owned(),
            shards: (0..shards).map(of).collect(),
        }
    }

    pub(super) fn shards(&self) -> u16 {
        u16::try_from(self.shards.len()).unwrap_or(u16::MAX)
    }

    /// What a near cache is to be told of begins so.
    pub(super) fn tracked(&self) -> String {
        format!("{}:", self.prefix)
    }

    /// A pattern that all entries match.
    pub(super) fn pattern(&self) -> String {
        let mut pattern = String::new();
        for letter in self.prefix.chars() {
            if matches!(letter, '*' | '?' | '[' | ']' | '\\' | '^') {
                pattern.push('\\');
            }
            pattern.push(letter);
        }
        pattern + ":{s*}:*"
    }

    pub(super) fn shard(&self, shard: Shard) -> Result<&ShardNames, SharedError> {
        self.shards.get(usize::from(shard.0)).ok_or_else(|| {
            SharedError::configuration(format_args!("there is no shard {}", shard.0))
        })
    }

    /// The name of an entry, and those of its shard.
    pub(super) fn entry(&self, key: &SharedKey) -> Result<(&ShardNames, EntryName), SharedError> {
        if !is_class(key.class.as_bytes()) {
            return Err(SharedError::configuration(format_args!(
                "class '{}' cannot be kept in Redis: its name must be of letters, digits, _ and -",
                key.class.escape_debug()
            )));
        }
        let shard = shard_of(&key.key, self.shards());
        let names = self.shard(shard)?;
        let short = names.entry.len();
        let mut full = Vec::with_capacity(short + key.class.len() + 1 + key.key.len());
        full.extend_from_slice(&names.entry);
        full.extend_from_slice(key.class.as_bytes());
        full.push(b':');
        full.extend_from_slice(key.key.as_bytes());
        Ok((names, EntryName { shard, full, short }))
    }

    /// Class and key of what [`EntryName::short`] gave.
    pub(super) fn read_short(name: &[u8]) -> Option<SharedKey> {
        let colon = name.iter().position(|byte| *byte == b':')?;
        let (class, key) = (&name[..colon], &name[colon + 1..]);
        let class = is_class(class).then(|| std::str::from_utf8(class).ok())??;
        Some(SharedKey {
            class: Arc::from(class),
            key: Key::copy_from(key),
        })
    }

    /// What of ours a key in Redis is.
    pub(super) fn read(&self, full: &[u8]) -> Changed {
        let short = || {
            let rest = full.strip_prefix(self.prefix.as_bytes())?;
            let rest = rest.strip_prefix(b":{s")?;
            let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
            rest[digits..].strip_prefix(b"}:")
        };
        match short() {
            Some(b".m") => Changed::Meta,
            Some(short) => Self::read_short(short).map_or(Changed::Other, Changed::Entry),
            None => Changed::Other,
        }
    }
}

fn is_class(name: &[u8]) -> bool {
    let may = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    !name.is_empty() && name.iter().all(may)
}

/// CRC-16/XMODEM, by which a cluster finds the slot of a tag.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        let mut crc = crc ^ (u16::from(*byte) << 8);
        for _ in 0..8 {
            let carry = crc & 0x8000 != 0;
            crc <<= 1;
            if carry {
                crc ^= 0x1021;
            }
        }
        crc
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(class: &str, key: &[u8]) -> SharedKey {
        SharedKey {
            class: class.into(),
            key: Key::copy_from(key),
        }
    }

    #[test]
    fn the_slot_is_the_one_of_redis() {
        // The example of the cluster's specification.
        assert_eq!(crc16(b"123456789"), 0x31c3);
    }

    #[test]
    fn every_key_comes_back_from_its_name() {
        let names = Names::new("tg", 256);
        for bytes in [&b""[..], b":", b"}{s3}:", b"\0\r\n\xff", b".m"] {
            let key = key("a-b_9", bytes);
            let (_, name) = names.entry(&key).unwrap();
            assert_eq!(Names::read_short(name.short()), Some(key.clone()));
            assert_eq!(names.read(&name.full), Changed::Entry(key));
        }
        assert_eq!(
            names.read(&names.shard(Shard(255)).unwrap().meta),
            Changed::Meta
        );
        for other in [
            &b"tg:"[..],
            b"tg:{s}",
            b"tg.{s1}.marks",
            b"gt:{s1}:a:b",
            b"",
        ] {
            assert_eq!(names.read(other), Changed::Other, "{other:?}");
        }
    }

    #[test]
    fn a_class_that_could_be_taken_for_something_else_is_refused() {
        let names = Names::new("tg", 4);
        for class in ["", ".m", "a:b", "a{b}", "ä"] {
            assert!(names.entry(&key(class, b"x")).is_err(), "{class}");
        }
        assert!(names.shard(Shard(4)).is_err());
    }

    #[test]
    fn a_prefix_is_no_pattern() {
        assert_eq!(Names::new("a*[b", 1).pattern(), "a\\*\\[b:{s*}:*");
    }
}
