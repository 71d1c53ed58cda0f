//! Typed values: serde on one side, the codec of the key's class on the other.

use std::marker::PhantomData;

use futures_util::future::join_all;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Gate;
use crate::error::Result;
use crate::key::Key;
use crate::port::Timestamp;
use crate::receipt::Written;

/// A gate that speaks in values of `T`. Made by [`Gate::typed`]; cheap to clone.
pub struct Typed<T> {
    gate: Gate,
    value: PhantomData<fn() -> T>,
}

impl<T> Clone for Typed<T> {
    fn clone(&self) -> Self {
        Self::new(self.gate.clone())
    }
}

impl<T> Typed<T> {
    pub(super) fn new(gate: Gate) -> Self {
        Self {
            gate,
            value: PhantomData,
        }
    }

    /// The gate itself.
    #[must_use]
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Deletes `key`; the answer tells whether it was there.
    ///
    /// # Errors
    /// As [`Gate::set`].
    pub async fn delete(&self, key: impl AsRef<[u8]>) -> Result<Written> {
        self.gate.delete(key).await
    }
}

impl<T: DeserializeOwned> Typed<T> {
    /// Reads the value of `key`; nothing if it is absent.
    ///
    /// # Errors
    /// As [`Gate::read`]; codec if what is stored is not a `T`.
    pub async fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<T>> {
        let key = key.as_ref();
        let Some(bytes) = self.gate.get(key).await? else {
            return Ok(None);
        };
        let codec = self.gate.class_of(key).codec;
        codec
            .decode(&bytes)
            .map(Some)
            .map_err(|error| error.with_key(&Key::copy_from(key)))
    }

    /// Reads several keys at once.
    ///
    /// # Errors
    /// As [`get`](Self::get), of the first key that failed.
    pub async fn get_many(&self, keys: &[impl AsRef<[u8]>]) -> Result<Vec<Option<T>>> {
        join_all(keys.iter().map(|key| self.get(key)))
            .await
            .into_iter()
            .collect()
    }
}

impl<T: Serialize> Typed<T> {
    /// Writes `key`.
    ///
    /// # Errors
    /// As [`Gate::set`]; invalid if the codec of the class cannot carry the value.
    pub async fn set(&self, key: impl AsRef<[u8]>, value: &T) -> Result<Written> {
        self.set_with(key, value, None).await
    }

    /// Writes `key`, which dies at `expires_at`.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub async fn set_with(
        &self,
        key: impl AsRef<[u8]>,
        value: &T,
        expires_at: Option<Timestamp>,
    ) -> Result<Written> {
        let key = key.as_ref();
        let bytes = self.gate.class_of(key).codec.encode(value);
        let bytes = bytes.map_err(|error| error.with_key(&Key::copy_from(key)))?;
        self.gate.set_with(key, bytes, expires_at).await
    }

    /// Writes several keys at once; not atomic.
    ///
    /// # Errors
    /// As [`set`](Self::set), of the first key that failed.
    pub async fn set_many<'a, K: AsRef<[u8]>>(
        &self,
        pairs: impl IntoIterator<Item = (K, &'a T)>,
    ) -> Result<Vec<Written>>
    where
        T: 'a,
    {
        let writes = pairs.into_iter().map(|(key, value)| self.set(key, value));
        join_all(writes).await.into_iter().collect()
    }
}
