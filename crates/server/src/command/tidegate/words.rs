//! Options that are a word and a value, such as `CLASS session TIMEOUT 500`.

use std::time::Duration;

use tidegate_resp::number::parse_integer;
use tidegate_resp::{Reply, Request};

use super::super::arguments::{at, is};
use super::super::errors;

/// The values of the options named, read from a place on. Each may come once, in any order.
///
/// # Errors
/// Names the word that is not among them, comes twice, or lacks its value.
pub(super) fn options<'a, const N: usize>(
    request: &'a Request,
    from: usize,
    names: [&str; N],
) -> Result<[Option<&'a [u8]>; N], Reply> {
    let mut values = [None; N];
    let mut place = from;
    while place < request.len() {
        let word = at(request, place);
        let Some(which) = names.iter().position(|name| is(word, name)) else {
            let after = format!("' is no option here; there are: {}", names.join(", "));
            return Err(errors::naming("ERR '", word, &after));
        };
        let Some(value) = request.argument(place + 1) else {
            return Err(Reply::error(format!(
                "ERR {} lacks its value",
                names[which]
            )));
        };
        if values[which].replace(value).is_some() {
            return Err(Reply::error(format!("ERR {} comes twice", names[which])));
        }
        place += 2;
    }
    Ok(values)
}

/// How long to wait: milliseconds, or the default if it is not said.
pub(super) fn deadline(millis: Option<&[u8]>, default: Duration) -> Result<Duration, Reply> {
    let Some(text) = millis else {
        return Ok(default);
    };
    parse_integer(text)
        .and_then(|millis| u64::try_from(millis).ok())
        .map(Duration::from_millis)
        .ok_or_else(|| Reply::error("ERR TIMEOUT is a number of milliseconds, not negative"))
}

/// A name or a number that must be readable text.
pub(super) fn text<'a>(what: &str, bytes: &'a [u8]) -> Result<&'a str, Reply> {
    std::str::from_utf8(bytes).map_err(|_| Reply::error(format!("ERR {what} is no UTF-8")))
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use tidegate_resp::RequestDecoder;

    use super::*;

    fn request(line: &str) -> Request {
        let mut buffer = BytesMut::new();
        tidegate_resp::encode_request(&mut buffer, &line.split(' ').collect::<Vec<_>>());
        RequestDecoder::default()
            .decode(&mut buffer)
            .unwrap()
            .unwrap()
    }

    #[test]
    fn options_are_found_in_any_order_and_case() {
        let request = request("X Count 5 class a");
        let found = options(&request, 1, ["CLASS", "AFTER", "COUNT"]).unwrap();
        assert_eq!(found, [Some(&b"a"[..]), None, Some(b"5")]);
    }

    #[test]
    fn what_is_wrong_with_an_option_is_named() {
        for (line, expected) in [
            ("X COUNT", "ERR COUNT lacks its value"),
            ("X COUNT 1 count 2", "ERR COUNT comes twice"),
            (
                "X LIMIT 1",
                "ERR 'LIMIT' is no option here; there are: CLASS, COUNT",
            ),
        ] {
            let told = options(&request(line), 1, ["CLASS", "COUNT"]).unwrap_err();
            assert_eq!(told, Reply::error(expected));
        }
        assert!(deadline(Some(b"-1"), Duration::ZERO).is_err());
        assert!(deadline(Some(b"soon"), Duration::ZERO).is_err());
        assert_eq!(
            deadline(Some(b"7"), Duration::ZERO),
            Ok(Duration::from_millis(7))
        );
    }
}
