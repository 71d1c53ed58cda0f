//! The file and its threads: one that writes, some that read.

use std::path::Path;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use rusqlite::{Connection, OpenFlags};
use tidegate_core::port::StoreError;
use tokio::sync::oneshot;

use super::SqliteConfig;
use super::apply::{self, Waiting};
use super::error;

/// Work for a thread that holds a connection.
pub(super) enum Job {
    /// Anything that is done in one go.
    Call(Box<dyn FnOnce(&Connection) + Send>),
    /// A batch, which may be committed together with others.
    Apply(Waiting),
}

/// The ways to the threads. When the last of them is dropped the threads finish what waits and end.
pub(super) struct Threads {
    pub(super) write: Sender<Job>,
    pub(super) read: Sender<Job>,
    /// Told by each thread when it has let go of its connection.
    pub(super) ended: Vec<oneshot::Receiver<()>>,
}

/// The tables of the store's own.
pub(super) const SUPPORT: &str = include_str!("support.sql");

impl Threads {
    /// Opens the database and starts the threads. Blocks.
    pub(super) fn start(config: &SqliteConfig) -> Result<Self, StoreError> {
        let writer = open(config)?;
        prepare(&writer, config)?;
        let mut ended = Vec::new();
        let (write, jobs) = mpsc::channel();
        let mut readers = Vec::new();
        if config.path.is_some() {
            for _ in 0..config.readers {
                let reader = open(config)?;
                reader
                    .execute_batch("pragma query_only = on; pragma cache_size = -16384")
                    .map_err(|e| error::configuration("a connection to read with", &e))?;
                readers.push(reader);
            }
        }
        ended.push(spawn("tidegate-sqlite-write", move || {
            write_jobs(&writer, &jobs);
        })?);
        if readers.is_empty() {
            let read = write.clone();
            return Ok(Self { write, read, ended });
        }
        let (read, jobs) = mpsc::channel();
        let jobs = Arc::new(Mutex::new(jobs));
        for reader in readers {
            let jobs = Arc::clone(&jobs);
            ended.push(spawn("tidegate-sqlite-read", move || {
                read_jobs(&reader, &jobs);
            })?);
        }
        Ok(Self { write, read, ended })
    }
}

fn spawn(
    name: &str,
    work: impl FnOnce() + Send + 'static,
) -> Result<oneshot::Receiver<()>, StoreError> {
    let (done, ended) = oneshot::channel();
    let work = move || {
        work();
        let _ = done.send(());
    };
    let thread = thread::Builder::new().name(name.into()).spawn(work);
    thread.map_err(|e| StoreError::configuration(format_args!("no thread can be started: {e}")))?;
    Ok(ended)
}

fn open(config: &SqliteConfig) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let path = config.path.as_deref().unwrap_or(Path::new(":memory:"));
    let what = format!("the database file {}", path.display());
    let connection =
        Connection::open_with_flags(path, flags).map_err(|e| error::configuration(&what, &e))?;
    connection
        .busy_timeout(config.busy_timeout)
        .map_err(|e| error::configuration(&what, &e))?;
    connection.set_prepared_statement_cache_capacity(256);
    Ok(connection)
}

/// Sets the connection that writes up, and makes the tables of the store's own.
fn prepare(writer: &Connection, config: &SqliteConfig) -> Result<(), StoreError> {
    let path = config.path.as_deref().unwrap_or(Path::new(":memory:"));
    let what = format!("the database file {}", path.display());
    let wrong = |e: rusqlite::Error| error::configuration(&what, &e);
    let ask = |pragma: &str| writer.query_row(pragma, [], |row| row.get::<_, String>(0));
    let mode = ask("pragma journal_mode = wal").map_err(wrong)?;
    if config.path.is_some() && mode != "wal" {
        return Err(StoreError::configuration(format_args!(
            "{what}: the journal mode stays {mode} where WAL is needed; is it on a network disk?"
        )));
    }
    let encoding = ask("pragma encoding").map_err(wrong)?;
    if encoding != "UTF-8" {
        return Err(StoreError::configuration(format_args!(
            "{what}: the encoding is {encoding}, and only UTF-8 keeps keys in the order of their bytes"
        )));
    }
    writer
        .execute_batch(
            "pragma synchronous = full; pragma foreign_keys = on; pragma cache_size = -65536",
        )
        .map_err(wrong)?;
    writer.execute_batch(SUPPORT).map_err(wrong)
}

/// The most writes that are committed together.
const GROUP_WRITES_MAX: usize = 20_000;

fn write_jobs(connection: &Connection, jobs: &Receiver<Job>) {
    let mut next = None;
    loop {
        let job = match next.take() {
            Some(job) => job,
            None => match jobs.recv() {
                Ok(job) => job,
                Err(_) => return,
            },
        };
        let first = match job {
            Job::Call(call) => {
                call(connection);
                continue;
            }
            Job::Apply(waiting) => waiting,
        };
        // Whatever came while the last commit was under way shares the next one.
        let mut writes = first.batch.writes.len();
        let mut group = vec![first];
        while writes < GROUP_WRITES_MAX {
            match jobs.try_recv() {
                Ok(Job::Apply(waiting)) => {
                    writes += waiting.batch.writes.len();
                    group.push(waiting);
                }
                Ok(call) => {
                    next = Some(call);
                    break;
                }
                Err(_) => break,
            }
        }
        apply::commit(connection, group);
    }
}

fn read_jobs(connection: &Connection, jobs: &Mutex<Receiver<Job>>) {
    loop {
        // One thread at a time waits here; the others wait for the lock.
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match job {
            Ok(Job::Call(call)) => call(connection),
            Ok(Job::Apply(waiting)) => waiting.answer(Err(StoreError::unavailable("not a writer"))),
            Err(_) => return,
        }
    }
}
