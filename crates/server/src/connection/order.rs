//! The order of one connection's commands on each key.
//!
//! A command waits for the earlier commands on its keys, unless both only read, or both only overwrite: the gate
//! applies writes of a key in the order in which they were begun. Keys are known by their hashes; two keys with one
//! hash wait for each other, which costs time and nothing else.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;

use foldhash::fast::RandomState;

use crate::command::Access;

/// The hashes of a command's keys, each once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum KeyHashes {
    One(u64),
    /// Any number but one.
    Many(Box<[u64]>),
}

impl KeyHashes {
    pub(super) fn as_slice(&self) -> &[u64] {
        match self {
            Self::One(hash) => std::slice::from_ref(hash),
            Self::Many(hashes) => hashes,
        }
    }
}

/// Who works on which key, and who waits for it.
#[derive(Default)]
pub(super) struct KeyOrder {
    hasher: RandomState,
    claimed: HashMap<u64, Claims, RandomState>,
}

struct Claims {
    access: Access,
    /// Commands under way, all of this access.
    under_way: usize,
    /// Commands that wait, the earliest first.
    waiting: VecDeque<(u64, Access)>,
}

impl Claims {
    fn admits(&self, access: Access) -> bool {
        self.waiting.is_empty() && self.access == access && access != Access::Change
    }
}

impl KeyOrder {
    pub(super) fn hash(&self, key: &[u8]) -> u64 {
        self.hasher.hash_one(key)
    }

    pub(super) fn hashes<'a>(&self, mut keys: impl Iterator<Item = &'a [u8]>) -> KeyHashes {
        match (keys.next(), keys.next()) {
            (Some(key), None) => KeyHashes::One(self.hash(key)),
            (first, second) => {
                let all = first.into_iter().chain(second).chain(keys);
                let mut hashes: Vec<u64> = all.map(|key| self.hash(key)).collect();
                hashes.sort_unstable();
                hashes.dedup();
                match hashes[..] {
                    [hash] => KeyHashes::One(hash),
                    _ => KeyHashes::Many(hashes.into()),
                }
            }
        }
    }

    /// Whether no command is under way or waits.
    pub(super) fn is_idle(&self) -> bool {
        self.claimed.is_empty()
    }

    /// Whether a command of this access could start on these keys at once.
    pub(super) fn admits(&self, keys: &[u64], access: Access) -> bool {
        self.claimed.is_empty()
            || keys.iter().all(|key| {
                self.claimed
                    .get(key)
                    .is_none_or(|claims| claims.admits(access))
            })
    }

    /// Claims the keys for a command; the number of keys that it must wait for.
    pub(super) fn claim(&mut self, command: u64, keys: &[u64], access: Access) -> usize {
        let mut waits = 0;
        for key in keys {
            let claims = self.claimed.entry(*key).or_insert(Claims {
                access,
                under_way: 0,
                waiting: VecDeque::new(),
            });
            if claims.under_way == 0 || claims.admits(access) {
                claims.under_way += 1;
            } else {
                claims.waiting.push_back((command, access));
                waits += 1;
            }
        }
        waits
    }

    /// Gives up the keys of a finished command. Appends to `admitted` a command for each key that it no longer
    /// waits for.
    pub(super) fn release(&mut self, keys: &[u64], admitted: &mut Vec<u64>) {
        for key in keys {
            let Some(claims) = self.claimed.get_mut(key) else {
                continue;
            };
            claims.under_way -= 1;
            if claims.under_way > 0 {
                continue;
            }
            let Some((command, access)) = claims.waiting.pop_front() else {
                self.claimed.remove(key);
                continue;
            };
            claims.access = access;
            claims.under_way = 1;
            admitted.push(command);
            while access != Access::Change
                && claims
                    .waiting
                    .front()
                    .is_some_and(|(_, next)| *next == access)
            {
                claims.under_way += 1;
                admitted.extend(claims.waiting.pop_front().map(|(command, _)| command));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A model: commands with their keys and access, and which of them may run now.
    struct Commands {
        order: KeyOrder,
        /// Key hashes, access, keys waited for.
        all: Vec<(Vec<u64>, Access, usize)>,
        finished: Vec<u64>,
    }

    impl Commands {
        fn new(commands: &[(&[u64], Access)]) -> Self {
            let mut order = KeyOrder::default();
            let all = (0..).zip(commands).map(|(id, (keys, access))| {
                let waits = order.claim(id, keys, *access);
                (keys.to_vec(), *access, waits)
            });
            let all = all.collect();
            Self {
                order,
                all,
                finished: Vec::new(),
            }
        }

        fn running(&self) -> Vec<u64> {
            (0..)
                .zip(&self.all)
                .filter(|(_, c)| c.2 == 0)
                .map(|(id, _)| id)
                .filter(|id| !self.finished.contains(id))
                .collect()
        }

        fn finish(&mut self, id: u64) {
            let mut admitted = Vec::new();
            self.order.release(&self.all[id as usize].0, &mut admitted);
            for command in admitted {
                self.all[command as usize].2 -= 1;
            }
            self.finished.push(id);
        }
    }

    use Access::{Change, Overwrite, Read};

    #[test]
    fn reads_share_and_changes_do_not() {
        let mut commands = Commands::new(&[
            (&[1], Read),
            (&[1], Read),
            (&[1], Change),
            (&[1], Read),
            (&[2], Change),
        ]);
        assert_eq!(commands.running(), [0, 1, 4]);
        commands.finish(1);
        assert_eq!(commands.running(), [0, 4]);
        commands.finish(0);
        assert_eq!(commands.running(), [2, 4]);
        commands.finish(2);
        assert_eq!(commands.running(), [3, 4]);
    }

    #[test]
    fn a_read_does_not_pass_a_write_that_waits() {
        let mut commands = Commands::new(&[(&[1], Read), (&[1], Overwrite), (&[1], Read)]);
        assert_eq!(commands.running(), [0]);
        commands.finish(0);
        assert_eq!(commands.running(), [1]);
    }

    #[test]
    fn overwrites_follow_each_other_at_once() {
        let commands = Commands::new(&[(&[1], Overwrite), (&[1], Overwrite), (&[1], Read)]);
        assert_eq!(commands.running(), [0, 1]);
    }

    #[test]
    fn a_command_of_many_keys_waits_for_all() {
        let mut commands = Commands::new(&[
            (&[1], Change),
            (&[2], Change),
            (&[1, 2, 3], Change),
            (&[3], Read),
        ]);
        assert_eq!(commands.running(), [0, 1]);
        commands.finish(0);
        assert_eq!(commands.running(), [1]);
        commands.finish(1);
        assert_eq!(commands.running(), [2]);
        commands.finish(2);
        assert_eq!(commands.running(), [3]);
        commands.finish(3);
        assert!(commands.order.is_idle());
    }

    #[test]
    fn keys_named_twice_count_once() {
        let order = KeyOrder::default();
        let keys: [&[u8]; 3] = [b"a", b"b", b"a"];
        assert_eq!(order.hashes(keys.into_iter()).as_slice().len(), 2);
        assert_eq!(
            order.hashes([&b"a"[..], b"a"].into_iter()),
            KeyHashes::One(order.hash(b"a"))
        );
        assert!(order.hashes(std::iter::empty()).as_slice().is_empty());
    }

    /// Commands: keys among three, and access.
    fn any_commands() -> impl proptest::strategy::Strategy<Value = Vec<(Vec<u64>, Access)>> {
        use proptest::prelude::*;
        let keys = proptest::collection::btree_set(0..3_u64, 0..3);
        let access = prop_oneof![Just(Read), Just(Overwrite), Just(Change)];
        let command = (keys.prop_map(|keys| keys.into_iter().collect()), access);
        proptest::collection::vec(command, 0..20)
    }

    proptest::proptest! {
        /// Whatever ends first, no two commands that must not meet are under way at once, the earlier one goes
        /// first, and everything ends.
        #[test]
        fn commands_that_must_not_meet_never_do(
            all in any_commands(),
            picks in proptest::collection::vec(0..1000_usize, 20),
        ) {
            let borrowed: Vec<(&[u64], Access)> = all.iter().map(|(k, a)| (&k[..], *a)).collect();
            let mut commands = Commands::new(&borrowed);
            for pick in picks.iter().take(all.len()) {
                let running = commands.running();
                for later in &running {
                    for earlier in 0..*later {
                        let ((a_keys, a), (b_keys, b)) = (&all[earlier as usize], &all[*later as usize]);
                        let share = a_keys.iter().any(|key| b_keys.contains(key));
                        let may_meet = !share || (a == b && *a != Change);
                        proptest::prop_assert!(may_meet || commands.finished.contains(&earlier));
                    }
                }
                proptest::prop_assert!(!running.is_empty());
                commands.finish(running[pick % running.len()]);
            }
            proptest::prop_assert!(commands.order.is_idle());
        }
    }
}
