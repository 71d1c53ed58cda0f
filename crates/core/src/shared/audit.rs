//! The audit of a shared cache at start: whether what an operator set up keeps what the classes promise.
//!
//! A cache that evicts a quarantine serves what a write has replaced; one that evicts a dirty entry, or forgets it in
//! a crash, loses an acknowledged write. None of this shows before the day it happens, so it is looked at before the
//! first request, and each refusal says what to change.

use crate::class::{Class, Strategy};
use crate::error::{Error, ErrorKind, Result};
use crate::port::{Facts, SharedCache, SharedError};
use crate::receipt::Durability;

/// What is asked of a shared cache.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Demands {
    /// The names of the classes whose acknowledged writes nothing has but the shared cache's own disk.
    pub synced_classes: Vec<String>,
    /// How many replicas are to have such a write before it is acknowledged.
    pub replicas: u32,
}

/// What became of an audit, in words for an operator: one sentence each.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Audit {
    /// Why it must not be used; nothing if it may.
    pub refusals: Vec<String>,
    /// What may turn out badly, and is the operator's decision.
    pub warnings: Vec<String>,
}

impl Demands {
    /// What these classes ask of a cache.
    #[must_use]
    pub fn of(classes: &[Class], replicas: u32) -> Self {
        let relies = |class: &&Class| {
            class.strategy == Strategy::WriteBack
                && matches!(class.durability, Durability::Shared | Durability::Both)
        };
        Self {
            synced_classes: classes
                .iter()
                .filter(relies)
                .map(|class| class.name.clone())
                .collect(),
            replicas,
        }
    }
}

/// The audit of the cache of a gate that is about to open.
///
/// # Errors
/// Configuration, with everything that is refused; unavailable if the cache does not tell how it is set up.
pub(crate) async fn check(cache: &dyn SharedCache, classes: &[Class]) -> Result<()> {
    let facts = cache.facts().await.map_err(|error| match error {
        SharedError::Configuration { .. } => Error::configuration(error),
        error => Error::new(ErrorKind::Unavailable, error),
    })?;
    let audit = Audit::of(&facts, &Demands::of(classes, cache.replicas_needed()));
    for warning in &audit.warnings {
        tracing::warn!("{warning}");
    }
    if audit.refusals.is_empty() {
        return Ok(());
    }
    Err(Error::configuration(audit.refusals.join("; ")))
}

/// The first version of Redis that refuses a script for want of memory before its first effect.
const REDIS_MIN: (u32, u32) = (7, 0);

impl Audit {
    /// Holds the facts against the demands.
    #[must_use]
    pub fn of(facts: &Facts, demands: &Demands) -> Self {
        let mut audit = Self::default();
        let server = facts.server.escape_debug();
        match version(&facts.server) {
            Some(version) if version < REDIS_MIN => audit.refusals.push(format!(
                "the shared cache is {server}, and needs to be Redis 7.0 or later, or Valkey: older ones may run out \
                 of memory in the middle of a change; upgrade it"
            )),
            Some(_) => {}
            None => audit.warnings.push(format!(
                "the shared cache calls itself '{server}', which is neither Redis nor Valkey: nothing is known of it"
            )),
        }
        if facts.evicts_what_must_stay {
            audit.refusals.push(format!(
                "the shared cache ({server}) may evict what has no time to live, and with it the marks of writes under \
                 way and writes that nothing else has: its eviction policy is {}; run `CONFIG SET maxmemory-policy \
                 volatile-lru` and write `maxmemory-policy volatile-lru` in redis.conf (noeviction and the other \
                 volatile-* are right too)",
                facts.eviction.escape_debug()
            ));
        }
        audit.look_at_persistence(facts, demands);
        audit
    }

    fn look_at_persistence(&mut self, facts: &Facts, demands: &Demands) {
        let Some(first) = demands.synced_classes.first() else {
            if demands.replicas > 0 {
                self.warnings.push(format!(
                    "{} replicas are asked for, and no class keeps acknowledged writes in the shared cache: the \
                     setting `replicas` does nothing",
                    demands.replicas
                ));
            }
            return;
        };
        let classes = match demands.synced_classes.len() {
            1 => format!("class '{first}' keeps"),
            _ => format!("classes '{}' keep", demands.synced_classes.join("', '")),
        };
        let server = facts.server.escape_debug();
        if !facts.syncs_always {
            self.refusals.push(format!(
                "{classes} acknowledged writes in the shared cache ({server}), which loses some of them in a crash: {}; \
                 run `CONFIG SET appendonly yes` and `CONFIG SET appendfsync always`, and write `appendonly yes` and \
                 `appendfsync always` in redis.conf; or give such a class durability 'journal'",
                facts.persistence.escape_debug()
            ));
        }
        if facts.replicas < demands.replicas {
            self.refusals.push(format!(
                "{classes} acknowledged writes on {} replicas of the shared cache ({server}), which has {} that answer \
                 in time; start more of them (`replicaof HOST PORT` in their redis.conf), or lower `replicas`",
                demands.replicas, facts.replicas
            ));
        }
    }
}

/// Of `redis 7.0.15` the 7 and the 0. Valkey began after the last of them that matters.
fn version(server: &str) -> Option<(u32, u32)> {
    let (name, version) = server.split_once(' ')?;
    let mut numbers = version.split('.').map(|number| number.parse().ok());
    let version = (numbers.next()??, numbers.next()??);
    match name.to_ascii_lowercase().as_str() {
        "redis" => Some(version),
        "valkey" => Some(version.max(REDIS_MIN)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sound() -> Facts {
        Facts {
            server: "redis 7.0.15".into(),
            evicts_what_must_stay: false,
            eviction: "noeviction".into(),
            syncs_always: true,
            persistence: "appendonly yes, appendfsync always".into(),
            replicas: 1,
        }
    }

    fn demands(classes: &[&str], replicas: u32) -> Demands {
        Demands {
            synced_classes: classes.iter().map(ToString::to_string).collect(),
            replicas,
        }
    }

    /// The one refusal, which has all of these words.
    #[track_caller]
    fn refused(facts: Facts, demands: &Demands, words: &[&str]) {
        let audit = Audit::of(&facts, demands);
        let [refusal] = &audit.refusals[..] else {
            panic!("{audit:?}");
        };
        for word in words {
            assert!(refusal.contains(word), "no '{word}' in: {refusal}");
        }
    }

    #[test]
    fn what_is_sound_passes() {
        for demands in [
            demands(&[], 0),
            demands(&["cart"], 0),
            demands(&["cart"], 1),
        ] {
            assert_eq!(Audit::of(&sound(), &demands), Audit::default());
        }
        let valkey = Facts {
            server: "valkey 8.1.0".into(),
            ..sound()
        };
        assert_eq!(Audit::of(&valkey, &demands(&["cart"], 1)), Audit::default());
    }

    #[test]
    fn eviction_of_what_must_stay_is_refused_whatever_the_classes() {
        let facts = Facts {
            evicts_what_must_stay: true,
            eviction: "allkeys-lru".into(),
            ..sound()
        };
        let words = [
            "allkeys-lru",
            "redis 7.0.15",
            "`CONFIG SET maxmemory-policy volatile-lru`",
            "redis.conf",
        ];
        refused(facts, &demands(&[], 0), &words);
    }

    #[test]
    fn a_cache_that_does_not_sync_is_refused_where_a_class_relies_on_it() {
        let facts = || Facts {
            syncs_always: false,
            persistence: "appendonly yes, appendfsync everysec".into(),
            ..sound()
        };
        assert_eq!(Audit::of(&facts(), &demands(&[], 0)), Audit::default());
        let words = [
            "class 'cart' keeps",
            "everysec",
            "`CONFIG SET appendonly yes`",
            "`CONFIG SET appendfsync always`",
        ];
        refused(facts(), &demands(&["cart"], 0), &words);
        refused(
            facts(),
            &demands(&["cart", "order"], 0),
            &["classes 'cart', 'order' keep"],
        );
    }

    #[test]
    fn missing_replicas_are_refused_where_a_class_relies_on_them_and_idle_ones_are_told() {
        let words = ["'cart'", "on 2 replicas", "has 1", "replicaof"];
        refused(sound(), &demands(&["cart"], 2), &words);
        let audit = Audit::of(&sound(), &demands(&[], 2));
        assert!(audit.refusals.is_empty(), "{audit:?}");
        assert_eq!(audit.warnings.len(), 1, "{audit:?}");
    }

    #[test]
    fn an_old_redis_is_refused_and_an_unknown_server_is_told() {
        for server in ["redis 6.2.14", "redis 5.0.7", "Redis 6.9"] {
            let facts = Facts {
                server: server.into(),
                ..sound()
            };
            refused(facts, &demands(&[], 0), &[server, "7.0"]);
        }
        for server in ["", "redis", "redis seven", "somebody 1.0.0"] {
            let facts = Facts {
                server: server.into(),
                ..sound()
            };
            let audit = Audit::of(&facts, &demands(&[], 0));
            assert!(audit.refusals.is_empty(), "{audit:?}");
            assert_eq!(audit.warnings.len(), 1, "{server}: {audit:?}");
        }
    }

    #[test]
    fn only_classes_that_rely_on_the_cache_ask_for_its_disk() {
        let back = |name: &str, durability| {
            Class::new(name, &format!("{name}:*"))
                .strategy(Strategy::WriteBack)
                .durability(durability)
        };
        let classes = [
            back("shared", Durability::Shared),
            back("both", Durability::Both),
            back("journal", Durability::Journal),
            back("memory", Durability::Memory),
            Class::new("through", "through:*").durability(Durability::Shared),
        ];
        assert_eq!(Demands::of(&classes, 2), demands(&["shared", "both"], 2));
    }

    #[test]
    fn everything_wrong_is_told_at_once() {
        let facts = Facts {
            server: "redis 6.0.1".into(),
            evicts_what_must_stay: true,
            eviction: "allkeys-random".into(),
            syncs_always: false,
            persistence: "appendonly no".into(),
            replicas: 0,
        };
        let audit = Audit::of(&facts, &demands(&["cart"], 1));
        assert_eq!(audit.refusals.len(), 4, "{audit:?}");
    }
}
