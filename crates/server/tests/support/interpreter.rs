//! Python with its Redis client, as tests need it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The interpreter with the client: `$PYTHON`, or the one that `./test` makes.
fn python() -> Command {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.venv/bin/python");
    let python = std::env::var_os("PYTHON").map_or(own, PathBuf::from);
    let mut command = Command::new(&python);
    let ready = command.args(["-c", "import redis"]).output();
    assert!(
        ready.is_ok_and(|output| output.status.success()),
        "{} has no Redis client: run ./test, which makes .venv, or set PYTHON to a Python with the package `redis`",
        python.display(),
    );
    Command::new(python)
}

/// Runs a script of `tests/python` to its end; the lines it printed.
pub(crate) fn script<A: AsRef<OsStr>>(
    name: &str,
    arguments: impl IntoIterator<Item = A>,
) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/python")
        .join(name);
    let output: Output = python().arg(path).args(arguments).output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} failed:\n{words}");
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect()
}
