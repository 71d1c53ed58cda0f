//! A store with its tables open, and short words for what the cases do with it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidegate_core::port::{
    Batch, Guard, Outcome, Store, StoreError, TableId, TableSpec, Timestamp, Write,
};
use tidegate_core::{Change, Entry, Key, Version};

use super::{Keys, Subject, Values};

/// The present of every case, until it says otherwise.
pub(super) const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_123);

#[derive(Clone)]
pub(super) struct Scene {
    pub(super) store: Arc<dyn Store>,
    /// Another opening of the same database with the ids of both tables in it.
    pub(super) again: Option<(Arc<dyn Store>, TableId)>,
    pub(super) spec: TableSpec,
    pub(super) table: TableId,
    pub(super) other: TableId,
    pub(super) generation: u64,
    pub(super) keys: Keys,
    pub(super) values: Values,
    pub(super) now: Timestamp,
}

impl Scene {
    pub(super) async fn open(subject: Subject) -> Self {
        let store = subject.store;
        let table = store.open_table(&subject.table).await.unwrap();
        let other = store.open_table(&subject.other).await.unwrap();
        let again = match subject.again {
            Some(again) => {
                let id = again.open_table(&subject.table).await.unwrap();
                Some((again, id))
            }
            None => None,
        };
        Self {
            generation: store.open_generation(0).await.unwrap(),
            store,
            again,
            spec: subject.table,
            table,
            other,
            keys: subject.keys,
            values: subject.values,
            now: NOW,
        }
    }

    /// A version of this process, far from those that the store issues.
    pub(super) fn version(&self, number: u64) -> Version {
        Version::compose(self.generation, 1 << 40).plus(number)
    }

    /// A value that the table takes and gives back as it is.
    pub(super) fn value(&self, text: &str) -> Bytes {
        match self.values {
            Values::Any | Values::Text => Bytes::copy_from_slice(text.as_bytes()),
            Values::Json => Bytes::from(format!("\"{text}\"")),
        }
    }

    pub(super) fn put(&self, key: &str, value: &str, guard: Guard) -> Write {
        self.put_until(key, value, None, guard)
    }

    pub(super) fn put_until(
        &self,
        key: &str,
        value: &str,
        expires_at: Option<Timestamp>,
        guard: Guard,
    ) -> Write {
        Write {
            table: self.table,
            key: key.into(),
            change: Change::Put {
                value: self.value(value),
                expires_at,
            },
            guard,
        }
    }

    pub(super) fn delete(&self, key: &str, guard: Guard) -> Write {
        Write {
            table: self.table,
            key: key.into(),
            change: Change::Delete,
            guard,
        }
    }

    pub(super) async fn try_apply(&self, writes: Vec<Write>) -> Result<Vec<Outcome>, StoreError> {
        let batch = Batch::new(writes, self.now);
        self.store.apply(&batch).await
    }

    pub(super) async fn apply(&self, writes: Vec<Write>) -> Vec<Outcome> {
        let count = writes.len();
        let outcomes = self.try_apply(writes).await.unwrap();
        assert_eq!(outcomes.len(), count, "one outcome per write");
        outcomes
    }

    pub(super) async fn one(&self, write: Write) -> Outcome {
        self.apply(vec![write]).await[0]
    }

    /// Applies a write that must apply; the version and whether a live row was there.
    pub(super) async fn applied(&self, write: Write) -> (Version, bool) {
        match self.one(write).await {
            Outcome::Applied { version, existed } => (version, existed),
            other => panic!("not applied: {other:?}"),
        }
    }

    pub(super) async fn load(&self, key: &str) -> Option<Entry> {
        let keys = [(self.table, Key::from(key))];
        self.store.load(&keys, self.now).await.unwrap().remove(0)
    }

    /// Fails unless the key holds this value under this version.
    pub(super) async fn expect(&self, key: &str, value: &str, version: Version) {
        let entry = self.load(key).await;
        let entry = entry.unwrap_or_else(|| panic!("{key} is absent"));
        assert_eq!(entry.value, self.value(value), "value of {key}");
        assert_eq!(entry.version, version, "version of {key}");
    }

    pub(super) async fn expect_absent(&self, key: &str) {
        assert_eq!(self.load(key).await, None, "{key} should be absent");
    }

    pub(super) fn later(&self, millis: u64) -> Timestamp {
        self.now.after(Duration::from_millis(millis))
    }
}

/// Arithmetic that only a test needs.
pub(super) trait Plus {
    fn plus(self, number: u64) -> Self;
    fn minus(self, number: u64) -> Self;
}

impl Plus for Version {
    fn plus(self, number: u64) -> Self {
        Self::from_raw(self.raw() + number)
    }

    fn minus(self, number: u64) -> Self {
        Self::from_raw(self.raw().saturating_sub(number))
    }
}
