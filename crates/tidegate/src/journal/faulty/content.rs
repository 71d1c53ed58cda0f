//! The content of one file, in sectors: what it shows apart from what a power cut leaves.

use std::collections::BTreeSet;

/// The unit that survives a power cut whole or not at all.
pub(super) const SECTOR_BYTES: usize = 512;

/// A file: what it shows, what of that is durable, and which sectors are not.
#[derive(Clone, Default)]
pub(super) struct Content {
    pub(super) shown: Vec<u8>,
    pub(super) durable: Vec<u8>,
    pub(super) unsynced: BTreeSet<usize>,
}

impl Content {
    pub(super) fn sector(&self, sector: usize, of: &[u8]) -> Vec<u8> {
        let start = sector * SECTOR_BYTES;
        let end = (start + SECTOR_BYTES).min(self.shown.len());
        let mut bytes = of
            .get(start..end.min(of.len()))
            .unwrap_or_default()
            .to_vec();
        bytes.resize(end - start, 0);
        bytes
    }

    pub(super) fn sync(&mut self) {
        for sector in std::mem::take(&mut self.unsynced) {
            let bytes = self.sector(sector, &self.shown);
            let start = sector * SECTOR_BYTES;
            if self.durable.len() < start + bytes.len() {
                self.durable.resize(start + bytes.len(), 0);
            }
            self.durable[start..start + bytes.len()].copy_from_slice(&bytes);
        }
    }

    /// Shows what a power cut leaves. Without chance: what was synced.
    pub(super) fn lose_unsynced(&mut self, chance: Option<&mut fastrand::Rng>) {
        if let Some(chance) = chance {
            let odds = chance.u8(0..=8);
            for sector in std::mem::take(&mut self.unsynced) {
                if chance.u8(0..8) < odds {
                    let mut bytes = self.sector(sector, &self.shown);
                    if chance.u8(0..8) == 0 {
                        let torn_at = chance.usize(..bytes.len());
                        let old = self.sector(sector, &self.durable);
                        bytes[torn_at..].copy_from_slice(&old[torn_at..]);
                    }
                    let start = sector * SECTOR_BYTES;
                    if self.durable.len() < start + bytes.len() {
                        self.durable.resize(start + bytes.len(), 0);
                    }
                    self.durable[start..start + bytes.len()].copy_from_slice(&bytes);
                }
            }
        }
        self.unsynced.clear();
        self.shown = self.durable.clone();
    }
}
