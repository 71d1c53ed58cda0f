//! The address of the store, which may hold a password and is therefore never printed whole.

use std::fmt;
use std::path::Path;

/// The schemes a store may have, for messages.
const SCHEMES: &str = "sqlite:FILE, postgres://USER@HOST:PORT/DATABASE or memory:";

/// A store's URL. `Display` and `Debug` show it without password.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct StoreUrl(String);

impl StoreUrl {
    /// Takes a URL of a known scheme; a relative SQLite file lies in `data_dir`.
    ///
    /// # Errors
    /// Says which URLs there are, without repeating the one given.
    pub(crate) fn parse(text: &str, data_dir: &Path) -> Result<Self, String> {
        let Some((scheme, rest)) = text.split_once(':') else {
            return Err(format!("is no URL; write {SCHEMES}"));
        };
        match scheme {
            "sqlite" if rest.trim_start_matches('/').is_empty() => {
                Err("names no file; write sqlite:FILE".to_owned())
            }
            "sqlite" => {
                let file = rest.strip_prefix("//").unwrap_or(rest);
                Ok(Self(format!("sqlite:{}", data_dir.join(file).display())))
            }
            "memory" if rest.is_empty() => Ok(Self(text.to_owned())),
            "memory" => Err("takes nothing after memory:".to_owned()),
            "postgres" | "postgresql" if rest.starts_with("//") && rest.len() > 2 => {
                Ok(Self(text.to_owned()))
            }
            "postgres" | "postgresql" => Err(format!("is incomplete; write {SCHEMES}")),
            _ => Err(format!("no store has this scheme; write {SCHEMES}")),
        }
    }

    /// A store that keeps nothing.
    pub(crate) fn memory() -> Self {
        Self("memory:".to_owned())
    }

    /// The URL with its secrets, for the store itself and nobody else.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether several nodes can have this store at the same time.
    pub(crate) fn is_for_several_nodes(&self) -> bool {
        self.0.starts_with("postgres")
    }

    /// The file of a SQLite store.
    pub(crate) fn sqlite_file(&self) -> Option<&str> {
        let rest = self.0.strip_prefix("sqlite:")?;
        Some(rest.split_once('?').map_or(rest, |(file, _)| file))
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        without_password(&self.0, f)
    }
}

/// Writes an address without its password.
pub(super) fn without_password(url: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let Some((scheme, rest)) = url.split_once("://") else {
        return f.write_str(url);
    };
    write!(f, "{scheme}://")?;
    // A password may hold '@', '?' or '/' unescaped, so the last '@' separates; where that leaves doubt
    // what is secret, nothing is shown.
    let place = match rest.rsplit_once('@') {
        Some((account, _)) if account.contains(['?', '/']) => return f.write_str("***"),
        Some((account, place)) => {
            match account.split_once(':') {
                Some((user, _)) => write!(f, "{user}:***@")?,
                None => write!(f, "{account}@")?,
            }
            place
        }
        None => rest,
    };
    let (place, query) = match place.split_once('?') {
        Some((place, query)) => (place, Some(query)),
        None => (place, None),
    };
    f.write_str(place)?;
    for (at, pair) in query
        .into_iter()
        .flat_map(|query| query.split('&'))
        .enumerate()
    {
        f.write_str(if at == 0 { "?" } else { "&" })?;
        match pair.split_once('=') {
            Some((name, _)) if name.to_ascii_lowercase().contains("pass") => {
                write!(f, "{name}=***")?;
            }
            _ => f.write_str(pair)?,
        }
    }
    Ok(())
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(url: &str) -> String {
        StoreUrl::parse(url, Path::new("data")).unwrap().to_string()
    }

    #[test]
    fn no_password_is_shown() {
        for (url, expected) in [
            (
                "postgres://u:secret@h:5432/db",
                "postgres://u:***@h:5432/db",
            ),
            ("postgres://u:se@cr:et@h/db", "postgres://u:***@h/db"),
            ("postgres://u:sec?ret@h/db", "postgres://***"),
            ("postgres://u@h/db?password=sec@ret", "postgres://***"),
            ("postgres://u:secret@h?x=1", "postgres://u:***@h?x=1"),
            (
                "postgresql://u@h/db?sslmode=x&password=secret",
                "postgresql://u@h/db?sslmode=x&password=***",
            ),
            ("postgres://u@h/db", "postgres://u@h/db"),
            ("postgres://h/db", "postgres://h/db"),
            ("memory:", "memory:"),
        ] {
            assert_eq!(shown(url), expected);
        }
        assert!(
            !format!(
                "{:?}",
                StoreUrl::parse("postgres://u:secret@h", Path::new("")).unwrap()
            )
            .contains("secret")
        );
    }

    #[test]
    fn a_sqlite_file_lies_in_the_data_folder() {
        assert_eq!(shown("sqlite:store.db"), "sqlite:data/store.db");
        assert_eq!(shown("sqlite:/var/store.db"), "sqlite:/var/store.db");
        assert_eq!(shown("sqlite:///var/store.db"), "sqlite:/var/store.db");
        assert_eq!(shown("sqlite://store.db"), "sqlite:data/store.db");
    }

    #[test]
    fn what_no_store_understands_is_refused_without_repeating_it() {
        for url in [
            "",
            "store.db",
            "sqlite:",
            "sqlite:///",
            "mysql://u:secret@h",
            "postgres:",
            "memory:secret",
        ] {
            let error = StoreUrl::parse(url, Path::new("data")).unwrap_err();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
