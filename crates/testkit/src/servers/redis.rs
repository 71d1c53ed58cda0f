//! A private Redis.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::process::{self, Reaper, User};

/// A Redis server that ends with this value.
pub struct Redis {
    program: PathBuf,
    arguments: Vec<String>,
    user: Option<User>,
    port: u16,
    server: Option<Child>,
    reaper: Reaper,
    folder: TempDir,
}

impl Redis {
    /// Starts one that keeps nothing on disk.
    ///
    /// # Panics
    /// If Redis is not installed or does not start.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts one with further command-line arguments, which win over the ones given here.
    ///
    /// # Panics
    /// If Redis is not installed or does not start.
    #[must_use]
    pub fn start_with(arguments: &[&str]) -> Self {
        let program = process::find("redis-server", "redis-server");
        let user = User::unprivileged();
        let folder = process::folder(user);
        let mut redis = Self {
            program,
            arguments: arguments.iter().map(ToString::to_string).collect(),
            user,
            port: process::free_port(),
            server: None,
            reaper: Reaper::new(folder.path()),
            folder,
        };
        redis.restart();
        redis
    }

    /// The port it listens on, on the loopback interface.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its address as clients take it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The process, if it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.server.as_ref().map(Child::id)
    }

    /// Ends it as a power failure would.
    pub fn kill9(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
        self.reaper.watch(None);
    }

    /// Ends it in order: what it is configured to keep is kept.
    pub fn stop(&mut self) {
        if let Some(mut server) = self.server.take() {
            process::signal("TERM", &[server.id()]);
            let _ = server.wait();
        }
        self.reaper.watch(None);
    }

    /// Starts it again with the same folder and port; ends it in order before if it runs.
    ///
    /// # Panics
    /// If it does not start.
    pub fn restart(&mut self) {
        self.stop();
        let log = self.folder.path().join("redis.log");
        let mut command = Command::new(&self.program);
        User::run(self.user, &mut command);
        command
            .current_dir(self.folder.path())
            .args(["--bind", "127.0.0.1", "--port", &self.port.to_string()])
            .args(["--save", "", "--appendonly", "no"])
            .arg("--dir")
            .arg(self.folder.path())
            .arg("--logfile")
            .arg(&log)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut server = command.spawn().expect("redis-server can be run");
        self.reaper.watch(Some(server.id()));
        let mut ended = false;
        process::wait_until("redis-server to answer", || {
            ended = matches!(server.try_wait(), Ok(Some(_)));
            ended || answers(self.port)
        });
        if ended {
            let log = std::fs::read_to_string(&log).unwrap_or_default();
            panic!("redis-server ended at once:\n{log}");
        }
        self.server = Some(server);
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill9();
    }
}

/// Whether the server answers, also if with an error such as a wanted password; not while it still loads.
fn answers(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else {
        return false;
    };
    let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
    let mut answer = [0; 8];
    stream.write_all(b"PING\r\n").is_ok()
        && stream.read_exact(&mut answer[..7]).is_ok()
        && !answer.starts_with(b"-LOADIN")
}
