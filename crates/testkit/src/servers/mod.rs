//! Real servers for tests: private, in a temporary folder, on a free port of the loopback interface.
//!
//! A server ends with the value that holds it, and also if the test process is killed: a small shell, its
//! reaper, waits for the end of a pipe from the test process, then kills the server and removes the folder.
//!
//! The programs are looked for in `PATH` and where Debian keeps them. A missing one is a panic that names the
//! package to install; nothing is skipped in silence.

mod postgres;
mod process;
mod redis;
mod redis_admin;
mod redis_cluster;

pub use postgres::{Postgres, PostgresOptions};
pub use redis::{Redis, RedisAppend, RedisOptions};
pub use redis_admin::RedisAnswer;
pub use redis_cluster::{RedisCluster, RedisClusterOptions, SlotMove};
