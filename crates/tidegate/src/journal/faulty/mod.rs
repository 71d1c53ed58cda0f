//! A disk in memory that fails on request, for the tests of this journal and of whatever is built on it.
//!
//! It is compiled always and shown in no documentation: a test of another crate can use it with no feature to
//! switch on, the linker leaves it out of programs, and it needs no dependency. It cannot live in the
//! testkit, which must not know adapters.
//!
//! It keeps what a file shows (the page cache) apart from what would survive a power cut. A sync moves the
//! sectors written since the last sync from one to the other; a failed sync forgets that they were written
//! and keeps showing them, as Linux does. Names are durable after a sync of the folder.

mod content;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::io::{Disk, DiskFile};
use content::{Content, SECTOR_BYTES};

/// What of the unsynced writes a crash leaves on the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Survival {
    /// All, still unsynced: the process was killed, the machine went on.
    All,
    /// Nothing that was not synced.
    Synced,
    /// Any sectors, in any order, some of them torn within, drawn with this seed; of the unsynced changes of
    /// names the first few.
    Some(u64),
}

/// A disk in memory. A clone is the same disk. A journal is opened on what [`mount`](Self::mount) returns.
#[derive(Clone, Default)]
pub struct FaultyDisk {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    files: Vec<Content>,
    /// Names as they are shown, and as they would be after a power cut.
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    unsynced_names: Vec<NameChange>,
    locked: bool,
    /// One more with each crash: what was opened before is dead.
    life: u64,
    faults: Faults,
    counts: Counts,
    syncs_held: bool,
    syncs_waiting: usize,
}

enum NameChange {
    Set(PathBuf, usize),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

#[derive(Clone, Copy, Default)]
struct Faults {
    syncs_until_failure: Option<u64>,
    writes_until_torn: Option<(u64, usize)>,
    folder_syncs_fail: bool,
    short_writes: bool,
    space_bytes: Option<u64>,
    /// After so many changes the machine stops, and this survives.
    changes_until_crash: Option<(u64, Survival)>,
    /// The state of the chance by which a sync says that it was done and was not.
    lies: Option<u64>,
}

/// How often the disk was asked for what.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counts {
    /// Syncs of a file.
    pub syncs: u64,
    /// Writes to a file.
    pub writes: u64,
    /// Syncs of the folder.
    pub folder_syncs: u64,
    /// Bytes read from files.
    pub read_bytes: u64,
}

impl FaultyDisk {
    /// An empty disk without faults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The disk as the machine sees it until the next crash; later everything on it fails.
    #[must_use]
    pub fn mount(&self) -> Arc<dyn Disk> {
        Arc::new(Mounted {
            life: self.lock().life,
            disk: self.clone(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.inner
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// After `count` more syncs of files the next one fails.
    pub fn fail_sync_after(&self, count: u64) {
        self.lock().faults.syncs_until_failure = Some(count);
    }

    /// Syncs of the folder fail.
    pub fn fail_folder_syncs(&self) {
        self.lock().faults.folder_syncs_fail = true;
    }

    /// After `count` more writes the next one fails, with its first `bytes` bytes written.
    pub fn tear_write_after(&self, count: u64, bytes: usize) {
        self.lock().faults.writes_until_torn = Some((count, bytes));
    }

    /// Each write takes only half of what it is given, without an error.
    pub fn shorten_writes(&self) {
        self.lock().faults.short_writes = true;
    }

    /// After `count` more changes of files or names, syncs among them, the machine stops instead of doing the
    /// next.
    pub fn crash_after(&self, count: u64, survival: Survival) {
        self.lock().faults.changes_until_crash = Some((count, survival));
    }

    /// One sync in four, drawn with this seed, says that it was done and leaves what it should have made
    /// durable to a later one.
    pub fn lie_about_syncs(&self, seed: u64) {
        self.lock().faults.lies = Some(seed);
    }

    /// How many bytes all files may have together; none lifts the bound.
    pub fn set_space_bytes(&self, bytes: Option<u64>) {
        self.lock().faults.space_bytes = bytes;
    }

    /// The disk works again; what failed stays failed.
    pub fn lift_faults(&self) {
        self.lock().faults = Faults::default();
    }

    /// Syncs of files wait until [`release_syncs`](Self::release_syncs) or a crash.
    pub fn hold_syncs(&self) {
        self.lock().syncs_held = true;
    }

    /// Lets the syncs that wait go on.
    pub fn release_syncs(&self) {
        self.lock().syncs_held = false;
        self.inner.changed.notify_all();
    }

    /// Blocks until a sync waits.
    pub fn wait_for_held_sync(&self) {
        let mut state = self.lock();
        while state.syncs_waiting == 0 {
            state = self
                .inner
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// True if a sync waits.
    #[must_use]
    pub fn holds_sync(&self) -> bool {
        self.lock().syncs_waiting > 0
    }

    /// What was asked of the disk so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.lock().counts
    }

    /// Ends the life of everything open, and leaves of the unsynced writes what `survival` says. Faults that
    /// were asked for are lifted.
    pub fn crash(&self, survival: Survival) {
        self.lock().crash(survival);
        self.inner.changed.notify_all();
    }

    /// The names of all files, in order.
    #[must_use]
    pub fn names(&self) -> Vec<PathBuf> {
        self.lock().names.keys().cloned().collect()
    }

    /// What a file shows; nothing if there is none.
    #[must_use]
    pub fn read(&self, path: &Path) -> Vec<u8> {
        let state = self.lock();
        let file = state.names.get(path).map(|id| &state.files[*id]);
        file.map(|file| file.shown.clone()).unwrap_or_default()
    }

    /// Replaces what a file holds, durably; makes it if there is none.
    pub fn replace(&self, path: &Path, bytes: Vec<u8>) {
        let mut state = self.lock();
        state.files.push(Content {
            shown: bytes.clone(),
            durable: bytes,
            unsynced: BTreeSet::new(),
        });
        let id = state.files.len() - 1;
        state.names.insert(path.to_owned(), id);
        state.durable_names.insert(path.to_owned(), id);
    }

    /// Removes a file, durably.
    pub fn delete(&self, path: &Path) {
        let mut state = self.lock();
        state.names.remove(path);
        state.durable_names.remove(path);
    }

    /// Flips one bit of a file, durably.
    pub fn flip_bit(&self, path: &Path, offset: usize, bit: u8) {
        let mut bytes = self.read(path);
        bytes[offset] ^= 1 << bit;
        self.replace(path, bytes);
    }

    /// A disk of its own with what this one shows, all of it durable.
    #[must_use]
    pub fn copy(&self) -> Self {
        let copy = Self::new();
        for path in self.names() {
            copy.replace(&path, self.read(&path));
        }
        copy
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            Self::Set(path, id) => {
                names.insert(path.clone(), *id);
            }
            Self::Rename(from, to) => {
                if let Some(id) = names.remove(from) {
                    names.insert(to.clone(), id);
                }
            }
            Self::Remove(path) => {
                names.remove(path);
            }
        }
    }
}

impl State {
    fn crash(&mut self, survival: Survival) {
        self.life += 1;
        self.locked = false;
        self.faults = Faults::default();
        self.syncs_held = false;
        if survival != Survival::All {
            self.lose_unsynced(survival);
        }
    }

    /// Before a change of files or names: the machine may stop here.
    fn change(&mut self) -> io::Result<()> {
        match &mut self.faults.changes_until_crash {
            Some((0, survival)) => {
                let survival = *survival;
                self.crash(survival);
                Err(crashed())
            }
            Some((left, _)) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// True if this sync is a lie.
    fn lies(&mut self) -> bool {
        let Some(seed) = &mut self.faults.lies else {
            return false;
        };
        let mut chance = fastrand::Rng::with_seed(*seed);
        let lies = chance.u8(0..4) == 0;
        *seed = chance.u64(..);
        lies
    }

    /// Shows what a power cut leaves.
    fn lose_unsynced(&mut self, survival: Survival) {
        let mut chance = match survival {
            Survival::Some(seed) => Some(fastrand::Rng::with_seed(seed)),
            Survival::All | Survival::Synced => None,
        };
        let changes = std::mem::take(&mut self.unsynced_names);
        let kept = chance
            .as_mut()
            .map_or(0, |chance| chance.usize(..=changes.len()));
        for change in changes.iter().take(kept) {
            change.apply(&mut self.durable_names);
        }
        self.names = self.durable_names.clone();
        for file in &mut self.files {
            file.lose_unsynced(chance.as_mut());
        }
    }

    fn change_name(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.unsynced_names.push(change);
    }

    fn used_bytes(&self) -> u64 {
        self.names
            .values()
            .map(|id| self.files[*id].shown.len() as u64)
            .sum()
    }
}

/// A disk up to its next crash.
struct Mounted {
    disk: FaultyDisk,
    life: u64,
}

impl Mounted {
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.disk.lock();
        if state.life == self.life {
            Ok(state)
        } else {
            Err(crashed())
        }
    }
}

fn crashed() -> io::Error {
    io::Error::other("the machine crashed")
}

fn no_file(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, path.display().to_string())
}

impl Disk for Mounted {
    fn create_folder(&self, _folder: &Path) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self, _path: &Path) -> io::Result<Option<Box<dyn Send>>> {
        let mut state = self.state()?;
        if state.locked {
            return Ok(None);
        }
        state.locked = true;
        Ok(Some(Box::new(Lock {
            disk: self.disk.clone(),
            life: state.life,
        })))
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let state = self.state()?;
        let inside = state.names.keys().filter(|path| path.starts_with(folder));
        Ok(inside
            .filter_map(|path| path.file_name()?.to_str().map(str::to_owned))
            .collect())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state()?;
        state.change()?;
        state.files.push(Content::default());
        let id = state.files.len() - 1;
        state.change_name(NameChange::Set(path.to_owned(), id));
        Ok(Box::new(FaultyFile {
            disk: self.disk.clone(),
            id,
            life: state.life,
        }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let state = self.state()?;
        let id = state.names.get(path).ok_or_else(|| no_file(path))?;
        Ok(Box::new(FaultyFile {
            disk: self.disk.clone(),
            id: *id,
            life: state.life,
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state()?;
        state.change()?;
        if !state.names.contains_key(from) {
            return Err(no_file(from));
        }
        state.change_name(NameChange::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state()?;
        state.change()?;
        if !state.names.contains_key(path) {
            return Err(no_file(path));
        }
        state.change_name(NameChange::Remove(path.to_owned()));
        Ok(())
    }

    fn sync_folder(&self, _folder: &Path) -> io::Result<()> {
        let mut state = self.state()?;
        state.change()?;
        state.counts.folder_syncs += 1;
        if state.faults.folder_syncs_fail {
            return Err(io::Error::other("the device reported an error"));
        }
        state.durable_names = state.names.clone();
        state.unsynced_names.clear();
        Ok(())
    }
}

/// The lock of a [`FaultyDisk`], given back when dropped, unless a crash did that.
struct Lock {
    disk: FaultyDisk,
    life: u64,
}

impl Drop for Lock {
    fn drop(&mut self) {
        let mut state = self.disk.lock();
        if state.life == self.life {
            state.locked = false;
        }
    }
}

struct FaultyFile {
    disk: FaultyDisk,
    id: usize,
    life: u64,
}

impl FaultyFile {
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.disk.lock();
        if state.life == self.life {
            Ok(state)
        } else {
            Err(crashed())
        }
    }
}

impl DiskFile for FaultyFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.state()?;
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let bytes = state.files[self.id].shown.get(from..).unwrap_or_default();
        let count = bytes.len().min(buffer.len());
        buffer[..count].copy_from_slice(&bytes[..count]);
        state.counts.read_bytes += count as u64;
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let mut state = self.state()?;
        state.change()?;
        state.counts.writes += 1;
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let mut count = bytes.len();
        let mut failure = None;
        if state.faults.short_writes {
            count = count.div_ceil(2);
        }
        match &mut state.faults.writes_until_torn {
            Some((0, torn)) => {
                count = count.min(*torn);
                failure = Some(io::ErrorKind::Other);
            }
            Some((left, _)) => *left -= 1,
            None => {}
        }
        let grows = (start + count).saturating_sub(state.files[self.id].shown.len());
        if let Some(space) = state.faults.space_bytes {
            let room = usize::try_from(space.saturating_sub(state.used_bytes())).unwrap_or(0);
            if grows > room {
                count = count.saturating_sub(grows - room);
                if count == 0 {
                    failure = Some(io::ErrorKind::StorageFull);
                }
            }
        }
        let file = &mut state.files[self.id];
        if count > 0 {
            if file.shown.len() < start + count {
                file.shown.resize(start + count, 0);
            }
            file.shown[start..start + count].copy_from_slice(&bytes[..count]);
            let sectors = start / SECTOR_BYTES..=(start + count - 1) / SECTOR_BYTES;
            file.unsynced.extend(sectors);
        }
        failure.map_or(Ok(count), |kind| Err(kind.into()))
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state()?;
        state.change()?;
        state.counts.syncs += 1;
        if state.syncs_held {
            state.syncs_waiting += 1;
            self.disk.inner.changed.notify_all();
            while state.syncs_held && state.life == self.life {
                state = self
                    .disk
                    .inner
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            state.syncs_waiting -= 1;
            if state.life != self.life {
                return Err(crashed());
            }
        }
        match &mut state.faults.syncs_until_failure {
            Some(0) => {
                // Linux marks the pages clean: a later sync does not write them.
                state.files[self.id].unsynced.clear();
                return Err(io::Error::other("the device reported an error"));
            }
            Some(left) => *left -= 1,
            None => {}
        }
        if !state.lies() {
            state.files[self.id].sync();
        }
        Ok(())
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(self.state()?.files[self.id].shown.len() as u64)
    }
}
