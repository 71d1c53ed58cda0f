//! A private Redis.

use std::io;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::process::{self, Reaper, User};
use super::redis_admin::{self, RedisAnswer};

/// When a Redis writes what it was told to its append-only file.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum RedisAppend {
    /// Never: there is none.
    #[default]
    Off,
    /// At once, and to the disk once a second.
    EverySecond,
    /// To the disk before it answers.
    Always,
}

/// How a Redis is started.
#[derive(Clone, Debug, Default)]
pub struct RedisOptions {
    /// Its append-only file.
    pub append: RedisAppend,
    /// The port of the loopback interface, or of a proxy, whose server it copies.
    pub replica_of: Option<u16>,
    /// The most bytes it keeps, and the name of the policy by which it evicts.
    pub memory_max: Option<(u64, String)>,
    /// Whether it is a node of a cluster. It begins alone, and with no slot.
    pub cluster: bool,
    /// Further arguments of the command line, which win over everything else.
    pub arguments: Vec<String>,
}

impl RedisOptions {
    fn arguments(&self, bus_port: u16) -> Vec<String> {
        let mut words = vec!["--save", ""];
        match self.append {
            RedisAppend::Off => words.extend(["--appendonly", "no"]),
            RedisAppend::EverySecond => {
                words.extend(["--appendonly", "yes", "--appendfsync", "everysec"]);
            }
            RedisAppend::Always => {
                words.extend(["--appendonly", "yes", "--appendfsync", "always"]);
            }
        }
        if self.cluster {
            words.extend(["--cluster-enabled", "yes"]);
            words.extend(["--cluster-config-file", "nodes.conf"]);
            words.extend(["--cluster-announce-ip", "127.0.0.1"]);
        }
        let mut words: Vec<String> = words.into_iter().map(str::to_owned).collect();
        if self.cluster {
            words.extend(["--cluster-port".to_owned(), bus_port.to_string()]);
        }
        if let Some((bytes, policy)) = &self.memory_max {
            words.extend(["--maxmemory".to_owned(), bytes.to_string()]);
            words.extend(["--maxmemory-policy".to_owned(), policy.clone()]);
        }
        words.extend(self.arguments.iter().cloned());
        words
    }
}

/// A Redis server that ends with this value.
pub struct Redis {
    program: PathBuf,
    options: RedisOptions,
    user: Option<User>,
    port: u16,
    /// Where the nodes of a cluster talk to each other.
    bus_port: u16,
    /// Whose copy it is, by the last order.
    primary: Option<u16>,
    paused: bool,
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
        Self::start_as(RedisOptions {
            arguments: arguments.iter().map(ToString::to_string).collect(),
            ..RedisOptions::default()
        })
    }

    /// Starts one as it is described.
    ///
    /// # Panics
    /// If Redis is not installed or does not start.
    #[must_use]
    pub fn start_as(options: RedisOptions) -> Self {
        let program = process::find("redis-server", "redis-server");
        let user = User::unprivileged();
        let folder = process::folder(user);
        let mut redis = Self {
            program,
            primary: options.replica_of,
            options,
            user,
            port: process::free_port(),
            bus_port: process::free_port(),
            paused: false,
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

    /// The port on which the nodes of a cluster talk to each other.
    #[must_use]
    pub(super) fn bus_port(&self) -> u16 {
        self.bus_port
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

    /// Sends it a command on a connection of its own; waits five seconds at most.
    ///
    /// # Errors
    /// If it cannot be reached or does not answer in time. An error that it answers with is an answer.
    pub fn ask<A: AsRef<[u8]>>(&self, arguments: &[A]) -> io::Result<RedisAnswer> {
        let arguments: Vec<&[u8]> = arguments.iter().map(AsRef::as_ref).collect();
        redis_admin::ask(self.port, &arguments)
    }

    /// The same where an error is not expected.
    ///
    /// # Panics
    /// If it cannot be reached, does not answer in time or answers with an error.
    pub fn tell<A: AsRef<[u8]>>(&self, arguments: &[A]) -> RedisAnswer {
        let name = || {
            let name = arguments.first().map(AsRef::as_ref).unwrap_or_default();
            String::from_utf8_lossy(name).into_owned()
        };
        match self.ask(arguments) {
            Ok(RedisAnswer::Error(text)) => panic!("redis answered {} with {text}", name()),
            Ok(answer) => answer,
            Err(error) => panic!("redis did not answer {}: {error}", name()),
        }
    }

    /// The value of a line `name:value` of what `INFO` tells.
    ///
    /// # Panics
    /// If it cannot be asked.
    #[must_use]
    pub fn information(&self, name: &str) -> Option<String> {
        let told = self.tell(&["INFO"]).text();
        let mut values = told.lines().filter_map(|line| line.split_once(':'));
        let found = values.find(|(found, _)| *found == name)?;
        Some(found.1.trim().to_owned())
    }

    /// Forgets everything, as an operator does by mistake.
    ///
    /// # Panics
    /// If it cannot be asked.
    pub fn flush_all(&self) {
        self.tell(&["FLUSHALL"]);
    }

    /// From now on it is a copy of the server behind this port, which may be a proxy; also when it is started
    /// again. What it has is replaced.
    ///
    /// # Panics
    /// If it cannot be asked.
    pub fn follow(&mut self, port: u16) {
        self.primary = Some(port);
        if self.server.is_some() {
            self.tell(&["REPLICAOF", "127.0.0.1", &port.to_string()]);
        }
    }

    /// From now on it is nobody's copy: it keeps what it has and takes writes.
    ///
    /// # Panics
    /// If it cannot be asked.
    pub fn promote(&mut self) {
        self.primary = None;
        if self.server.is_some() {
            self.tell(&["REPLICAOF", "NO", "ONE"]);
        }
    }

    /// Waits until this replica has everything that its primary has by then.
    ///
    /// # Panics
    /// After half a minute.
    pub fn wait_until_in_step_with(&self, primary: &Self) {
        let wanted = primary.information("master_repl_offset");
        let wanted: u64 = wanted.and_then(|text| text.parse().ok()).unwrap_or(0);
        process::wait_until("a replica to have what its primary has", || {
            let linked = self.information("master_link_status").as_deref() == Some("up");
            let has = self.information("slave_repl_offset");
            let has = has.and_then(|text| text.parse::<u64>().ok());
            linked && has.is_some_and(|has| has >= wanted)
        });
    }

    /// Holds it where it stands: connections stay, nothing is answered.
    pub fn pause(&mut self) {
        if let Some(pid) = self.pid() {
            process::signal("STOP", &[pid]);
            self.paused = true;
        }
    }

    /// Lets it go on as if nothing had been.
    pub fn resume(&mut self) {
        if let Some(pid) = self.pid().filter(|_| self.paused) {
            process::signal("CONT", &[pid]);
        }
        self.paused = false;
    }

    /// Ends it as a power failure would.
    pub fn kill9(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
        self.paused = false;
        self.reaper.watch(None);
    }

    /// Ends it in order: what it is configured to keep is kept.
    pub fn stop(&mut self) {
        self.resume();
        if let Some(mut server) = self.server.take() {
            process::signal("TERM", &[server.id()]);
            let _ = server.wait();
        }
        self.reaper.watch(None);
    }

    /// Starts it again with the same port and without what it had on disk; ends it before if it runs. A node of
    /// a cluster still knows the others.
    ///
    /// # Panics
    /// If it does not start.
    pub fn restart_empty(&mut self) {
        self.kill9();
        let _ = std::fs::remove_file(self.folder.path().join("dump.rdb"));
        let _ = std::fs::remove_dir_all(self.folder.path().join("appendonlydir"));
        self.restart();
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
            .arg("--dir")
            .arg(self.folder.path())
            .arg("--logfile")
            .arg(&log)
            .args(self.options.arguments(self.bus_port))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if let Some(primary) = self.primary {
            command.args(["--replicaof", &format!("127.0.0.1 {primary}")]);
        }
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
    match redis_admin::ask(port, &[b"PING"]) {
        Ok(RedisAnswer::Error(text)) => !text.starts_with("LOADING"),
        answer => answer.is_ok(),
    }
}
