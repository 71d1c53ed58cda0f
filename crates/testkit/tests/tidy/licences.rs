//! Licences and duplicate dependencies, as `deny.toml` says: the same file that `cargo deny` reads, checked
//! without it.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

use super::expect_none;
use super::tree;

/// What `deny.toml` allows.
struct Policy {
    licences: Vec<String>,
    /// `name@version` of dependencies that may be there beside another version.
    duplicates: Vec<String>,
}

impl Policy {
    /// Reads the two lists; no more of the file.
    fn parse(text: &str) -> Self {
        let list = |start: &str| {
            let at = text.find(start).map_or(text.len(), |at| at + start.len());
            let end = text[at..].find("\n]").map_or(text.len(), |end| at + end);
            text[at..end]
                .lines()
                .filter(|line| !line.trim_start().starts_with('#'))
                .collect::<Vec<_>>()
                .join("\n")
        };
        let quoted = |text: &str| {
            text.split('"')
                .skip(1)
                .step_by(2)
                .map(str::to_owned)
                .collect()
        };
        let duplicates: Vec<String> = quoted(&list("\nskip = ["));
        Self {
            licences: quoted(&list("\nallow = [")),
            duplicates: duplicates
                .into_iter()
                .filter(|entry| entry.contains('@'))
                .collect(),
        }
    }

    /// Whether a licence expression can be met with what is allowed.
    fn allows(&self, expression: &str) -> bool {
        let spaced = expression
            .replace('(', " ( ")
            .replace(')', " ) ")
            .replace('/', " OR ");
        let mut tokens = spaced.split_whitespace().peekable();
        let allowed = self.any(&mut tokens);
        allowed && tokens.next().is_none()
    }

    fn any<'a>(&self, tokens: &mut std::iter::Peekable<impl Iterator<Item = &'a str>>) -> bool {
        let mut allowed = self.all(tokens);
        while tokens.next_if_eq(&"OR").is_some() {
            allowed |= self.all(tokens);
        }
        allowed
    }

    fn all<'a>(&self, tokens: &mut std::iter::Peekable<impl Iterator<Item = &'a str>>) -> bool {
        let mut allowed = self.one(tokens);
        while tokens.next_if_eq(&"AND").is_some() {
            allowed &= self.one(tokens);
        }
        allowed
    }

    fn one<'a>(&self, tokens: &mut std::iter::Peekable<impl Iterator<Item = &'a str>>) -> bool {
        let Some(token) = tokens.next() else {
            return false;
        };
        if token == "(" {
            let allowed = self.any(tokens);
            return tokens.next_if_eq(&")").is_some() && allowed;
        }
        let mut name = token.to_owned();
        if tokens.next_if_eq(&"WITH").is_some() {
            name = format!("{name} WITH {}", tokens.next().unwrap_or_default());
        }
        self.licences.contains(&name)
    }

    /// What is wrong with the packages that `cargo metadata` lists.
    fn check(&self, metadata: &Value) -> Vec<String> {
        let mut problems = Vec::new();
        let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        let nodes = metadata["resolve"]["nodes"]
            .as_array()
            .into_iter()
            .flatten();
        let used: BTreeSet<&str> = nodes.filter_map(|node| node["id"].as_str()).collect();
        let packages = metadata["packages"].as_array().into_iter().flatten();
        for package in packages.filter(|p| p["id"].as_str().is_some_and(|id| used.contains(id))) {
            let text = |field: &str| package[field].as_str().unwrap_or_default();
            let (name, version, licence) = (text("name"), text("version"), text("license"));
            versions.entry(name).or_default().insert(version);
            if !self.allows(licence) {
                problems.push(format!(
                    "{name} {version}: the licence '{licence}' is not in deny.toml"
                ));
            }
        }
        let mut skipped: BTreeSet<&str> = self.duplicates.iter().map(String::as_str).collect();
        for (name, versions) in versions.iter().filter(|(_, versions)| versions.len() > 1) {
            let extra = versions
                .iter()
                .filter(|version| !skipped.remove(&*format!("{name}@{version}")));
            if extra.count() > 1 {
                problems.push(format!("{name} is there in several versions: {versions:?}"));
            }
        }
        for gone in skipped {
            problems.push(format!(
                "{gone} is no duplicate any more; take it out of deny.toml"
            ));
        }
        problems
    }
}

#[test]
fn licences_and_duplicates_are_as_agreed() {
    let rustc = Command::new("rustc").arg("-vV").output().unwrap();
    let rustc = String::from_utf8(rustc.stdout).unwrap();
    let host = rustc
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .unwrap();
    // What other platforms would need is not here and not asked for.
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--locked",
            "--offline",
            "--all-features",
        ])
        .args(["--filter-platform", host])
        .current_dir(tree::root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap().len();
    assert!(
        packages > 50,
        "only {packages} packages: this is not the list"
    );
    expect_none(Policy::parse(&tree::read("deny.toml")).check(&metadata));
}

#[cfg(test)]
fn example() -> Policy {
    let text = "[licenses]\nallow = [\n  # \"GPL-3.0\"\n  \"MIT\",\n  \"Apache-2.0\",\n  \"Unicode-3.0\",\n]\n\
                [bans]\nskip = [\n  { crate = \"a@1.0.0\", reason = \"old\" },\n]\n";
    Policy::parse(text)
}

#[test]
fn a_licence_that_is_not_allowed_is_found() {
    let policy = example();
    for good in [
        "MIT",
        "GPL-3.0 OR MIT",
        "MIT/Apache-2.0",
        "(MIT OR X) AND Unicode-3.0",
    ] {
        assert!(policy.allows(good), "{good}");
    }
    for bad in [
        "",
        "GPL-3.0",
        "MIT AND GPL-3.0",
        "(MIT OR X) AND Y",
        "Apache-2.0 WITH X",
        "MIT X",
        "(MIT",
    ] {
        assert!(!policy.allows(bad), "{bad}");
    }
}

#[test]
fn a_duplicate_that_is_not_agreed_is_found() {
    let metadata = |packages: &[(&str, &str)]| {
        let id = |p: &(&str, &str)| format!("{}@{}", p.0, p.1);
        let list: Vec<_> = packages
            .iter()
            .map(
                |p| serde_json::json!({"id": id(p), "name": p.0, "version": p.1, "license": "MIT"}),
            )
            .collect();
        let nodes: Vec<_> = packages
            .iter()
            .map(|p| serde_json::json!({"id": id(p)}))
            .collect();
        serde_json::json!({"packages": list, "resolve": {"nodes": nodes}})
    };
    let policy = example();
    assert!(
        policy
            .check(&metadata(&[("a", "1.0.0"), ("a", "2.0.0")]))
            .is_empty()
    );
    assert_eq!(
        policy.check(&metadata(&[("a", "2.0.0")])).len(),
        1,
        "no longer needed"
    );
    let three = [("a", "1.0.0"), ("a", "2.0.0"), ("a", "3.0.0")];
    assert_eq!(policy.check(&metadata(&three)).len(), 1);
    let other = [
        ("a", "1.0.0"),
        ("a", "2.0.0"),
        ("b", "1.0.0"),
        ("b", "2.0.0"),
    ];
    assert_eq!(policy.check(&metadata(&other)).len(), 1);
}
