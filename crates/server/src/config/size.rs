//! Sizes in bytes as people write them: `256MiB`, `64MB`, `4096`.

/// The units: powers of 1024 end in `iB`, powers of 1000 in `B`.
const UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
];

/// Reads a whole number of bytes, with or without a unit.
///
/// # Errors
/// Says what a size looks like.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = unit.strip_prefix(' ').unwrap_or(unit);
    let factor = match unit {
        "" => Some(1),
        unit => UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .map(|(_, factor)| *factor),
    };
    match (number.parse::<u64>(), factor) {
        (Ok(number), Some(factor)) => number
            .checked_mul(factor)
            .ok_or_else(|| format!("'{text}' is too large")),
        _ => Err(format!(
            "'{}' is no size; write a whole number of bytes or one with KiB, MiB, GiB, kB, MB or GB, such as \"256MiB\"",
            text.escape_default()
        )),
    }
}

/// Writes a size in its largest binary unit that leaves no rest.
pub(crate) fn write(bytes: u64) -> String {
    let (unit, factor) = ["GiB", "MiB", "KiB"]
        .into_iter()
        .zip([1_u64 << 30, 1 << 20, 1 << 10])
        .find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor))
        .unwrap_or(("B", 1));
    format!("{}{unit}", bytes / factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("256MiB", 256 << 20),
            ("64MB", 64_000_000),
            ("1 GiB", 1 << 30),
            ("10kB", 10_000),
            ("7B", 7),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in [
            "",
            "MiB",
            "-1",
            "1.5GiB",
            "1mib",
            "1  MiB",
            "1M",
            "99999999999GiB",
            "1 B B",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        for bytes in [0, 1, 1023, 1024, 1 << 20, (1 << 20) + 1, 256 << 20, 3 << 30] {
            assert_eq!(parse(&write(bytes)), Ok(bytes));
        }
    }
}
