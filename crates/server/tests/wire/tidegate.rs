//! A private tidegate on a free loopback port, ended with the value that holds it.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use tempfile::TempDir;

/// A tidegate with its embedded default store, in a folder of its own.
pub(crate) struct Tidegate {
    process: Process,
    port: u16,
}

impl Tidegate {
    pub(crate) fn start() -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(folder.path());
        let mut process = Process::start(command, folder).expect("tidegate starts");
        let Some(line) = process.wait_for("listening on 127.0.0.1:") else {
            panic!("tidegate ended before it listened\n{}", process.words());
        };
        let after = line
            .split_once("listening on 127.0.0.1:")
            .expect("it was found")
            .1;
        let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
        let port = digits
            .parse()
            .unwrap_or_else(|_| panic!("no port in `{line}`"));
        Self { process, port }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// What it wrote to its error stream, for the report of a failure.
    pub(crate) fn words(&self) -> String {
        self.process.words()
    }
}

/// A child that is killed when dropped. Its error stream goes to a file in its folder.
struct Process {
    child: Child,
    folder: TempDir,
    output: Option<BufReader<ChildStdout>>,
}

impl Process {
    fn start(mut command: Command, folder: TempDir) -> std::io::Result<Self> {
        let words = std::fs::File::create(folder.path().join("stderr.txt"))?;
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(words)
            .spawn()?;
        let output = child.stdout.take().map(BufReader::new);
        Ok(Self {
            child,
            folder,
            output,
        })
    }

    /// The first line of output that contains the text; `None` if the process ends before. What comes later is read and
    /// dropped, so that the process never waits for a reader.
    fn wait_for(&mut self, text: &str) -> Option<String> {
        let mut output = self.output.take()?;
        let mut line = String::new();
        loop {
            line.clear();
            match output.read_line(&mut line) {
                Ok(0) | Err(_) => return None,
                Ok(_) if line.contains(text) => break,
                Ok(_) => {}
            }
        }
        std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
        Some(line)
    }

    fn words(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("stderr.txt")).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
