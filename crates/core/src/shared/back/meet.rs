//! A flush that meets a row which is not what its entry was made over.
//!
//! First it is asked whose row that is. Every version that the shared cache gives out is even, and newer than all that
//! nodes or the store gave out before (see [`replay`](super::replay)), so an even row is one of this cache's: an
//! earlier write whose flush was not settled, over which the entry goes, or a later one that another node flushed.
//! Otherwise somebody else wrote the row, and the class decides:
//!
//! - store-wins: the entry goes to the dead letters under another name, and its key is absent, so readers get the row.
//!   In this order: a crash in between leaves both, and the next flush does it once more.
//! - cache-wins: the entry is written over the row.
//! - merge: what the function of the application makes of the two takes the entry's place, and is written over the
//!   row. A crash between the two has it made once more, of the row and of what it was made into.

use super::Back;
use super::claims::{Claim, lost};
use super::kept::value_of;
use super::round::{Ends, put_off_one};
use crate::class::{Conflict, Merge};
use crate::conflict::absolute;
use crate::dead_letters::{DeadLetterReason, Refusal};
use crate::key::Key;
use crate::layer::Layer;
use crate::port::{Expected, Flushed, Got, Held, Put, PutOutcome, Replay, SharedKey};
use crate::read::load_apart;
use crate::version::Version;

/// A claim and the version of the row it met.
pub(super) struct Met {
    pub(super) claim: Claim,
    pub(super) newest: Version,
}

/// Gives each its end, or has it written again.
pub(super) async fn meet(layer: &Layer, back: &Back, met: Vec<Met>, ends: &mut Ends) -> Vec<Claim> {
    let mut again = Vec::new();
    let mut strangers = Vec::new();
    for Met { mut claim, newest } in met {
        match back.known.is_own(layer, newest).await {
            Some(true) if newest > claim.version => ends.superseded(back, &claim),
            Some(true) => {
                claim.base = Some(newest);
                again.push(claim);
            }
            Some(false) if claim.is_lost => {
                // It was tried once more, and the row is still another's.
                let refusal = refusal(layer, &claim, newest);
                ends.park(layer, back, &claim, refusal);
            }
            Some(false) => strangers.push(Met { claim, newest }),
            None => put_off_one(layer, &claim, ends),
        }
    }
    let mut losers = Vec::new();
    for met in newest_of_their_keys(layer, back, strangers, ends).await {
        match &layer.class(met.claim.class).conflict {
            Conflict::StoreWins => losers.push(met),
            Conflict::CacheWins => write_over(met.claim, met.newest, &mut again, ends),
            Conflict::Merge(merge) => {
                if let Err((claim, why)) = merged(layer, back, met, merge, &mut again, ends).await {
                    losers.push(Met {
                        newest: Version::NONE,
                        claim,
                    });
                    tracing::error!(why, "two states of a key could not be merged");
                }
            }
        }
    }
    lose(layer, back, losers, ends).await;
    again
}

/// Those that are still the newest write of their key. What was written meanwhile takes their place, and meets the row
/// itself.
async fn newest_of_their_keys(
    layer: &Layer,
    back: &Back,
    met: Vec<Met>,
    ends: &mut Ends,
) -> Vec<Met> {
    if met.is_empty() {
        return met;
    }
    let keys: Vec<SharedKey> = met.iter().map(|met| met.claim.key.clone()).collect();
    let found = back.get_many(layer, &keys).await;
    let mut newest = Vec::with_capacity(met.len());
    for (met, found) in met.into_iter().zip(found) {
        match found {
            Ok(Got::Dirty(held)) if held.version == met.claim.version => newest.push(met),
            Ok(_) => ends.end(&met.claim, Flushed::Again(layer.clock.now())),
            // Its claim runs out.
            Err(_) => {}
        }
    }
    newest
}

/// Has a claim written over the row it met, now if its version is newer, and otherwise under another.
fn write_over(mut claim: Claim, met: Version, again: &mut Vec<Claim>, ends: &mut Ends) {
    if claim.version > met {
        claim.base = Some(met);
        again.push(claim);
    } else {
        ends.end(&claim, Flushed::Over(met));
    }
}

/// Puts what a merge function makes of an entry and its row in the entry's place. What cannot be made loses.
async fn merged(
    layer: &Layer,
    back: &Back,
    Met { mut claim, newest }: Met,
    merge: &Merge,
    again: &mut Vec<Claim>,
    ends: &mut Ends,
) -> Result<(), (Claim, &'static str)> {
    let key: [(Key, usize); 1] = [(claim.key.key.clone(), claim.class)];
    let Some(Ok(row)) = load_apart(layer, &key).await.pop() else {
        ends.end(&claim, Flushed::Again(layer.clock.now()));
        return Ok(());
    };
    let now = layer.clock.now();
    let ours = claim.change.to_entry(claim.version);
    let ours = ours.filter(|entry| !entry.is_expired(now));
    let make = || merge.merge(&claim.key.key, row.as_ref(), ours.as_ref());
    let Ok(made) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(make)) else {
        return Err((claim, "the merge function panicked"));
    };
    let Some(change) = absolute(made, row.as_ref()) else {
        return Err((claim, "the merge function adds to what is no whole number"));
    };
    let put = Put {
        key: claim.key.clone(),
        value: value_of(&change),
        expected: Expected::Version(claim.version),
        now: claim.since,
        shard_bytes_max: u64::MAX,
    };
    match back.put(layer, put).await {
        Ok(PutOutcome::Dirty { version, .. }) => {
            back.saw(version);
            claim.version = version;
            claim.change = change;
            let met = row.map_or(newest, |row| row.version);
            write_over(claim, met, again, ends);
        }
        // Written again meanwhile, or not now.
        _ => ends.end(&claim, Flushed::Again(now)),
    }
    Ok(())
}

/// Keeps writes that lost as dead letters, and then lets their keys go.
async fn lose(layer: &Layer, back: &Back, losers: Vec<Met>, ends: &mut Ends) {
    if losers.is_empty() {
        return;
    }
    let letters: Vec<Replay> = losers
        .iter()
        .map(|Met { claim, .. }| Replay {
            key: lost(&claim.key),
            held: Held {
                version: claim.version,
                value: value_of(&claim.change),
            },
            base: claim.base,
            now: claim.since,
        })
        .collect();
    let kept = back.replay(layer, &letters).await;
    let mut parked = Vec::new();
    let mut gone = Vec::new();
    for ((met, letter), kept) in losers.into_iter().zip(letters).zip(kept) {
        // Its claim runs out, and it meets the row once more.
        let Ok(is_new) = kept else { continue };
        if is_new {
            let claim = Claim {
                key: letter.key,
                is_lost: true,
                ..met.claim.clone()
            };
            parked.push((claim, refusal(layer, &met.claim, met.newest)));
        }
        gone.push(met.claim);
    }
    let mut letters = Ends::default();
    for (claim, refusal) in parked {
        letters.park(layer, back, &claim, refusal);
    }
    drop(back.settle(layer, &letters.settled).await);
    for claim in gone {
        ends.end(&claim, Flushed::Dropped);
    }
}

fn refusal(layer: &Layer, claim: &Claim, newest: Version) -> Refusal {
    let version = claim.version;
    let why = match newest {
        Version::NONE => {
            format!(
                "the row is gone or not to be merged with, and {version} was written over one that was there"
            )
        }
        newest => format!(
            "the row has version {newest}, which the shared cache did not give out and over which {version} was not \
             made"
        ),
    };
    Refusal::new(DeadLetterReason::Conflict, None, &why, layer.clock.now())
}
