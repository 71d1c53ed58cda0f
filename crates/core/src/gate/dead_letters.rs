//! What a gate offers on dead letters.

use std::sync::{Arc, Weak};

use bytes::Bytes;

use super::Gate;
use super::update::update;
use crate::class::Strategy;
use crate::dead_letters::{self, DeadLetter};
use crate::entry::{Change, Entry};
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::port::Timestamp;
use crate::receipt::Written;
use crate::shared::back;
use crate::version::Version;

impl Gate {
    /// The dead letters of a class, or of all classes, whose keys come after `after`, in the order of key
    /// bytes, at most `limit`, without their values. None of a class that is not there. Those being tried
    /// again at this moment are not among them; over a shared cache those of all nodes, as of a moment ago.
    #[must_use]
    pub fn dead_letters(
        &self,
        class: Option<&str>,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Vec<DeadLetter> {
        let class = match class.map(|name| self.class_index(name)) {
            Some(None) => return Vec::new(),
            Some(class) => class,
            None => None,
        };
        match back::of(self.layer()) {
            Some(back) => back::letters::list(self.layer(), back, class, after, limit),
            None => dead_letters::list(self.layer(), class, after, limit),
        }
    }

    /// The dead letter of `key` with its value, if it has one.
    #[must_use]
    pub fn dead_letter(&self, key: &[u8]) -> Option<DeadLetter> {
        match back::of(self.layer()) {
            Some(back) => back::letters::get(self.layer(), back, key),
            None => dead_letters::get(self.layer(), key),
        }
    }

    /// Tries the dead letter of `key` once more, soon; false if there is none. It keeps its version, so it
    /// overwrites nothing newer. Whether the store took it is seen by its being gone, after a
    /// [`flush`](Self::flush) at the latest.
    pub fn retry_dead_letter(&self, key: &[u8]) -> bool {
        match back::of(self.layer()) {
            Some(back) => back::mend::retry(&self.handle.layer, back, key),
            None => dead_letters::retry(self.layer(), key),
        }
    }

    /// Tries every dead letter of a class, or of all classes, once more; how many.
    pub fn retry_dead_letters(&self, class: Option<&str>) -> u64 {
        let class = match class.map(|name| self.class_index(name)) {
            Some(None) => return 0,
            Some(class) => class,
            None => None,
        };
        match back::of(self.layer()) {
            Some(back) => back::mend::retry_all(&self.handle.layer, back, class),
            None => dead_letters::retry_all(self.layer(), class),
        }
    }

    /// Writes `value` in place of the dead letter of `key`: a new write, newer than everything so far, which
    /// takes its place. The end of the data's life stays as it was.
    ///
    /// # Errors
    /// Invalid if `key` has no dead letter of this `version` (any more); otherwise as [`set`](Self::set).
    ///
    /// # Cancel safety
    /// As all writes: done wholly or not at all.
    pub async fn edit_dead_letter(
        &self,
        key: impl AsRef<[u8]>,
        version: Version,
        value: impl Into<Bytes>,
    ) -> Result<Written> {
        let (key, value): (&[u8], Bytes) = (key.as_ref(), value.into());
        let missing = || {
            let error = Error::new(
                ErrorKind::Invalid,
                format_args!("the key has no dead letter of version {version}"),
            );
            error.with_key(&Key::copy_from(key))
        };
        if let Some(back) = back::of(self.layer()) {
            let edited = back::mend::edit(self.layer(), back, key, version, value).await;
            let class = &self.layer().state(self.layer().class_of(key)).name;
            let edited =
                edited.map_err(|error| error.with_key(&Key::copy_from(key)).with_class(class));
            return edited?.ok_or_else(missing);
        }
        let (presence, expires_at) = self.letter_of(key, version).ok_or_else(missing)?;
        // The change runs in its turn among the writes of the key. If one of them took the letter's place
        // before, the letter is gone, and nothing is changed.
        let change = move |_: Option<&Entry>| {
            if presence.upgrade().is_none() {
                return (None, false);
            }
            let value = value.clone();
            (Some(Change::Put { value, expires_at }), true)
        };
        let (edited, written) = update(self.layer(), key, change).await?;
        if !edited {
            return Err(missing());
        }
        Ok(written)
    }

    /// Gives up the dead letter of `key` for good: readers get the row of the store again. `version` is the
    /// confirmation; false if the key has no dead letter of that version (any more). The discard is in the
    /// journal before it is done.
    ///
    /// # Errors
    /// Overloaded if the journal has no room; unknown if it failed: then the letter is still here, and may be
    /// gone after a restart.
    ///
    /// # Cancel safety
    /// Dropped, the discard goes on.
    pub async fn discard_dead_letter(
        &self,
        key: impl AsRef<[u8]>,
        version: Version,
    ) -> Result<bool> {
        let (layer, key) = (&self.handle.layer, Key::copy_from(key.as_ref()));
        let (reply, answer) = tokio::sync::oneshot::channel();
        let task = Arc::clone(layer);
        layer.spawn(async move {
            let discarded = match back::of(&task) {
                Some(back) => back::mend::discard(&task, back, key.as_bytes(), version).await,
                None => dead_letters::discard(Arc::clone(&task), key, version).await,
            };
            // A caller that went away is no concern.
            drop(reply.send(discarded));
        });
        answer.await.unwrap_or_else(|_| Err(Error::closed()))
    }

    /// The dead letter of this key and version: whether it is still there, and the end of its data's life.
    fn letter_of(&self, key: &[u8], version: Version) -> Option<(Weak<()>, Option<Timestamp>)> {
        let state = self.layer().lane_of(key).lock();
        let (entry, letter) = state.dirty.letter(key)?;
        let expires_at = match &entry.change {
            Change::Put { expires_at, .. } => *expires_at,
            _ => None,
        };
        (entry.version == version).then(|| (letter.presence(), expires_at))
    }

    fn class_index(&self, name: &str) -> Option<usize> {
        let classes = self.layer().classes.classes();
        classes.iter().position(|class| class.name == name)
    }

    /// The write-back class of this name.
    pub(super) fn write_back_class(&self, name: &str) -> Result<usize> {
        self.class_index(name)
            .filter(|class| self.layer().class(*class).strategy == Strategy::WriteBack)
            .ok_or_else(|| Error::invalid(format_args!("there is no write-back class '{name}'")))
    }
}
