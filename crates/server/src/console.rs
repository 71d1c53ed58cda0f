//! What is printed: data to stdout, words to stderr. A reader that went away is no failure.

use std::io::{self, Write};

/// Prints a line of data.
pub(crate) fn print(line: impl AsRef<str>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    forgive(
        out.write_all(format!("{}\n", line.as_ref()).as_bytes())
            .and_then(|()| out.flush()),
    )
}

/// Prints a line for the person at the terminal. If that fails there is nobody to tell.
pub(crate) fn say(line: impl AsRef<str>) {
    let _ = io::stderr()
        .lock()
        .write_all(format!("{}\n", line.as_ref()).as_bytes());
}

/// A closed pipe means that the reader has seen enough.
fn forgive(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}
