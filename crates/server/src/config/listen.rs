//! Addresses to listen on.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Reads `ADDRESS:PORT`; the name `localhost` stands for 127.0.0.1, other names are not looked up.
///
/// # Errors
/// Says what an address looks like.
pub(crate) fn parse(text: &str) -> Result<SocketAddr, String> {
    let local = text
        .strip_prefix("localhost:")
        .and_then(|port| port.parse::<u16>().ok());
    if let Some(port) = local {
        return Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
    }
    text.parse().map_err(|_| {
        format!(
            "'{}' is no address to listen on; write one such as 127.0.0.1:6380, [::1]:6380 or localhost:6380",
            text.escape_default()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        for (text, expected) in [
            ("127.0.0.1:6380", "127.0.0.1:6380"),
            ("localhost:0", "127.0.0.1:0"),
            ("[::1]:1", "[::1]:1"),
            ("0.0.0.0:7000", "0.0.0.0:7000"),
        ] {
            assert_eq!(parse(text).unwrap().to_string(), expected);
        }
        for text in [
            "",
            "6380",
            ":6380",
            "localhost",
            "localhost:x",
            "example.com:1",
            "1.2.3.4:99999",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
