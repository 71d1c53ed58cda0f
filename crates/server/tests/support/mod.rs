//! A private tidegate for a test, and a plain client for it.
//!
//! A [`Folder`] outlives the servers started in it, so that a test can end one, by signal or by kill, and start the
//! next on the same data.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on says where and ends"
)]
#![allow(dead_code, reason = "every test file uses its own part")]

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::BytesMut;
use tempfile::TempDir;
use tidegate_resp::{Reply, ReplyDecoder};

/// The program under test: `TIDEGATE_PROGRAM` names another build of it.
fn program() -> PathBuf {
    let built = || PathBuf::from(env!("CARGO_BIN_EXE_tidegate"));
    std::env::var_os("TIDEGATE_PROGRAM").map_or_else(built, PathBuf::from)
}

/// The longest any answer is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A temporary folder with the data of one server after another.
pub(crate) struct Folder {
    folder: TempDir,
}

impl Folder {
    pub(crate) fn new() -> Self {
        Self {
            folder: TempDir::new().unwrap(),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    /// What the servers of this folder wrote to their error streams.
    pub(crate) fn stderr(&self) -> String {
        std::fs::read_to_string(self.path().join("stderr.txt")).unwrap_or_default()
    }

    /// Writes a configuration file; its path.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Starts the embedded default.
    pub(crate) fn serve(&self) -> Server {
        self.serve_with(&[])
    }

    /// Starts with a configuration.
    pub(crate) fn serve_config(&self, config: &str) -> Server {
        let path = self.write("tidegate.toml", config);
        self.serve_with(&["--config", path.to_str().unwrap()])
    }

    /// Starts with more arguments, and waits until it listens.
    pub(crate) fn serve_with(&self, arguments: &[&str]) -> Server {
        self.try_serve(arguments, &[]).unwrap_or_else(|words| {
            panic!(
                "tidegate ended before it listened\n{words}{}",
                self.stderr()
            )
        })
    }

    /// The same with more in its environment; what it printed if it ends before it listens.
    pub(crate) fn try_serve(
        &self,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<Server, String> {
        let stderr = File::options()
            .create(true)
            .append(true)
            .open(self.path().join("stderr.txt"))
            .unwrap();
        let mut child = Command::new(program())
            .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(self.data())
            .args(arguments)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut server = Server {
            child,
            port: 0,
            words: String::new(),
        };
        // The start-up lines come in one piece and end with what to try next.
        while !server.words.contains("redis-cli") {
            if lines.read_line(&mut server.words).unwrap() == 0 {
                let _ = server.child.wait();
                return Err(std::mem::take(&mut server.words));
            }
        }
        let after = server
            .words
            .split_once("listening on 127.0.0.1:")
            .unwrap()
            .1;
        server.port = after.split_whitespace().next().unwrap().parse().unwrap();
        Ok(server)
    }
}

/// Runs the program to its end.
pub(crate) fn run(arguments: &[&str]) -> Ended {
    run_with_input(arguments, b"")
}

/// Starts the program and waits for nothing; what it says is for whoever ends it.
pub(crate) fn begin(arguments: &[&str]) -> Child {
    let mut command = Command::new(program());
    let command = command.args(arguments).stdin(Stdio::null());
    command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Runs the program to its end, with this on its standard input.
pub(crate) fn run_with_input(arguments: &[&str], input: &[u8]) -> Ended {
    let mut child = Command::new(program())
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that does not read what it is given has ended before.
    let _ = child.stdin.take().unwrap().write_all(input);
    let output = child.wait_with_output().unwrap();
    Ended {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// What a run of the program left.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A running server; killed when dropped.
pub(crate) struct Server {
    child: Child,
    port: u16,
    /// What it printed when it started.
    words: String,
}

impl Server {
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn words(&self) -> &str {
        &self.words
    }

    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.port)
    }

    /// Sends a signal, such as `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        let sent = Command::new("kill")
            .args(["-s", name, &pid])
            .status()
            .unwrap();
        assert!(sent.success());
    }

    /// Ends it as a service manager does; its exit code.
    pub(crate) fn terminate(self) -> i32 {
        self.signal("TERM");
        self.wait()
    }

    /// Ends it without warning.
    pub(crate) fn kill9(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for its end; its exit code.
    pub(crate) fn wait(mut self) -> i32 {
        self.child
            .wait()
            .unwrap()
            .code()
            .unwrap_or_else(|| panic!("ended by a signal"))
    }

    /// Resident memory in bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .unwrap();
        line.split_whitespace()
            .nth(1)
            .unwrap()
            .parse::<u64>()
            .unwrap()
            * 1024
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A connection that waits for each answer.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    decoder: ReplyDecoder,
    buffer: BytesMut,
}

impl Client {
    pub(crate) fn connect(port: u16) -> Self {
        Self::try_connect(port).unwrap()
    }

    /// A connection to a server that may be gone.
    pub(crate) fn try_connect(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Ok(Self {
            stream,
            decoder: ReplyDecoder::default(),
            buffer: BytesMut::new(),
        })
    }

    /// Sends a command to a server that may be gone; nothing if it is.
    pub(crate) fn try_ask(&mut self, line: &str) -> io::Result<Option<Reply>> {
        let mut bytes = BytesMut::new();
        let arguments: Vec<&str> = line.split(' ').collect();
        tidegate_resp::encode_request(&mut bytes, &arguments);
        self.stream.write_all(&bytes)?;
        self.try_read()
    }

    /// The same connection once more, so that one thread may write while another reads.
    pub(crate) fn twin(&self) -> Self {
        Self {
            stream: self.stream.try_clone().unwrap(),
            decoder: ReplyDecoder::default(),
            buffer: BytesMut::new(),
        }
    }

    /// Sends a command, its arguments separated by blanks; the answer.
    pub(crate) fn ask(&mut self, line: &str) -> Reply {
        self.send(&[line]);
        self.read()
    }

    /// Sends a command and expects this answer.
    pub(crate) fn expect(&mut self, line: &str, expected: Reply) {
        assert_eq!(self.ask(line), expected, "{line}");
    }

    /// Sends commands in one write.
    pub(crate) fn send(&mut self, lines: &[impl AsRef<str>]) {
        let mut bytes = BytesMut::new();
        for line in lines {
            let arguments: Vec<&str> = line.as_ref().split(' ').collect();
            tidegate_resp::encode_request(&mut bytes, &arguments);
        }
        self.write(&bytes);
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// The next answer.
    pub(crate) fn read(&mut self) -> Reply {
        self.try_read()
            .unwrap()
            .expect("the server closed the connection")
    }

    /// The next answer; nothing if the server closed the connection.
    pub(crate) fn try_read(&mut self) -> io::Result<Option<Reply>> {
        loop {
            if let Some(reply) = self.decoder.decode(&mut self.buffer).unwrap() {
                return Ok(Some(reply));
            }
            let mut piece = [0; 64 * 1024];
            match self.stream.read(&mut piece) {
                Ok(0) => return Ok(None),
                Ok(read) => self.buffer.extend_from_slice(&piece[..read]),
                // With a timeout set, a signal to this process ends a read.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

pub(crate) fn ok() -> Reply {
    Reply::ok()
}

pub(crate) fn integer(value: i64) -> Reply {
    Reply::Integer(value)
}

pub(crate) fn bulk(text: &str) -> Reply {
    Reply::bulk(text.to_owned())
}

/// The text of an error.
pub(crate) fn error_text(reply: &Reply) -> String {
    match reply {
        Reply::Error(text) => String::from_utf8(text.to_vec()).unwrap(),
        other => panic!("no error: {other:?}"),
    }
}

/// The value of a name in a map, or in an array of pairs.
pub(crate) fn field(reply: &Reply, name: &str) -> Reply {
    let found = match reply {
        Reply::Map(entries) => entries
            .iter()
            .find(|(key, _)| *key == bulk(name))
            .map(|(_, v)| v),
        Reply::Array(items) => items
            .chunks(2)
            .find(|pair| pair[0] == bulk(name))
            .map(|pair| &pair[1]),
        _ => None,
    };
    found
        .unwrap_or_else(|| panic!("no {name} in {reply:?}"))
        .clone()
}
