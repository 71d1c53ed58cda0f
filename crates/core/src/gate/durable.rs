//! Asking for more durability than a class promises, for one write.

use std::time::Duration;

use bytes::Bytes;

use super::Gate;
use crate::error::Result;
use crate::port::Timestamp;
use crate::receipt::{Durability, Receipt, Written};
use crate::secure::secure;

impl Gate {
    /// Returns when the newest write of `key` that was acknowledged before the call is as durable as asked:
    /// in the journal, synced (also of a class of durability memory), or in the store. The receipt tells
    /// what was reached, which may be more. A key with nothing unflushed is in the store.
    ///
    /// # Errors
    /// Refused if the write is a dead letter, with the store's code; unavailable if the deadline passed or
    /// the journal cannot take it, telling where the write is meanwhile; unknown if nobody knows what became
    /// of the key's last write; invalid if there is no journal, or for a class without a store.
    ///
    /// # Cancel safety
    /// Dropped, the write goes on its way.
    pub async fn secure(
        &self,
        key: impl AsRef<[u8]>,
        durability: Durability,
        deadline: Duration,
    ) -> Result<Receipt> {
        secure(self.layer(), key.as_ref(), durability, deadline).await
    }

    /// Writes `key` as [`set_with`](Self::set_with) does, and then waits as [`secure`](Self::secure) does.
    ///
    /// # Errors
    /// As of the two. After one of `secure` the write was acknowledged by its class, and stays so.
    pub async fn set_durable(
        &self,
        key: impl AsRef<[u8]>,
        value: impl Into<Bytes>,
        expires_at: Option<Timestamp>,
        durability: Durability,
        deadline: Duration,
    ) -> Result<Written> {
        let key = key.as_ref();
        let written = self.set_with(key, value, expires_at).await?;
        self.more_durable(key, written, durability, deadline).await
    }

    /// Deletes `key` as [`delete`](Self::delete) does, and then waits as [`secure`](Self::secure) does.
    ///
    /// # Errors
    /// As of the two. After one of `secure` the delete was acknowledged by its class, and stays so.
    pub async fn delete_durable(
        &self,
        key: impl AsRef<[u8]>,
        durability: Durability,
        deadline: Duration,
    ) -> Result<Written> {
        let key = key.as_ref();
        let written = self.delete(key).await?;
        self.more_durable(key, written, durability, deadline).await
    }

    async fn more_durable(
        &self,
        key: &[u8],
        written: Written,
        durability: Durability,
        deadline: Duration,
    ) -> Result<Written> {
        if written.receipt.durability >= durability {
            return Ok(written);
        }
        let reached = self.secure(key, durability, deadline).await?;
        // The version is that of this write, whatever the key holds by now.
        let receipt = Receipt {
            version: written.receipt.version,
            ..reached
        };
        Ok(Written { receipt, ..written })
    }
}
