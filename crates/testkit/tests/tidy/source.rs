//! Rust source without what does not count: comments, the contents of strings, and what is compiled for tests
//! only. No parser: enough of a lexer to find paths.

/// The source with comments and the contents of literals blanked, and without `#[cfg(test)]` items.
pub(crate) fn code(source: &str) -> String {
    without_tests(&blank(source))
}

/// Comments and the contents of literals as spaces.
fn blank(source: &str) -> String {
    let bytes = source.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &source.as_bytes()[at..];
        let end = at
            + match rest {
                [b'/', b'/', ..] => find(rest, b"\n").unwrap_or(rest.len()),
                [b'/', b'*', ..] => block_comment(rest),
                [b'r', b'"', ..] | [b'r', b'#', b'"' | b'#', ..] if !follows_word(bytes, at) => {
                    raw_string(rest)
                }
                [b'"', ..] => string(rest),
                [b'\'', b'\\', ..] => 2 + find(&rest[2..], b"'").map_or(rest.len() - 2, |n| n + 1),
                [b'\'', _, b'\'', ..] => 3,
                _ => {
                    at += 1;
                    continue;
                }
            };
        for byte in &mut out[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end;
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

fn follows_word(bytes: &[u8], at: usize) -> bool {
    at > 0 && is_word(char::from(bytes[at - 1]))
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn block_comment(bytes: &[u8]) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < bytes.len() {
        match &bytes[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn raw_string(bytes: &[u8]) -> usize {
    let hashes = bytes[1..].iter().take_while(|b| **b == b'#').count();
    let close = [&b"\""[..], &vec![b'#'; hashes]].concat();
    let open = hashes + 2;
    find(&bytes[open..], &close).map_or(bytes.len(), |n| open + n + close.len())
}

fn string(bytes: &[u8]) -> usize {
    let mut at = 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// Cuts each item behind `#[cfg(test)]`, to its closing brace or semicolon.
fn without_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut out = String::new();
    let mut rest = code;
    while let Some(at) = rest.find(MARK) {
        out.push_str(&rest[..at]);
        let item = &rest[at + MARK.len()..];
        let mut depth = 0;
        let end = item.char_indices().find_map(|(i, c)| {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            ((c == '}' || c == ';' || c == ',') && depth == 0).then_some(i + 1)
        });
        rest = &item[end.unwrap_or(item.len())..];
    }
    out + rest
}

/// Every path written in `code`, with `use` groups taken apart: `use a::{b, c::d}` is `a::b` and `a::c::d`.
pub(crate) fn paths(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("use ") {
        let starts = at == 0 || !is_word(code[..at].chars().next_back().unwrap_or(' '));
        if let Some(end) = code[at..].find(';').filter(|_| starts) {
            expand("", &code[at + 4..at + end], &mut found);
        }
    }
    let words = code.split(|c: char| !is_word(c) && c != ':');
    found.extend(words.filter(|word| !word.is_empty()).map(str::to_owned));
    found
}

fn expand(prefix: &str, tree: &str, found: &mut Vec<String>) {
    let tree = tree.trim();
    let Some(open) = tree.find('{') else {
        let name = tree.split_whitespace().next().unwrap_or_default();
        found.push(format!("{prefix}{name}"));
        return;
    };
    let prefix = format!("{prefix}{}", tree[..open].trim());
    let inner = tree[open + 1..].trim_end().trim_end_matches('}');
    let (mut depth, mut from) = (0, 0);
    for (i, c) in inner.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                expand(&prefix, &close(&inner[from..i]), found);
                from = i + 1;
            }
            _ => {}
        }
    }
    if !inner[from..].trim().is_empty() {
        expand(&prefix, &close(&inner[from..]), found);
    }
}

/// Gives back the braces that were trimmed with the outer one.
fn close(tree: &str) -> String {
    let open = tree.matches('{').count();
    let missing = open.saturating_sub(tree.matches('}').count());
    format!("{tree}{}", "}".repeat(missing))
}

/// True if `path` is `start` or goes on from it.
pub(crate) fn is_within(path: &str, start: &str) -> bool {
    let path = path.trim_start_matches("::");
    path == start
        || path
            .strip_prefix(start)
            .is_some_and(|rest| rest.starts_with("::"))
}

#[test]
fn comments_strings_and_tests_do_not_count() {
    let source = r##"
        // std::fs
        /* std::net /* nested */ std::net */
        let text = "std::env \" std::env"; let raw = r#"std::env "quoted" "#;
        let quote = '"'; let escaped = '\''; let life: &'static str = path::kept;
        #[cfg(test)]
        mod tests { fn one() { std::process::exit(0) } }
        kept::also()
    "##;
    let paths = paths(&code(source));
    for gone in ["std::fs", "std::net", "std::env", "std::process"] {
        assert!(
            !paths.iter().any(|path| is_within(path, gone)),
            "{gone} in {paths:?}"
        );
    }
    for kept in ["path::kept", "kept::also"] {
        assert!(paths.iter().any(|path| path == kept), "{kept} in {paths:?}");
    }
}

#[test]
fn groups_are_taken_apart() {
    let paths = paths("use std::{collections::{HashMap, BTreeMap as B}, fs::{self, File}, net};");
    for expected in [
        "std::collections::BTreeMap",
        "std::fs::File",
        "std::fs::self",
        "std::net",
    ] {
        assert!(
            paths.iter().any(|path| path == expected),
            "{expected} in {paths:?}"
        );
    }
}
