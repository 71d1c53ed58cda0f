//! Codecs: how a typed value becomes the bytes of an entry.

mod raw;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, ErrorKind, Result};

/// How the typed values of a class are written. Chosen once per class: what is stored in one codec is not
/// readable in another.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Codec {
    /// JSON: readable in the store and from any client.
    #[default]
    Json,
    /// MessagePack: smaller and faster, not readable.
    MessagePack,
    /// The bytes themselves: for strings and byte strings only.
    Raw,
}

impl Codec {
    /// Its name in configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::MessagePack => "msgpack",
            Self::Raw => "raw",
        }
    }

    /// The bytes of `value`.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if the codec cannot carry the value.
    pub fn encode<T: Serialize + ?Sized>(self, value: &T) -> Result<Bytes> {
        let encoded = match self {
            Self::Json => serde_json::to_vec(value).map_err(|e| e.to_string()),
            Self::MessagePack => rmp_serde::to_vec_named(value).map_err(|e| e.to_string()),
            Self::Raw => raw::to_vec(value).map_err(|e| e.to_string()),
        };
        encoded.map(Bytes::from).map_err(|why| {
            Error::invalid(format_args!(
                "the value cannot be written as {}: {why}",
                self.as_str()
            ))
        })
    }

    /// The value of `bytes`.
    ///
    /// # Errors
    /// [`ErrorKind::Codec`] if the bytes are not such a value. The message tells where, not what.
    pub fn decode<T: DeserializeOwned>(self, bytes: &Bytes) -> Result<T> {
        let failed = |why: String| {
            Err(Error::new(
                ErrorKind::Codec,
                format_args!(
                    "the stored value is not {} of this type{why}",
                    self.as_str()
                ),
            ))
        };
        match self {
            Self::Json => serde_json::from_slice(bytes)
                .or_else(|e| failed(format!(" (line {}, column {})", e.line(), e.column()))),
            Self::MessagePack => rmp_serde::from_slice(bytes).or_else(|_| failed(String::new())),
            Self::Raw => raw::from_bytes(bytes).or_else(|_| failed(String::new())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize, serde::Deserialize, PartialEq, Debug, Clone)]
    struct Order {
        id: u32,
        lines: Vec<String>,
        note: Option<String>,
    }

    #[test]
    fn structures_travel_in_json_and_message_pack() {
        let order = Order {
            id: 7,
            lines: vec!["a".into()],
            note: None,
        };
        for codec in [Codec::Json, Codec::MessagePack] {
            let bytes = codec.encode(&order).unwrap();
            assert_eq!(codec.decode::<Order>(&bytes).unwrap(), order);
        }
        assert_eq!(
            Codec::Raw.encode(&order).unwrap_err().kind(),
            ErrorKind::Invalid
        );
    }

    #[test]
    fn raw_carries_strings_and_bytes_as_they_are() {
        let bytes = Codec::Raw.encode("caf\u{e9}").unwrap();
        assert_eq!(&bytes[..], "caf\u{e9}".as_bytes());
        assert_eq!(Codec::Raw.decode::<String>(&bytes).unwrap(), "caf\u{e9}");
        assert_eq!(
            Codec::Raw.encode(&vec![0_u8, 255]).unwrap(),
            Bytes::from_static(&[0, 255])
        );
        assert_eq!(
            Codec::Raw
                .decode::<Vec<u8>>(&Bytes::from_static(&[0, 255]))
                .unwrap(),
            [0, 255]
        );
        assert!(
            Codec::Raw
                .decode::<String>(&Bytes::from_static(&[255]))
                .is_err()
        );
    }

    #[test]
    fn a_decode_error_does_not_show_the_value() {
        let secret = Bytes::from_static(b"\"secret\"");
        let error = Codec::Json.decode::<u32>(&secret).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Codec);
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}
