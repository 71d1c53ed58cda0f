//! How the servers are set up, for the audit at start.

use redis::{Pipeline, Value};
use tidegate_core::port::{Facts, SharedError};

use super::cache::Inner;
use super::connect::{Live, line, text};
use super::error::odd;

impl Inner {
    pub(super) async fn facts(&self) -> Result<Facts, SharedError> {
        self.check_open()?;
        let mut worst: Option<Facts> = None;
        for (_, node) in self.servers.all() {
            let facts = facts_of(&*node.live().await?).await?;
            worst = Some(match worst {
                None => facts,
                Some(worst) => worse(worst, facts),
            });
        }
        worst.ok_or_else(|| SharedError::unavailable("no server has a shard"))
    }
}

async fn facts_of(live: &Live) -> Result<Facts, SharedError> {
    let mut commands = Pipeline::new();
    for section in ["server", "memory", "replication", "persistence"] {
        commands.cmd("INFO").arg(section);
    }
    commands.cmd("CONFIG").arg("GET").arg("appendfsync");
    let mut answers = live.send_all(&commands).await?;
    let sync = answers.pop().ok_or_else(|| odd("CONFIG"))?;
    let info = answers
        .into_iter()
        .map(|answer| text(answer, &live.place))
        .collect::<Result<String, _>>()?;
    read(&info, &sync).ok_or_else(|| odd("INFO"))
}

fn read(info: &str, sync: &Value) -> Option<Facts> {
    let server = match line(info, "valkey_version") {
        Some(version) => format!("valkey {version}"),
        None => format!("redis {}", line(info, "redis_version")?),
    };
    let eviction = line(info, "maxmemory_policy").map(str::to_owned);
    let appends = line(info, "aof_enabled") == Some("1");
    let sync = match sync {
        Value::Array(words) => words.get(1).and_then(|word| match word {
            Value::BulkString(word) => String::from_utf8(word.clone()).ok(),
            _ => None,
        }),
        _ => None,
    };
    let persistence = match (appends, &sync) {
        (false, _) => "appendonly no".to_owned(),
        (true, Some(sync)) => format!("appendonly yes, appendfsync {sync}"),
        (true, None) => {
            "appendonly yes, appendfsync is not known: add +config|get to the ACL rule of the user"
                .to_owned()
        }
    };
    let replicas = info
        .lines()
        .filter(|line| line.starts_with("slave") && line.contains("state=online"));
    Some(Facts {
        server,
        // Not known is the worst.
        evicts_what_must_stay: eviction
            .as_deref()
            .is_none_or(|policy| policy != "noeviction" && !policy.starts_with("volatile-")),
        eviction: eviction.unwrap_or_else(|| "not known".to_owned()),
        syncs_always: appends && sync.as_deref() == Some("always"),
        persistence,
        replicas: u32::try_from(replicas.count()).unwrap_or(u32::MAX),
    })
}

/// Of two servers the worse in each respect.
fn worse(one: Facts, other: Facts) -> Facts {
    let (eviction, evicts_what_must_stay) = match one.evicts_what_must_stay {
        true => (one.eviction, true),
        false => (other.eviction, other.evicts_what_must_stay),
    };
    let (persistence, syncs_always) = match one.syncs_always {
        false => (one.persistence, false),
        true => (other.persistence, other.syncs_always),
    };
    let version = |server: &str| -> Vec<u32> {
        let numbers = server.split([' ', '.']).skip(1);
        numbers.map(|number| number.parse().unwrap_or(0)).collect()
    };
    Facts {
        server: match version(&one.server) <= version(&other.server) {
            true => one.server,
            false => other.server,
        },
        evicts_what_must_stay,
        eviction,
        syncs_always,
        persistence,
        replicas: one.replicas.min(other.replicas),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: &str = "# Server\r\nredis_version:7.0.15\r\nmaxmemory_policy:noeviction\r\naof_enabled:1\r\n\
                        role:master\r\nconnected_slaves:2\r\n\
                        slave0:ip=127.0.0.1,port=1,state=online,offset=1,lag=0\r\n\
                        slave1:ip=127.0.0.1,port=2,state=wait_bgsave,offset=1,lag=0\r\n";

    fn sync(value: &str) -> Value {
        let text = |text: &str| Value::BulkString(text.into());
        Value::Array(vec![text("appendfsync"), text(value)])
    }

    #[test]
    fn what_is_sound_is_read_as_such() {
        let facts = read(INFO, &sync("always")).unwrap();
        assert!(
            facts.syncs_always && !facts.evicts_what_must_stay,
            "{facts:?}"
        );
        assert_eq!((facts.server.as_str(), facts.replicas), ("redis 7.0.15", 1));
        assert!(!read(INFO, &sync("everysec")).unwrap().syncs_always);
    }

    #[test]
    fn what_is_not_known_is_the_worst() {
        let facts = read(INFO, &Value::Nil).unwrap();
        assert!(!facts.syncs_always);
        assert!(facts.persistence.contains("+config|get"), "{facts:?}");
        let unknown = INFO.replace("maxmemory_policy", "other");
        assert!(
            read(&unknown, &sync("always"))
                .unwrap()
                .evicts_what_must_stay
        );
        let allkeys = INFO.replace("noeviction", "allkeys-lru");
        assert!(
            read(&allkeys, &sync("always"))
                .unwrap()
                .evicts_what_must_stay
        );
    }

    #[test]
    fn of_several_servers_the_worst_counts() {
        let good = read(INFO, &sync("always")).unwrap();
        let bad = read(
            &INFO
                .replace("noeviction", "allkeys-lru")
                .replace("7.0.15", "7.2.1"),
            &sync("no"),
        )
        .unwrap();
        for worst in [worse(good.clone(), bad.clone()), worse(bad, good)] {
            assert!(
                worst.evicts_what_must_stay && !worst.syncs_always,
                "{worst:?}"
            );
            assert_eq!(worst.server, "redis 7.0.15");
        }
    }
}
