//! Takes a model through every order of its steps, breadth first, so that the way to a violation is a shortest one.
//!
//! States are told apart by 128 bits of their hash: with ten million states the chance that any two are taken for one
//! is below 10^-24. A state that was expanded is dropped; only its hash, its parent and its step are kept.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::fmt::Debug;
use std::hash::{BuildHasherDefault, Hash, Hasher};

/// What can be explored.
pub(crate) trait Model: Clone + Hash {
    /// What is explored, and which rules hold.
    type Variant;
    /// One thing that happens.
    type Step: Copy + Debug;

    /// Everything that can happen next.
    fn next(&self, variant: &Self::Variant, next: &mut Vec<(Self::Step, Self)>);

    /// What cannot be.
    fn violation(&self, variant: &Self::Variant) -> Option<&'static str>;

    /// Something that has to be possible, so that a run which never comes to it does not count.
    fn milestone(&self) -> Option<&'static str>;
}

/// What was found.
pub(crate) struct Found {
    pub(crate) states: usize,
    /// Of each violation a shortest way to it.
    pub(crate) violations: BTreeMap<&'static str, String>,
    /// What was possible, and how often.
    pub(crate) milestones: BTreeMap<&'static str, usize>,
}

/// Two independent halves of 64 bits: multiply and fold, with different odd constants.
#[derive(Default)]
struct Fingerprint(u64, u64);

impl Fingerprint {
    fn of(state: &impl Hash) -> u128 {
        let mut hasher = Self(0x243F_6A88_85A3_08D3, 0x1319_8A2E_0370_7344);
        state.hash(&mut hasher);
        u128::from(hasher.0) << 64 | u128::from(hasher.1)
    }
}

fn fold(state: u64, word: u64, by: u64) -> u64 {
    let product = u128::from(state ^ word).wrapping_mul(u128::from(by));
    #[expect(clippy::cast_possible_truncation, reason = "both halves are used")]
    let (low, high) = (product as u64, (product >> 64) as u64);
    (low ^ high).rotate_left(23).wrapping_add(word)
}

impl Hasher for Fingerprint {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, word: u8) {
        self.write_u64(u64::from(word));
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = fold(self.0, word, 0x9E37_79B9_7F4A_7C15);
        self.1 = fold(self.1, word, 0xC2B2_AE3D_27D4_EB4F);
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }

    fn write_isize(&mut self, word: isize) {
        self.write_u64(word as u64);
    }

    fn write_i64(&mut self, word: i64) {
        self.write_u64(word as u64);
    }
}

/// A fingerprint is as good as any hash of it.
#[derive(Default)]
struct Taken(u64);

impl Hasher for Taken {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {}

    fn write_u128(&mut self, word: u128) {
        #[expect(clippy::cast_possible_truncation, reason = "half of it is enough")]
        {
            self.0 = word as u64;
        }
    }
}

/// Explores a model from its first state; where violations are `wanted`, until all of them are found.
pub(crate) fn explore<M: Model>(first: M, variant: &M::Variant, wanted: &[&'static str]) -> Found {
    let mut seen: HashSet<u128, BuildHasherDefault<Taken>> = HashSet::default();
    seen.insert(Fingerprint::of(&first));
    let mut parents: Vec<Option<(u32, M::Step)>> = vec![None];
    let mut queue = VecDeque::from([(0_u32, first)]);
    let mut found = Found {
        states: 0,
        violations: BTreeMap::new(),
        milestones: BTreeMap::new(),
    };
    let mut next = Vec::new();
    while let Some((number, state)) = queue.pop_front() {
        if let Some(violation) = state.violation(variant) {
            found
                .violations
                .entry(violation)
                .or_insert_with(|| way(&parents, number));
            // What follows a violation shows nothing new.
            let all = wanted
                .iter()
                .all(|wanted| found.violations.contains_key(wanted));
            if !wanted.is_empty() && all {
                break;
            }
            continue;
        }
        if let Some(milestone) = state.milestone() {
            *found.milestones.entry(milestone).or_default() += 1;
        }
        state.next(variant, &mut next);
        for (step, state) in next.drain(..) {
            if seen.insert(Fingerprint::of(&state)) {
                let own = u32::try_from(parents.len()).expect("fewer states than memory holds");
                parents.push(Some((number, step)));
                queue.push_back((own, state));
            }
        }
    }
    found.states = parents.len();
    found
}

fn way<Step: Copy + Debug>(parents: &[Option<(u32, Step)>], mut number: u32) -> String {
    let mut steps = Vec::new();
    while let Some((parent, step)) = parents[number as usize] {
        steps.push(format!("{step:?}"));
        number = parent;
    }
    steps.reverse();
    steps.join(" -> ")
}
