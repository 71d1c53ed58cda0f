//! Configuration: one TOML file, read to what was [written], then to what is [meant].
//!
//! Every problem of a file is reported, with its key and line. A key that nothing reads is refused, so that a slip
//! of the pen cannot leave a limit unset. `reference.toml` beside the sources has every key with its default; tests
//! compare it with the parser in both directions.

pub(crate) mod duration;
mod level;
pub(crate) mod listen;
mod meant;
mod meant_class;
mod meant_shared;
mod meant_write_back;
mod problem;
mod section;
mod shared_url;
mod size;
mod store_url;
mod written;

#[cfg(test)]
mod tests;

pub(crate) use duration::write as duration_text;
pub(crate) use level::write as level_text;
pub(crate) use meant::{Config, Overrides, ServerConfig};
pub(crate) use meant_class::shown_keys;
pub(crate) use meant_shared::SharedConfig;
pub(crate) use problem::{Problem, Problems};
pub(crate) use shared_url::SharedUrl;
pub(crate) use size::write as size_text;

use std::path::Path;

use section::Sheet;

/// Every key with its default and its meaning, commented out.
pub(crate) const REFERENCE: &str = include_str!("../../reference.toml");

/// The largest configuration file taken, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Reads the configuration at `path`; without a path, the embedded default.
///
/// # Errors
/// Everything that is wrong with it.
pub(crate) fn load(path: Option<&Path>, overrides: &Overrides) -> Result<Config, Problems> {
    let environment = |name: &str| std::env::var(name).ok();
    let Some(path) = path else {
        return parse("", overrides, &environment).map_err(|list| Problems {
            source: "command line".to_owned(),
            list,
        });
    };
    let source = path.display().to_string();
    let text = read_file(path).map_err(|message| Problems {
        source: source.clone(),
        list: vec![Problem {
            line: 0,
            key: String::new(),
            message,
        }],
    })?;
    parse(&text, overrides, &environment).map_err(|list| Problems { source, list })
}

fn read_file(path: &Path) -> Result<String, String> {
    let cannot = |error: std::io::Error| format!("cannot be read: {error}");
    let metadata = std::fs::metadata(path).map_err(cannot)?;
    if metadata.len() > FILE_BYTES_MAX {
        return Err("is larger than 1MiB, which no configuration is".to_owned());
    }
    let bytes = std::fs::read(path).map_err(cannot)?;
    String::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned())
}

/// Reads a configuration from its text.
pub(crate) fn parse(
    text: &str,
    overrides: &Overrides,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Config, Vec<Problem>> {
    let sheet = Sheet::new(text);
    let written = written::read(text, &sheet);
    let config = meant::mean(written, overrides, environment, &sheet);
    let problems = sheet.into_problems();
    if problems.is_empty() {
        Ok(config)
    } else {
        Err(problems)
    }
}
