//! Reading a TOML table key by key, keeping the line of each, and collecting everything that is wrong.
//!
//! Written by hand rather than derived, so that one run reports every problem and each with its line.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use super::problem::Problem;
use super::{duration, size};

/// A value and the line it stands in.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct At<T> {
    pub(crate) value: T,
    pub(crate) line: usize,
}

/// What is learned of one file while it is read.
pub(crate) struct Sheet {
    /// Where each line begins, to turn a byte into a line.
    line_starts: Vec<usize>,
    problems: RefCell<Vec<Problem>>,
    /// Every key asked for, with its path and without places in lists: the keys that exist.
    known: RefCell<BTreeSet<String>>,
}

impl Sheet {
    pub(crate) fn new(text: &str) -> Self {
        let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        Self {
            line_starts: std::iter::once(0)
                .chain(breaks.map(|(at, _)| at + 1))
                .collect(),
            problems: RefCell::default(),
            known: RefCell::default(),
        }
    }

    /// The line of a byte, from 1.
    pub(crate) fn line(&self, byte: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= byte)
    }

    pub(crate) fn report(&self, line: usize, key: impl Into<String>, message: impl Into<String>) {
        let problem = Problem {
            line,
            key: key.into(),
            message: message.into(),
        };
        self.problems.borrow_mut().push(problem);
    }

    /// All problems, in the order of the lines.
    pub(crate) fn into_problems(self) -> Vec<Problem> {
        let mut problems = self.problems.into_inner();
        problems.sort_by_key(|problem| problem.line);
        // Of a line that is no TOML, nothing else is worth saying.
        let broken: BTreeSet<usize> = problems
            .iter()
            .filter(|p| p.key.is_empty())
            .map(|p| p.line)
            .collect();
        problems.retain(|p| p.key.is_empty() || !broken.contains(&p.line));
        problems
    }

    #[cfg(test)]
    pub(crate) fn known(&self) -> BTreeSet<String> {
        self.known.borrow().clone()
    }
}

/// One table of the file; a missing one reads as empty.
pub(crate) struct Section<'a> {
    sheet: &'a Sheet,
    table: Option<&'a DeTable<'a>>,
    /// For messages: `class[2].columns`.
    path: String,
    /// For the list of keys: `class.columns`.
    kind: String,
    /// Where the table begins.
    pub(crate) line: usize,
    asked: Vec<&'static str>,
}

impl<'a> Section<'a> {
    /// The table of the whole file.
    pub(crate) fn root(sheet: &'a Sheet, table: &'a DeTable<'a>) -> Self {
        Self {
            sheet,
            table: Some(table),
            path: String::new(),
            kind: String::new(),
            line: 1,
            asked: Vec::new(),
        }
    }

    /// The value of a key, or nothing if it is missing or of the wrong type, which is reported.
    pub(crate) fn take<T: Readable>(&mut self, key: &'static str) -> Option<At<T>> {
        let (value, line) = self.ask(key)?;
        match T::read(value) {
            Ok(value) => Some(At { value, line }),
            Err(message) => {
                self.sheet.report(line, join(&self.path, key), message);
                None
            }
        }
    }

    /// The table under a key.
    pub(crate) fn section(&mut self, key: &'static str) -> Section<'a> {
        let path = join(&self.path, key);
        let kind = join(&self.kind, key);
        let asked = self.ask(key);
        let mut section = Section {
            sheet: self.sheet,
            table: None,
            path,
            kind,
            line: 0,
            asked: Vec::new(),
        };
        if let Some((value, line)) = asked {
            section.line = line;
            match value {
                DeValue::Table(table) => section.table = Some(table),
                other => section.sheet.report(
                    line,
                    section.path.clone(),
                    format!(
                        "is a {}; it must be a table: [{}]",
                        other.type_str(),
                        section.path
                    ),
                ),
            }
        }
        section
    }

    /// The tables under a key that comes many times, `[[key]]`.
    pub(crate) fn sections(&mut self, key: &'static str) -> Vec<Section<'a>> {
        let path = join(&self.path, key);
        let kind = join(&self.kind, key);
        let Some((value, line)) = self.ask(key) else {
            return Vec::new();
        };
        let DeValue::Array(items) = value else {
            let message = format!(
                "is a {}; it must be written [[{path}]], once each",
                value.type_str()
            );
            self.sheet.report(line, path, message);
            return Vec::new();
        };
        let mut sections = Vec::new();
        for (at, item) in items.iter().enumerate() {
            let path = format!("{path}[{}]", at + 1);
            let line = self.sheet.line(item.span().start);
            let DeValue::Table(table) = item.get_ref() else {
                let message = format!("is a {}; it must be a table", item.get_ref().type_str());
                self.sheet.report(line, path, message);
                continue;
            };
            sections.push(Section {
                sheet: self.sheet,
                table: Some(table),
                path,
                kind: kind.clone(),
                line,
                asked: Vec::new(),
            });
        }
        sections
    }

    /// Whether the file has this table at all.
    pub(crate) fn is_written(&self) -> bool {
        self.table.is_some()
    }

    /// Whether the table has this key, be it right or wrong.
    pub(crate) fn has(&self, key: &str) -> bool {
        let mut names = self.table.into_iter().flatten();
        names.any(|(name, _)| name.get_ref() == key)
    }

    /// The path of a key of this table, for messages.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Reports every key of the table that was not asked for.
    pub(crate) fn finish(self) {
        for (key, _) in self.table.into_iter().flatten() {
            let name = key.get_ref();
            if self.asked.iter().any(|asked| *asked == name.as_ref()) {
                continue;
            }
            let line = self.sheet.line(key.span().start);
            let mut known = self.asked.clone();
            known.sort_unstable();
            let message = match nearest(name, &self.asked) {
                Some(near) => format!("unknown key; did you mean '{near}'?"),
                None => format!("unknown key; known here: {}", known.join(", ")),
            };
            self.sheet.report(
                line,
                join(&self.path, &name.escape_default().to_string()),
                message,
            );
        }
    }

    /// Notes that the key exists, and finds its value and line.
    fn ask(&mut self, key: &'static str) -> Option<(&'a DeValue<'a>, usize)> {
        self.asked.push(key);
        self.sheet.known.borrow_mut().insert(join(&self.kind, key));
        let (name, value) = self.table?.iter().find(|(name, _)| name.get_ref() == key)?;
        Some((value.get_ref(), self.sheet.line(name.span().start)))
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

/// The known key that differs from `name` by one slip: a letter too many, too few or wrong, or a dash.
fn nearest(name: &str, known: &[&'static str]) -> Option<&'static str> {
    let name = name.replace('-', "_").to_lowercase();
    known.iter().copied().find(|key| {
        let (short, long) = if key.len() < name.len() {
            (*key, &*name)
        } else {
            (&*name, *key)
        };
        let same_start = short
            .bytes()
            .zip(long.bytes())
            .take_while(|(a, b)| a == b)
            .count();
        let same_end = short
            .bytes()
            .rev()
            .zip(long.bytes().rev())
            .take_while(|(a, b)| a == b)
            .count();
        long.len() > 2 && long.len() - short.len() <= 1 && same_start + same_end + 1 >= long.len()
    })
}

/// What can stand behind a key.
pub(crate) trait Readable: Sized {
    /// The value, or what is wrong with it.
    fn read(value: &DeValue<'_>) -> Result<Self, String>;
}

fn wrong_type<T>(value: &DeValue<'_>, expected: &str) -> Result<T, String> {
    Err(format!("is a {}; it must be {expected}", value.type_str()))
}

impl Readable for String {
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        match value {
            DeValue::String(text) => Ok(text.to_string()),
            other => wrong_type(other, "a text in quotes"),
        }
    }
}

impl Readable for bool {
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        match value {
            DeValue::Boolean(value) => Ok(*value),
            other => wrong_type(other, "true or false"),
        }
    }
}

impl Readable for u64 {
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        match value {
            DeValue::Integer(number) => u64::from_str_radix(number.as_str(), number.radix())
                .map_err(|_| "must be a whole number, not negative".to_owned()),
            other => wrong_type(other, "a whole number"),
        }
    }
}

impl Readable for usize {
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        usize::try_from(u64::read(value)?).map_err(|_| "is too large".to_owned())
    }
}

impl Readable for f64 {
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        let text = match value {
            DeValue::Float(number) => number.as_str(),
            DeValue::Integer(number) if number.radix() == 10 => number.as_str(),
            other => return wrong_type(other, "a number"),
        };
        text.parse().map_err(|_| "must be a number".to_owned())
    }
}

impl Readable for Duration {
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        match value {
            DeValue::String(text) => duration::parse(text),
            other => wrong_type(other, "a duration in quotes, such as \"50ms\""),
        }
    }
}

impl Readable for SocketAddr {
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        match value {
            DeValue::String(text) => super::listen::parse(text),
            other => wrong_type(other, "an address in quotes, such as \"127.0.0.1:6380\""),
        }
    }
}

/// One text or several, at least one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Texts(pub(crate) Vec<String>);

impl Readable for Texts {
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        let expected = "a text in quotes, or a list of them";
        match value {
            DeValue::String(text) => Ok(Self(vec![text.to_string()])),
            DeValue::Array(items) if items.is_empty() => Err("is an empty list".to_owned()),
            DeValue::Array(items) => {
                let text = |item: &DeValue<'_>| match item {
                    DeValue::String(text) => Ok(text.to_string()),
                    other => Err(format!("has a {}; it must be {expected}", other.type_str())),
                };
                let texts = items.iter().map(|item| text(item.get_ref()));
                texts.collect::<Result<_, _>>().map(Self)
            }
            other => wrong_type(other, expected),
        }
    }
}

/// Where to serve metrics; an empty text is nowhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct AdminAddress(pub(crate) Option<SocketAddr>);

impl Readable for AdminAddress {
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        match value {
            DeValue::String(text) if text.is_empty() => Ok(Self(None)),
            other => SocketAddr::read(other).map(|address| Self(Some(address))),
        }
    }
}

/// A size in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Bytes(pub(crate) u64);

impl Readable for Bytes {
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        match value {
            DeValue::String(text) => size::parse(text).map(Self),
            DeValue::Integer(_) => u64::read(value).map(Self),
            other => wrong_type(other, "a size, such as \"256MiB\""),
        }
    }
}

/// A column that a table may lack: its name, or `false`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct OptionalColumn(pub(crate) Option<String>);

impl Readable for OptionalColumn {
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        match value {
            DeValue::String(text) => Ok(Self(Some(text.to_string()))),
            DeValue::Boolean(false) => Ok(Self(None)),
            other => wrong_type(other, "a column name, or false if the table has none"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_key() {
        let known = ["load_timeout", "ttl", "ttl_jitter", "keys"];
        assert_eq!(nearest("load-timeout", &known), Some("load_timeout"));
        assert_eq!(nearest("load_timeut", &known), Some("load_timeout"));
        assert_eq!(nearest("tttl", &known), Some("ttl"));
        assert_eq!(nearest("key", &known), Some("keys"));
        assert_eq!(nearest("shared", &known), None);
    }

    #[test]
    fn lines_are_counted_from_one() {
        let sheet = Sheet::new("a\nb\n\nc");
        assert_eq!(
            [0, 1, 2, 4, 5].map(|byte| sheet.line(byte)),
            [1, 1, 2, 3, 4]
        );
    }
}
