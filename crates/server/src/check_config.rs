//! `tidegate check-config`: what a configuration means, or what is wrong with it.

use std::io;

use tidegate::{Class, Strategy};

use crate::cli::CheckConfig;
use crate::columns::aligned;
use crate::command::durability;
use crate::config::{self, Config, Overrides, duration_text, level_text, shown_keys, size_text};
use crate::console;
use crate::exit_codes::Exit;

pub(crate) fn run(arguments: &CheckConfig) -> io::Result<Exit> {
    match config::load(Some(&arguments.file), &Overrides::default()) {
        Ok(config) => {
            console::print(describe(&config))?;
            Ok(Exit::Success)
        }
        Err(problems) => {
            console::say(problems.to_string());
            console::say(count(problems.list.len()));
            Ok(Exit::Config)
        }
    }
}

fn count(problems: usize) -> String {
    match problems {
        1 => "1 problem; nothing was started".to_owned(),
        n => format!("{n} problems; nothing was started"),
    }
}

fn describe(config: &Config) -> String {
    let mut lines = vec![
        format!("listen   {}", config.server.listen),
        format!("store    {}", config.store_url),
    ];
    lines.extend(shared_line(config));
    lines.extend([
        format!("journal  {}", config.journal_path.display()),
        format!("near     {}", size_text(config.near_bytes)),
        String::new(),
    ]);
    lines.extend(class_table(config));
    lines.join("\n")
}

/// Where the shared cache is and what all nodes must have alike; nothing where there is none.
pub(crate) fn shared_line(config: &Config) -> Option<String> {
    let shared = config.shared.as_ref()?;
    Some(format!(
        "shared   {}, prefix {}, {} shards",
        shared.place(),
        shared.prefix,
        shared.shards
    ))
}

/// The classes as a table, the one that has every other key last, written or not. Levels are of nodes that share a
/// cache.
pub(crate) fn class_table(config: &Config) -> Vec<String> {
    let classes = &config.classes;
    let written = classes
        .iter()
        .find(|class| class.name == tidegate::DEFAULT_CLASS);
    let default = written.cloned().unwrap_or_else(Class::default_class);
    let others = classes
        .iter()
        .filter(|class| class.name != tidegate::DEFAULT_CLASS);
    let is_shared = config.shared.is_some();
    let mut heads = vec!["CLASS", "KEYS", "STRATEGY", "TABLE", "TTL", "DURABILITY"];
    if is_shared {
        heads.push("LEVEL");
    }
    let mut rows = vec![heads.into_iter().map(str::to_owned).collect()];
    rows.extend(others.chain([&default]).map(|class| row(class, is_shared)));
    aligned(&rows)
}

fn row(class: &Class, is_shared: bool) -> Vec<String> {
    let table = match class.strategy {
        Strategy::CacheOnly => "-".to_owned(),
        _ => class.table.name.escape_debug().to_string(),
    };
    let mut row = vec![
        class.name.clone(),
        shown_keys(&class.keys),
        class.strategy.as_str().to_owned(),
        table,
        class.ttl.map_or_else(|| "-".to_owned(), duration_text),
        durability(class).to_owned(),
    ];
    if is_shared {
        row.push(match class.strategy {
            Strategy::CacheOnly => "each node its own".to_owned(),
            _ => level_text(class.level),
        });
    }
    row
}
