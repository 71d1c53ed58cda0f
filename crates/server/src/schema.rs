//! `tidegate schema`: what the database must hold, as SQL, for somebody who may make it.

use std::io;

use tidegate::port::TableSpec;
use tidegate::{Class, DEFAULT_CLASS, Strategy};

use crate::cli::Schema;
use crate::config::{self, Config, Overrides};
use crate::console;
use crate::exit_codes::Exit;

pub(crate) fn run(arguments: &Schema) -> io::Result<Exit> {
    let config = match config::load(arguments.config.as_deref(), &Overrides::default()) {
        Ok(config) => config,
        Err(problems) => {
            console::say(problems.to_string());
            return Ok(Exit::Config);
        }
    };
    let url = config.store_url.reveal();
    match tidegate::store_schema(url, &arguments.schema, &tables(&config)) {
        Ok(text) => {
            console::print(text.trim_end())?;
            Ok(Exit::Success)
        }
        Err(error) => {
            console::say(format!("tidegate: {error}"));
            Ok(Exit::Config)
        }
    }
}

/// The tables of all classes, also of the one that has every other key, each once.
fn tables(config: &Config) -> Vec<TableSpec> {
    let is_written = |class: &&Class| class.name == DEFAULT_CLASS;
    let default = match config.classes.iter().any(|class| is_written(&class)) {
        true => None,
        false => Some(Class::default_class()),
    };
    let mut tables: Vec<TableSpec> = Vec::new();
    for class in config.classes.iter().chain(&default) {
        let is_known = tables.iter().any(|table| table.name == class.table.name);
        if class.strategy != Strategy::CacheOnly && !is_known {
            tables.push(class.table.clone());
        }
    }
    tables
}
