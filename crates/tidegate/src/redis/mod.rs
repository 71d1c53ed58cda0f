//! Redis (7.0 or later) or Valkey as the shared cache: one server, one of several copies, or a Redis Cluster.
//!
//! Promises beyond the contract of [`SharedCache`](tidegate_core::port::SharedCache):
//!
//! - Every transition of a key is one script: nothing else happens to the key meanwhile, and either all of it is done
//!   or nothing. Keys and values may hold any bytes; a value may have 511 MiB.
//! - What is found in the cache is what one command read in one moment, together with the generation of the shard.
//! - A server that was restarted, emptied, promoted or demoted is another server, also if it has its data. A
//!   connection to one that is not a primary any more is left; one that breaks is made anew, with growing pauses.
//! - Nothing but a pure look is sent twice by itself, unless the server refused it before it did anything.
//! - A server that hangs holds a call no longer than [`RedisConfig::response_timeout`] and, where it has to be connected
//!   to anew, [`RedisConfig::connect_timeout`]; what waits for replicas aside.
//! - Of several copies the only one that takes writes is used. While two of them do, neither is connected to: they would
//!   be two caches.
//! - No error tells a value or a password.
//!
//! # What a server must be like
//!
//! It must not evict what has no time to live: `maxmemory-policy` is `noeviction` or one of `volatile-*`. A user with
//! ACL rules needs `~PREFIX:* ~PREFIX.*` and `+@read +@write +@scripting +@connection +info +scan +wait +script|load
//! +client|tracking +cluster|slots +config|get`.
//!
//! # What is left open
//!
//! - A primary that was cut off and does not know that it was replaced goes on answering; a node that is cut off with it
//!   reads what it has. A primary that was demoted and promoted again while nobody raised a generation is taken for
//!   the same for a quarter of a second.
//! - A primary begins a new history with its first replica, and with the first one after an hour without any
//!   (`repl-backlog-ttl`), and is taken for another server: its shards need a new generation, what was clean is loaded
//!   anew, and what is dirty stays.
//! - While a slot of a cluster moves, calls for keys that are not there wait for the end of it, or for the timeout.
//! - Connections are not encrypted yet, and an address that asks for it is refused.
//!
//! In reading order: [`config`](RedisConfig), `names` (keys), `layout` (values), `script` (transitions), `connect` (one
//! connection), `node` (one server), `route` (which server), `call` (sending), `reads`, `writes`, `generation`, `dirty`,
//! `watch`, `facts`, `cache` (the port), `error`.

mod cache;
mod call;
mod config;
mod connect;
mod dirty;
mod error;
mod facts;
mod generation;
mod layout;
mod names;
mod node;
mod reads;
mod route;
mod script;
mod watch;
mod writes;

pub use cache::RedisSharedCache;
pub use config::RedisConfig;
