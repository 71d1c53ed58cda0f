//! The address of a server of the shared cache, which may hold a password and is therefore never printed whole.

use std::fmt;

use super::store_url::without_password;

/// What an address looks like, for messages.
const FORMS: &str = "redis://USER:PASSWORD@HOST:PORT/NUMBER (user, password and number may be left out) or \
                     redis+unix:///PATH";

/// An address. `Display` and `Debug` show it without password.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct SharedUrl(String);

impl SharedUrl {
    /// Takes an address as it was written.
    ///
    /// # Errors
    /// Says what addresses look like, without repeating the one given.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(format!("is no URL of a shared cache; write {FORMS}"));
        };
        if text
            .bytes()
            .any(|b| b.is_ascii_whitespace() || b.is_ascii_control())
        {
            return Err("has a blank or a control character in it".to_owned());
        }
        match scheme {
            "redis" | "valkey" => check_place(rest)?,
            "redis+unix" if rest.starts_with('/') && rest.len() > 1 => {}
            "redis+unix" => return Err(format!("names no socket; write {FORMS}")),
            "rediss" | "valkeys" => {
                return Err("TLS to the shared cache is not built in; write redis://".to_owned());
            }
            _ => return Err(format!("no shared cache has this scheme; write {FORMS}")),
        }
        Ok(Self(text.to_owned()))
    }

    /// The same with a password that was kept elsewhere.
    ///
    /// # Errors
    /// If the address has one already.
    pub(crate) fn with_password(self, password: &str) -> Result<Self, String> {
        let there = || Err("contradicts the password in the address; keep one of them".to_owned());
        let password = percent_encoded(password);
        let Some((scheme, rest)) = self.0.split_once("://") else {
            return Ok(self);
        };
        if scheme == "redis+unix" {
            let Some((_, query)) = rest.split_once('?') else {
                return Ok(Self(format!("{}?pass={password}", self.0)));
            };
            if query.split('&').any(|pair| pair.starts_with("pass=")) {
                return there();
            }
            return Ok(Self(format!("{}&pass={password}", self.0)));
        }
        match rest.rsplit_once('@') {
            Some((account, _)) if account.contains(':') => there(),
            Some((user, place)) => Ok(Self(format!("{scheme}://{user}:{password}@{place}"))),
            None => Ok(Self(format!("{scheme}://:{password}@{rest}"))),
        }
    }

    /// Which of the numbered databases of the server it chooses, as it is written; nothing is the first.
    pub(super) fn number(&self) -> &str {
        let Some((scheme, rest)) = self.0.split_once("://") else {
            return "";
        };
        let number = if scheme == "redis+unix" {
            let query = rest.split_once('?').map_or("", |(_, query)| query);
            let mut pairs = query.split('&');
            pairs
                .find_map(|pair| pair.strip_prefix("db="))
                .unwrap_or("")
        } else {
            let place = rest.rsplit_once('@').map_or(rest, |(_, place)| place);
            place.split_once('/').map_or("", |(_, number)| number)
        };
        if number == "0" { "" } else { number }
    }

    /// The address with its secrets, for the adapter and nobody else.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

/// What follows `redis://`: an account if there is one, a host, a port, the number of a database.
fn check_place(rest: &str) -> Result<(), String> {
    let wrong = || Err(format!("is incomplete; write {FORMS}"));
    // A password may hold anything, so the last '@' separates.
    let place = rest.rsplit_once('@').map_or(rest, |(_, place)| place);
    let (host, number) = place.split_once('/').unwrap_or((place, ""));
    if !number.is_empty() && number.parse::<u16>().is_err() {
        return Err("what follows the last '/' must be the number of a database".to_owned());
    }
    let (name, port) = match host.rsplit_once(':') {
        // An address of the sixth version has colons of its own, and brackets.
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (host, None),
    };
    if name.is_empty() {
        return wrong();
    }
    match port.map(str::parse::<u16>) {
        Some(Err(_) | Ok(0)) => Err("the port must be a number from 1 to 65535".to_owned()),
        _ => Ok(()),
    }
}

/// So that nothing in a password is taken for a part of the address.
fn percent_encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let piece = |byte: u8| match plain(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    text.bytes().map(piece).collect()
}

impl fmt::Display for SharedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        without_password(&self.0, f)
    }
}

impl fmt::Debug for SharedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_shown_without_password() {
        for (url, shown) in [
            ("redis://h", "redis://h"),
            ("redis://h:6379/3", "redis://h:6379/3"),
            ("redis://[::1]:6379", "redis://[::1]:6379"),
            ("valkey://u:secret@h:1", "valkey://u:***@h:1"),
            ("redis://:secret@h", "redis://:***@h"),
            ("redis://u:se@cret@h/0", "redis://u:***@h/0"),
            ("redis+unix:///run/r.sock", "redis+unix:///run/r.sock"),
            (
                "redis+unix:///run/r.sock?db=2&pass=secret",
                "redis+unix:///run/r.sock?db=2&pass=***",
            ),
        ] {
            let parsed = SharedUrl::parse(url).unwrap();
            assert_eq!(parsed.to_string(), shown);
            assert_eq!(parsed.reveal(), url);
            assert!(!format!("{parsed:?}").contains("secret"));
        }
    }

    #[test]
    fn what_is_no_address_is_refused_without_repeating_it() {
        for url in [
            "",
            "127.0.0.1:6379",
            "redis:secret",
            "redis://",
            "redis://u:secret@",
            "redis://:6379",
            "redis://secret:port",
            "redis://h:0",
            "redis://h:70000",
            "redis://h/secret",
            "redis://h /1",
            "redis+unix://",
            "redis+unix://secret",
            "rediss://u:secret@h",
            "memcached://secret",
        ] {
            let error = SharedUrl::parse(url).unwrap_err();
            assert!(!error.contains("secret"), "{url}: {error}");
        }
    }

    #[test]
    fn a_password_from_elsewhere_goes_in_whatever_it_is() {
        let with = |url: &str, password: &str| {
            let url = SharedUrl::parse(url).unwrap();
            url.with_password(password)
                .map(|url| url.reveal().to_owned())
        };
        assert_eq!(
            with("redis://h:1/2", "a@b/c"),
            Ok("redis://:a%40b%2Fc@h:1/2".to_owned())
        );
        assert_eq!(
            with("redis://u@h", "ä "),
            Ok("redis://u:%C3%A4%20@h".to_owned())
        );
        assert_eq!(
            with("redis+unix:///s", "p&"),
            Ok("redis+unix:///s?pass=p%26".to_owned())
        );
        assert_eq!(
            with("redis+unix:///s?db=1", "p"),
            Ok("redis+unix:///s?db=1&pass=p".to_owned())
        );
        assert!(with("redis://u:one@h", "two").is_err());
        assert!(with("redis+unix:///s?pass=one", "two").is_err());
    }

    #[test]
    fn a_numbered_database_is_seen() {
        for (url, number) in [
            ("redis://h", ""),
            ("redis://h/", ""),
            ("redis://u:p/1@h/0", ""),
            ("redis://h/1", "1"),
            ("redis+unix:///s", ""),
            ("redis+unix:///s?user=u&db=2", "2"),
        ] {
            assert_eq!(SharedUrl::parse(url).unwrap().number(), number, "{url}");
        }
    }
}
