//! Keys: any bytes up to [`KEY_BYTES_MAX`], owned, cheap to clone.
//!
//! A key never borrows from a network buffer: a 16-byte key that pinned a 64 KiB read buffer would make a
//! bound in bytes meaningless.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// The longest key taken, in bytes. Longer keys are refused with [`ErrorKind::Invalid`](crate::ErrorKind::Invalid).
pub const KEY_BYTES_MAX: usize = 64 * 1024;

/// The name of one entry: any bytes, compared byte by byte.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(Arc<[u8]>);

impl Key {
    /// A key of its own, copied out of `bytes`.
    #[must_use]
    pub fn copy_from(bytes: &[u8]) -> Self {
        Self(Arc::from(bytes))
    }

    /// The bytes of the key.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True for the key of no bytes, which is as good a key as any other.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Key {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl From<&[u8]> for Key {
    fn from(bytes: &[u8]) -> Self {
        Self::copy_from(bytes)
    }
}

impl From<&str> for Key {
    fn from(text: &str) -> Self {
        Self::copy_from(text.as_bytes())
    }
}

impl From<String> for Key {
    fn from(text: String) -> Self {
        Self::copy_from(text.as_bytes())
    }
}

/// Printed escaped and cut, so that a hostile key can neither break a terminal nor flood a log.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 120;
        for byte in self.0.iter().take(SHOWN) {
            fmt::Display::fmt(&std::ascii::escape_default(*byte), f)?;
        }
        if self.0.len() > SHOWN {
            write!(f, "... ({} bytes)", self.0.len())?;
        }
        Ok(())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_printed_escaped_and_cut() {
        assert_eq!(Key::from("a\r\n\u{7f}").to_string(), "a\\r\\n\\x7f");
        let long = Key::copy_from(&[b'x'; 500]);
        assert!(long.to_string().ends_with("... (500 bytes)"));
    }
}
