//! A private PostgreSQL.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use tempfile::TempDir;

use super::process::{self, Reaper, User};

/// How a server is started.
#[derive(Clone, Debug, Default)]
pub struct PostgresOptions {
    /// Whether commits wait for the disk: off for tests, which kill processes and not machines; on for
    /// measurements.
    pub fsync: bool,
    /// Further settings, `name=value`.
    pub settings: Vec<String>,
}

/// A PostgreSQL server that ends with this value. Its superuser is `postgres`, and no password is asked.
pub struct Postgres {
    options: PostgresOptions,
    user: Option<User>,
    port: u16,
    /// The processes that are held where they stand, the first one included.
    paused: Vec<u32>,
    server: Option<Child>,
    reaper: Reaper,
    folder: TempDir,
}

impl Postgres {
    /// Makes a cluster and starts it; takes one to two seconds.
    ///
    /// # Panics
    /// If PostgreSQL is not installed or does not start.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(PostgresOptions::default())
    }

    /// The same with options.
    ///
    /// # Panics
    /// If PostgreSQL is not installed or does not start.
    #[must_use]
    pub fn start_with(options: PostgresOptions) -> Self {
        let user = User::unprivileged();
        let folder = process::folder(user);
        let reaper = Reaper::new(folder.path());
        let mut initdb = Command::new(process::find("initdb", "postgresql"));
        User::run(user, &mut initdb);
        initdb
            .args(["--username=postgres", "--auth=trust", "--no-sync"])
            .args(["--encoding=UTF8", "--locale=C", "--pgdata"])
            .arg(folder.path().join("data"));
        expect_success("initdb", &initdb.output().expect("initdb can be run"));
        let mut postgres = Self {
            options,
            user,
            port: process::free_port(),
            paused: Vec::new(),
            server: None,
            reaper,
            folder,
        };
        postgres.restart();
        postgres
    }

    /// The one server that the tests of this process share, quick to notice deadlocks. Each test makes a database of its own with
    /// [`Postgres::fresh_database`], and none may end the server.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        SHARED.get_or_init(|| {
            Self::start_with(PostgresOptions {
                settings: vec!["deadlock_timeout=50ms".into()],
                ..PostgresOptions::default()
            })
        })
    }

    /// The address of a database.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// The port it listens on, on the loopback interface.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder of its Unix socket.
    #[must_use]
    pub fn socket_folder(&self) -> &Path {
        self.folder.path()
    }

    /// The first process of the server, if it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.server.as_ref().map(Child::id)
    }

    /// Makes an empty database.
    ///
    /// # Panics
    /// If the server refuses.
    pub fn create_database(&self, name: &str) {
        let name = name.replace('"', "\"\"");
        self.sql("postgres", &format!("create database \"{name}\""));
    }

    /// Makes an empty database with a name that no other test has; its name.
    ///
    /// # Panics
    /// If the server refuses.
    #[must_use]
    pub fn fresh_database(&self) -> String {
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        let name = format!("test{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        self.create_database(&name);
        name
    }

    /// Runs statements as the superuser, through a client that is not the one under test. Rows come back as
    /// lines with columns separated by `|`.
    ///
    /// # Panics
    /// If a statement fails.
    pub fn sql(&self, database: &str, statements: &str) -> String {
        let output = Command::new(process::find("psql", "postgresql-client"))
            .args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align"])
            .args(["--set=ON_ERROR_STOP=1", "--username=postgres", "--host"])
            .arg(self.folder.path())
            .args(["--port", &self.port.to_string()])
            .args(["--dbname", database, "--command", statements])
            .stdin(Stdio::null())
            .output()
            .expect("psql can be run");
        expect_success("psql", &output);
        String::from_utf8_lossy(&output.stdout)
            .trim_end()
            .to_owned()
    }

    /// Holds all of its processes where they stand: connections stay, nothing is answered, locks are kept.
    pub fn pause(&mut self) {
        if let Some(pid) = self.pid() {
            // First the one that would start others, so that the list is whole.
            process::signal("STOP", &[pid]);
            let children = process::children(pid);
            process::signal("STOP", &children);
            self.paused.push(pid);
            self.paused.extend(children);
        }
    }

    /// Lets them go on as if nothing had been.
    pub fn resume(&mut self) {
        if !self.paused.is_empty() {
            process::signal("CONT", &std::mem::take(&mut self.paused));
        }
    }

    /// Ends all of its processes as a power failure would.
    pub fn kill9(&mut self) {
        self.paused.clear();
        if let Some(mut server) = self.server.take() {
            // First the one that would start others anew.
            let children = process::children(server.id());
            let _ = server.kill();
            let _ = server.wait();
            process::signal("KILL", &children);
        }
        self.reaper.watch(None);
    }

    /// Ends it in order, breaking off what is under way.
    pub fn stop(&mut self) {
        self.resume();
        if let Some(mut server) = self.server.take() {
            process::signal("INT", &[server.id()]);
            let _ = server.wait();
        }
        self.reaper.watch(None);
    }

    /// Starts it again with the same data and port; ends it in order before if it runs.
    ///
    /// # Panics
    /// If it does not start.
    pub fn restart(&mut self) {
        self.stop();
        // The processes of a killed server take a moment to notice; until then the data is not given out.
        process::wait_until("postgres to start", || match self.try_start() {
            Ok(()) => true,
            Err(log) if log.contains("shared memory") || log.contains("lock file") => false,
            Err(log) => panic!("{log}"),
        });
    }

    fn try_start(&mut self) -> Result<(), String> {
        let folder = self.folder.path();
        let data = folder.join("data");
        let log = folder.join("postgres.log");
        let file = std::fs::File::create(&log).expect("the folder can be written");
        let mut command = Command::new(process::find("postgres", "postgresql"));
        User::run(self.user, &mut command);
        command.arg("-D").arg(&data).arg("-k").arg(folder);
        let fsync = if self.options.fsync { "on" } else { "off" };
        let settings = [
            format!("port={}", self.port),
            "listen_addresses=127.0.0.1".into(),
            "max_connections=200".into(),
            "logging_collector=off".into(),
            format!("fsync={fsync}"),
        ];
        for setting in settings.iter().chain(&self.options.settings) {
            command.args(["-c", setting]);
        }
        let mut server = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a file can be shared"))
            .stderr(file)
            .spawn()
            .expect("postgres can be run");
        self.reaper.watch(Some(server.id()));
        let status: PathBuf = data.join("postmaster.pid");
        let mut ended = false;
        process::wait_until("postgres to be ready", || {
            ended = matches!(server.try_wait(), Ok(Some(_)));
            // The first line is the process, which may still be the one before; the eighth its state.
            let lines = std::fs::read_to_string(&status).unwrap_or_default();
            let lines: Vec<_> = lines.lines().map(str::trim).collect();
            let own = lines.first() == Some(&server.id().to_string().as_str());
            ended || (own && lines.get(7) == Some(&"ready"))
        });
        if ended {
            self.reaper.watch(None);
            let log = std::fs::read_to_string(&log).unwrap_or_default();
            return Err(format!("postgres ended at once:\n{log}"));
        }
        self.server = Some(server);
        Ok(())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill9();
    }
}

fn expect_success(program: &str, output: &Output) {
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} failed:\n{words}");
}
