//! The raw codec: strings and byte strings through serde without any framing.

use std::fmt;

use bytes::Bytes;
use serde::de::value::{BytesDeserializer, StrDeserializer};
use serde::de::{DeserializeOwned, Deserializer, SeqAccess, Visitor};
use serde::ser::{Impossible, SerializeSeq, Serializer};
use serde::{Serialize, forward_to_deserialize_any};

/// What is not a string or a byte string.
#[derive(Debug)]
pub(super) struct NotBytes;

impl fmt::Display for NotBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("only strings and byte strings are raw")
    }
}

impl std::error::Error for NotBytes {}

impl serde::ser::Error for NotBytes {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

impl serde::de::Error for NotBytes {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

pub(super) fn to_vec<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, NotBytes> {
    value.serialize(Raw)
}

pub(super) fn from_bytes<T: DeserializeOwned>(bytes: &Bytes) -> Result<T, NotBytes> {
    T::deserialize(RawValue(bytes))
}

struct Raw;

macro_rules! refuse {
    ($($method:ident($($arg:ty),*);)*) => {
        $(fn $method(self $(, _: $arg)*) -> Result<Self::Ok, NotBytes> { Err(NotBytes) })*
    };
}

impl Serializer for Raw {
    type Ok = Vec<u8>;
    type Error = NotBytes;
    type SerializeSeq = ByteList;
    type SerializeTuple = Impossible<Vec<u8>, NotBytes>;
    type SerializeTupleStruct = Impossible<Vec<u8>, NotBytes>;
    type SerializeTupleVariant = Impossible<Vec<u8>, NotBytes>;
    type SerializeMap = Impossible<Vec<u8>, NotBytes>;
    type SerializeStruct = Impossible<Vec<u8>, NotBytes>;
    type SerializeStructVariant = Impossible<Vec<u8>, NotBytes>;

    fn serialize_str(self, text: &str) -> Result<Vec<u8>, NotBytes> {
        Ok(text.as_bytes().to_vec())
    }

    fn serialize_bytes(self, bytes: &[u8]) -> Result<Vec<u8>, NotBytes> {
        Ok(bytes.to_vec())
    }

    /// `Vec<u8>` comes as a sequence of numbers.
    fn serialize_seq(self, len: Option<usize>) -> Result<ByteList, NotBytes> {
        Ok(ByteList(Vec::with_capacity(len.unwrap_or(0).min(1 << 20))))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<Vec<u8>, NotBytes> {
        value.serialize(self)
    }

    fn serialize_char(self, c: char) -> Result<Vec<u8>, NotBytes> {
        Ok(c.to_string().into_bytes())
    }

    refuse! {
        serialize_bool(bool);
        serialize_i8(i8);
        serialize_i16(i16);
        serialize_i32(i32);
        serialize_i64(i64);
        serialize_u8(u8);
        serialize_u16(u16);
        serialize_u32(u32);
        serialize_u64(u64);
        serialize_f32(f32);
        serialize_f64(f64);
        serialize_none();
        serialize_unit();
        serialize_unit_struct(&'static str);
        serialize_unit_variant(&'static str, u32, &'static str);
    }

    fn serialize_some<T: Serialize + ?Sized>(self, _: &T) -> Result<Vec<u8>, NotBytes> {
        Err(NotBytes)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<Vec<u8>, NotBytes> {
        Err(NotBytes)
    }

    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple, NotBytes> {
        Err(NotBytes)
    }

    fn serialize_tuple_struct(
        self,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleStruct, NotBytes> {
        Err(NotBytes)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, NotBytes> {
        Err(NotBytes)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap, NotBytes> {
        Err(NotBytes)
    }

    fn serialize_struct(
        self,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStruct, NotBytes> {
        Err(NotBytes)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, NotBytes> {
        Err(NotBytes)
    }
}

/// A sequence every element of which must be a byte.
struct ByteList(Vec<u8>);

impl SerializeSeq for ByteList {
    type Ok = Vec<u8>;
    type Error = NotBytes;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, element: &T) -> Result<(), NotBytes> {
        let number = serde_json::to_value(element).ok().and_then(|v| v.as_u64());
        let byte = number.and_then(|n| u8::try_from(n).ok()).ok_or(NotBytes)?;
        self.0.push(byte);
        Ok(())
    }

    fn end(self) -> Result<Vec<u8>, NotBytes> {
        Ok(self.0)
    }
}

struct RawValue<'a>(&'a [u8]);

impl<'de> Deserializer<'de> for RawValue<'_> {
    type Error = NotBytes;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NotBytes> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NotBytes> {
        let text = std::str::from_utf8(self.0).map_err(|_| NotBytes)?;
        StrDeserializer::new(text).deserialize_any(visitor)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NotBytes> {
        self.deserialize_str(visitor)
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NotBytes> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NotBytes> {
        BytesDeserializer::new(self.0).deserialize_any(visitor)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NotBytes> {
        visitor.visit_seq(Numbers(self.0.iter()))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, NotBytes> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 byte_buf option unit unit_struct tuple tuple_struct
        map struct enum identifier ignored_any
    }
}

struct Numbers<'a>(std::slice::Iter<'a, u8>);

impl<'de> SeqAccess<'de> for Numbers<'_> {
    type Error = NotBytes;

    fn next_element_seed<T: serde::de::DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, NotBytes> {
        let Some(byte) = self.0.next() else {
            return Ok(None);
        };
        seed.deserialize(serde::de::value::U8Deserializer::new(*byte))
            .map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.0.len())
    }
}
