//! A dead letter as the server tells it, for a table, in full, and as JSON.

use bytes::Bytes;
use serde_json::{Map, Value, json};
use tidegate::port::Timestamp;
use tidegate_resp::Reply;

use super::fields::Fields;
use super::moment::{age, utc};
use super::{Result, shown};

pub(super) struct Letter {
    pub(super) key: Bytes,
    class: String,
    pub(super) version: String,
    /// `put`, `delete` or `add`.
    change: String,
    /// Only if it was asked for and there is one.
    value: Option<Bytes>,
    /// What an addition adds, with its sign; only if the value was asked for.
    added: Option<Bytes>,
    value_bytes: u64,
    /// `refused` or `conflict`.
    reason: String,
    /// The store's own code, such as an SQLSTATE.
    code: Option<String>,
    message: String,
    attempts: u64,
    first_at: Timestamp,
    last_at: Timestamp,
}

impl Letter {
    pub(super) fn of(reply: Reply) -> Result<Self> {
        let mut fields = Fields::of(reply)?;
        let code = fields.optional_bytes("code")?;
        Ok(Self {
            key: fields.bytes("key")?,
            class: fields.text("class")?,
            version: fields.text("version")?,
            change: fields.text("change")?,
            value: fields.optional_bytes("value")?,
            added: fields.optional_bytes("added")?,
            value_bytes: fields.number("value_bytes")?,
            reason: fields.text("reason")?,
            code: code.map(|code| String::from_utf8_lossy(&code).into_owned()),
            message: fields.text("message")?,
            attempts: fields.number("attempts")?,
            first_at: Timestamp::from_millis(fields.number("first_at_ms")?),
            last_at: Timestamp::from_millis(fields.number("last_at_ms")?),
        })
    }

    pub(super) const HEAD: [&str; 9] = [
        "KEY", "CLASS", "VERSION", "CHANGE", "BYTES", "REASON", "CODE", "TRIES", "SINCE",
    ];

    /// A row of the table under [`HEAD`](Self::HEAD).
    pub(super) fn row(&self, now: Timestamp) -> [String; 9] {
        [
            shown(&self.key),
            shown(self.class.as_bytes()),
            shown(self.version.as_bytes()),
            shown(self.change.as_bytes()),
            self.value_bytes.to_string(),
            shown(self.reason.as_bytes()),
            self.code
                .as_ref()
                .map_or_else(|| "-".to_owned(), |code| shown(code.as_bytes())),
            self.attempts.to_string(),
            age(self.first_at, now),
        ]
    }

    /// Everything, one fact a line; the value last.
    pub(super) fn lines(&self, now: Timestamp) -> Vec<String> {
        let fact = |name: &str, value: String| format!("{name:8} {value}");
        let moment = |moment| format!("{}, {} ago", utc(moment), age(moment, now));
        let mut lines = vec![
            fact("key", shown(&self.key)),
            fact("class", shown(self.class.as_bytes())),
            fact("version", shown(self.version.as_bytes())),
            fact(
                "change",
                format!(
                    "{} of {} bytes",
                    shown(self.change.as_bytes()),
                    self.value_bytes
                ),
            ),
            fact("reason", shown(self.reason.as_bytes())),
            fact(
                "code",
                self.code
                    .as_ref()
                    .map_or_else(|| "none".to_owned(), |code| shown(code.as_bytes())),
            ),
            fact("message", shown(self.message.as_bytes())),
            fact("tries", self.attempts.to_string()),
            fact("first", moment(self.first_at)),
            fact("last", moment(self.last_at)),
        ];
        if let Some(added) = &self.added {
            lines.push(fact("added", shown(added)));
        }
        if let Some(value) = &self.value {
            lines.push(fact("value", shown(value)));
        }
        lines
    }

    /// The same as JSON. What is no UTF-8 stands under a name that ends in `_hex`.
    pub(super) fn json(&self) -> Value {
        let mut map = Map::new();
        put_bytes(&mut map, "key", &self.key);
        let facts = json!({
            "class": self.class,
            "version": self.version,
            "change": self.change,
            "value_bytes": self.value_bytes,
            "reason": self.reason,
            "code": self.code,
            "message": self.message,
            "attempts": self.attempts,
            "first_at_ms": self.first_at.as_millis(),
            "last_at_ms": self.last_at.as_millis(),
        });
        if let Value::Object(facts) = facts {
            map.extend(facts);
        }
        if let Some(value) = &self.value {
            put_bytes(&mut map, "value", value);
        }
        if let Some(added) = &self.added {
            put_bytes(&mut map, "added", added);
        }
        Value::Object(map)
    }
}

fn put_bytes(map: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => map.insert(name.to_owned(), json!(text)),
        Err(_) => {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            map.insert(format!("{name}_hex"), json!(hex))
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(key: &'static [u8], value: Option<&'static [u8]>) -> Reply {
        let mut pairs = vec![
            (Reply::bulk("key"), Reply::bulk(key)),
            (Reply::bulk("class"), Reply::bulk("order")),
            (Reply::bulk("version"), Reply::bulk("3.17")),
            (Reply::bulk("change"), Reply::bulk("put")),
            (Reply::bulk("value_bytes"), Reply::Integer(5)),
            (Reply::bulk("reason"), Reply::bulk("refused")),
            (Reply::bulk("code"), Reply::bulk("23514")),
            (
                Reply::bulk("message"),
                Reply::bulk("check constraint\x1b[2J"),
            ),
            (Reply::bulk("attempts"), Reply::Integer(2)),
            (Reply::bulk("first_at_ms"), Reply::Integer(1000)),
            (Reply::bulk("last_at_ms"), Reply::Integer(61_000)),
        ];
        if let Some(value) = value {
            pairs.push((Reply::bulk("value"), Reply::bulk(value)));
        }
        Reply::Map(pairs)
    }

    #[test]
    fn a_letter_is_shown_in_full_and_harmless() {
        let letter = Letter::of(letter(b"order:1", Some(b"\xff"))).unwrap();
        let lines = letter.lines(Timestamp::from_millis(121_000)).join("\n");
        assert!(
            lines.contains("first    1970-01-01 00:00:01 UTC, 2m ago"),
            "{lines}"
        );
        assert!(lines.contains("code     23514"), "{lines}");
        assert!(lines.ends_with("value    \\xff"), "{lines}");
        assert!(!lines.contains('\x1b'), "{lines}");
        assert_eq!(letter.row(Timestamp::from_millis(121_000))[8], "2m");
    }

    #[test]
    fn json_has_text_or_hex_and_no_value_unasked() {
        let json = Letter::of(letter(b"\xffk", None)).unwrap().json();
        assert_eq!(json["key_hex"], "ff6b");
        assert!(json.get("key").is_none() && json.get("value").is_none());
        assert_eq!(json["attempts"], 2);
        let json = Letter::of(letter(b"k", Some(b"v"))).unwrap().json();
        assert_eq!((&json["key"], &json["value"]), (&json!("k"), &json!("v")));
    }

    #[test]
    fn an_answer_of_another_shape_is_refused() {
        assert!(Letter::of(Reply::Integer(1)).is_err());
        assert!(Letter::of(Reply::Map(vec![(Reply::bulk("key"), Reply::bulk("k"))])).is_err());
    }
}
