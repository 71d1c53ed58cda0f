//! Levels of freshness as people write them: `linearizable`, `bounded(200ms)`, `session`, `eventual`.

use std::time::Duration;

use tidegate::Level;

use super::duration;

/// Reads a level.
///
/// # Errors
/// Says what levels there are.
pub(super) fn parse(text: &str) -> Result<Level, String> {
    match text {
        "linearizable" => return Ok(Level::Linearizable),
        "session" => return Ok(Level::Session),
        "eventual" => return Ok(Level::Eventual),
        "bounded" => return Err("needs its bound, such as \"bounded(200ms)\"".to_owned()),
        _ => {}
    }
    let bound = text
        .strip_prefix("bounded(")
        .and_then(|rest| rest.strip_suffix(')'));
    let Some(bound) = bound else {
        return Err(format!(
            "'{}' is none of linearizable, bounded(TIME), session, eventual",
            text.escape_default()
        ));
    };
    match duration::parse(bound)? {
        Duration::ZERO => Err("a bound of nothing is \"linearizable\"".to_owned()),
        bound => Ok(Level::Bounded(bound)),
    }
}

/// Writes a level so that [`parse`] reads it back.
pub(crate) fn write(level: Level) -> String {
    match level {
        Level::Bounded(bound) => format!("bounded({})", duration::write(bound)),
        level => level.as_str().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_read_and_written_back() {
        for (text, level) in [
            ("linearizable", Level::Linearizable),
            ("session", Level::Session),
            ("eventual", Level::Eventual),
            ("bounded(200ms)", Level::Bounded(Duration::from_millis(200))),
            ("bounded(1m30s)", Level::Bounded(Duration::from_secs(90))),
        ] {
            assert_eq!(parse(text), Ok(level));
            assert_eq!(write(level), text);
        }
    }

    #[test]
    fn what_is_no_level_is_refused() {
        for text in [
            "",
            "strong",
            "Linearizable",
            "bounded",
            "bounded()",
            "bounded(0s)",
            "bounded(5)",
            "bounded(1s",
            "bounded(-1s)",
            "bounded (1s)",
            "bounded(1s)s",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
