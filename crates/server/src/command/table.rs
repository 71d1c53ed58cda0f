//! The command table: everything the server can be asked, in one place.
//!
//! `COMMAND`, arity checks, key positions and the order of a connection's commands all come from here. Arity, flags,
//! key positions and categories are those of Redis 7.0.

use super::row::{Command, Handler};
use super::{connection, counter, key, scan, server, string, tidegate};

/// The command of a name, in any mixture of cases.
pub(crate) fn find(name: &[u8]) -> Option<&'static Command> {
    find_in(COMMANDS, name)
}

/// The row of a name in `rows`, which are in the order of their names.
pub(crate) fn find_in(rows: &'static [Command], name: &[u8]) -> Option<&'static Command> {
    let lower = |byte: &u8| byte.to_ascii_lowercase();
    let at = rows
        .binary_search_by(|row| row.name.bytes().cmp(name.iter().map(lower)))
        .ok()?;
    rows.get(at)
}

/// All commands, in the order of their names.
pub(crate) static COMMANDS: &[Command] = &[
    Command::new("append", 3, Handler::Keys(string::append))
        .flags(&["write", "denyoom", "fast"])
        .keys(1, 1, 1, &["RW", "insert"])
        .categories(&["@write", "@string", "@fast"])
        .docs(
            "string",
            "2.0.0",
            "O(1)",
            "Appends to the value of a key; a missing key counts as empty.",
        ),
    Command::new("client", -2, Handler::Session(connection::container))
        .flags(&[])
        .categories(&["@slow"])
        .docs("connection", "2.4.0", "O(1)", "A container of subcommands.")
        .subcommands(&[
            Command::new("getname", 2, Handler::Session(connection::client_getname))
                .flags(&["noscript", "loading", "stale"])
                .categories(&["@slow", "@connection"])
                .docs(
                    "connection",
                    "2.6.9",
                    "O(1)",
                    "The name of this connection.",
                ),
            Command::new("help", 2, Handler::Session(connection::client_help))
                .flags(&["loading", "stale"])
                .categories(&["@slow", "@connection"])
                .docs("connection", "5.0.0", "O(1)", "What CLIENT can do."),
            Command::new("id", 2, Handler::Session(connection::client_id))
                .flags(&["noscript", "loading", "stale"])
                .categories(&["@slow", "@connection"])
                .docs(
                    "connection",
                    "5.0.0",
                    "O(1)",
                    "The number of this connection.",
                ),
            Command::new("info", 2, Handler::Session(connection::client_info))
                .flags(&["noscript", "loading", "stale"])
                .categories(&["@slow", "@connection"])
                .tips(&["nondeterministic_output"])
                .docs(
                    "connection",
                    "6.2.0",
                    "O(1)",
                    "This connection as CLIENT LIST shows it.",
                ),
            Command::new("list", -2, Handler::Session(connection::client_list))
                .flags(&["admin", "noscript", "loading", "stale"])
                .categories(&["@admin", "@slow", "@dangerous", "@connection"])
                .tips(&["nondeterministic_output"])
                .docs("connection", "2.4.0", "O(N)", "Connections, one a line."),
            Command::new("no-evict", 3, Handler::Session(connection::client_no_evict))
                .flags(&["admin", "noscript", "loading", "stale"])
                .categories(&["@admin", "@slow", "@dangerous", "@connection"])
                .docs(
                    "connection",
                    "7.0.0",
                    "O(1)",
                    "Taken and without effect: no connection is ever evicted.",
                ),
            Command::new("no-touch", 3, Handler::Session(connection::client_no_touch))
                .flags(&["noscript", "loading", "stale"])
                .categories(&["@slow", "@connection"])
                .docs(
                    "connection",
                    "7.2.0",
                    "O(1)",
                    "Taken and without effect: reads by tools count as any other.",
                ),
            Command::new("reply", 3, Handler::Session(connection::client_reply))
                .flags(&["noscript", "loading", "stale"])
                .categories(&["@slow", "@connection"])
                .docs(
                    "connection",
                    "3.2.0",
                    "O(1)",
                    "Turns answers on or off, or skips the next one.",
                ),
            Command::new("setinfo", 4, Handler::Session(connection::client_setinfo))
                .flags(&["noscript", "loading", "stale"])
                .categories(&["@slow", "@connection"])
                .docs(
                    "connection",
                    "7.2.0",
                    "O(1)",
                    "Notes the name or version of the client library.",
                ),
            Command::new("setname", 3, Handler::Session(connection::client_setname))
                .flags(&["noscript", "loading", "stale"])
                .categories(&["@slow", "@connection"])
                .docs("connection", "2.6.9", "O(1)", "Names this connection."),
        ]),
    Command::new("command", -1, Handler::Session(server::command))
        .flags(&["loading", "stale"])
        .categories(&["@slow", "@connection"])
        .tips(&["nondeterministic_output_order"])
        .docs("server", "2.8.13", "O(N)", "The commands of this server.")
        .subcommands(&[
            Command::new("count", 2, Handler::Session(server::command_count))
                .flags(&["loading", "stale"])
                .categories(&["@slow", "@connection"])
                .docs("server", "2.8.13", "O(1)", "The number of commands."),
            Command::new("docs", -2, Handler::Session(server::command_docs))
                .flags(&["loading", "stale"])
                .categories(&["@slow", "@connection"])
                .tips(&["nondeterministic_output_order"])
                .docs("server", "7.0.0", "O(N)", "What commands are for."),
            Command::new("getkeys", -4, Handler::Session(server::command_getkeys))
                .flags(&["loading", "stale"])
                .categories(&["@slow", "@connection"])
                .docs(
                    "server",
                    "2.8.13",
                    "O(N)",
                    "Which arguments of a command are keys.",
                ),
            Command::new("help", 2, Handler::Session(server::command_help))
                .flags(&["loading", "stale"])
                .categories(&["@slow", "@connection"])
                .docs("server", "5.0.0", "O(1)", "What COMMAND can do."),
            Command::new("info", -2, Handler::Session(server::command_info))
                .flags(&["loading", "stale"])
                .categories(&["@slow", "@connection"])
                .tips(&["nondeterministic_output_order"])
                .docs(
                    "server",
                    "2.8.13",
                    "O(N)",
                    "Arity, flags and key positions of commands.",
                ),
            Command::new("list", -2, Handler::Session(server::command_list))
                .flags(&["loading", "stale"])
                .categories(&["@slow", "@connection"])
                .tips(&["nondeterministic_output_order"])
                .docs("server", "7.0.0", "O(N)", "The names of the commands."),
        ]),
    Command::new("config", -2, Handler::Session(connection::container))
        .flags(&[])
        .categories(&["@slow"])
        .docs("server", "2.0.0", "O(1)", "A container of subcommands.")
        .subcommands(&[
            Command::new("get", -3, Handler::Session(server::config_get))
                .flags(&["admin", "noscript", "loading", "stale"])
                .categories(&["@admin", "@slow", "@dangerous"])
                .docs(
                    "server",
                    "2.0.0",
                    "O(N) when N is the number of configuration parameters provided",
                    "Settings whose names match a pattern.",
                ),
            Command::new("help", 2, Handler::Session(server::config_help))
                .flags(&["loading", "stale"])
                .categories(&["@slow"])
                .docs("server", "5.0.0", "O(1)", "What CONFIG can do."),
        ]),
    Command::new("dbsize", 1, Handler::Keyspace(server::dbsize))
        .flags(&["readonly", "fast"])
        .categories(&["@keyspace", "@read", "@fast"])
        .tips(&["request_policy:all_shards", "response_policy:agg_sum"])
        .docs(
            "server",
            "1.0.0",
            "O(1)",
            "The number of live keys, counted in the store.",
        ),
    Command::new("decr", 2, Handler::Keys(counter::decr))
        .flags(&["write", "denyoom", "fast"])
        .keys(1, 1, 1, &["RW", "access", "update"])
        .categories(&["@write", "@string", "@fast"])
        .docs(
            "string",
            "1.0.0",
            "O(1)",
            "Takes one from the number a key holds.",
        ),
    Command::new("decrby", 3, Handler::Keys(counter::decrby))
        .flags(&["write", "denyoom", "fast"])
        .keys(1, 1, 1, &["RW", "access", "update"])
        .categories(&["@write", "@string", "@fast"])
        .docs(
            "string",
            "1.0.0",
            "O(1)",
            "Takes from the number a key holds.",
        ),
    Command::new("del", -2, Handler::Keys(key::del))
        .flags(&["write"])
        .keys(1, -1, 1, &["RM", "delete"])
        .categories(&["@keyspace", "@write", "@slow"])
        .tips(&["request_policy:multi_shard", "response_policy:agg_sum"])
        .docs("generic", "1.0.0", "O(N)", "Deletes keys in the store too."),
    Command::new("echo", 2, Handler::Session(connection::echo))
        .flags(&["loading", "stale", "fast"])
        .categories(&["@fast", "@connection"])
        .docs("connection", "1.0.0", "O(1)", "Answers what it was given."),
    Command::new("exists", -2, Handler::Keys(key::exists))
        .flags(&["readonly", "fast"])
        .keys(1, -1, 1, &["RO"])
        .categories(&["@keyspace", "@read", "@fast"])
        .tips(&["request_policy:multi_shard", "response_policy:agg_sum"])
        .docs(
            "generic",
            "1.0.0",
            "O(N)",
            "How many of the keys are present; a key named twice counts twice.",
        ),
    Command::new("expire", -3, Handler::Keys(key::expire))
        .flags(&["write", "fast"])
        .keys(1, 1, 1, &["RW", "update"])
        .categories(&["@keyspace", "@write", "@fast"])
        .docs("generic", "1.0.0", "O(1)", "Gives a key a life in seconds."),
    Command::new("expireat", -3, Handler::Keys(key::expireat))
        .flags(&["write", "fast"])
        .keys(1, 1, 1, &["RW", "update"])
        .categories(&["@keyspace", "@write", "@fast"])
        .docs(
            "generic",
            "1.2.0",
            "O(1)",
            "Gives a key an end of life in Unix seconds.",
        ),
    Command::new("expiretime", 2, Handler::Keys(key::expiretime))
        .flags(&["readonly", "fast"])
        .keys(1, 1, 1, &["RO", "access"])
        .categories(&["@keyspace", "@read", "@fast"])
        .docs(
            "generic",
            "7.0.0",
            "O(1)",
            "The end of life of a key in Unix seconds.",
        ),
    Command::new("flushall", -1, Handler::Keyspace(server::flushall))
        .flags(&["write"])
        .categories(&["@keyspace", "@write", "@slow", "@dangerous"])
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"])
        .docs(
            "server",
            "1.0.0",
            "O(N)",
            "Empties the cache and never the store: the next reads load again.",
        ),
    Command::new("flushdb", -1, Handler::Keyspace(server::flushdb))
        .flags(&["write"])
        .categories(&["@keyspace", "@write", "@slow", "@dangerous"])
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"])
        .docs(
            "server",
            "1.0.0",
            "O(N)",
            "The same as FLUSHALL: empties the cache and never the store.",
        ),
    Command::new("get", 2, Handler::Keys(string::get))
        .flags(&["readonly", "fast"])
        .keys(1, 1, 1, &["RO", "access"])
        .categories(&["@read", "@string", "@fast"])
        .docs("string", "1.0.0", "O(1)", "The value of a key."),
    Command::new("getdel", 2, Handler::Keys(string::getdel))
        .flags(&["write", "fast"])
        .keys(1, 1, 1, &["RW", "access", "delete"])
        .categories(&["@write", "@string", "@fast"])
        .docs(
            "string",
            "6.2.0",
            "O(1)",
            "The value of a key, which is deleted.",
        ),
    Command::new("getex", -2, Handler::Keys(string::getex))
        .flags(&["write", "fast"])
        .keys(1, 1, 1, &["RW", "access", "update"])
        .categories(&["@write", "@string", "@fast"])
        .docs(
            "string",
            "6.2.0",
            "O(1)",
            "The value of a key, whose end of life may be changed.",
        ),
    Command::new("getset", 3, Handler::Keys(string::getset))
        .flags(&["write", "denyoom", "fast"])
        .keys(1, 1, 1, &["RW", "access", "update"])
        .categories(&["@write", "@string", "@fast"])
        .docs(
            "string",
            "1.0.0",
            "O(1)",
            "Sets a key and answers its old value.",
        ),
    Command::new("hello", -1, Handler::Session(connection::hello))
        .flags(&[
            "noscript",
            "loading",
            "stale",
            "fast",
            "no_auth",
            "allow_busy",
        ])
        .categories(&["@fast", "@connection"])
        .docs(
            "connection",
            "6.0.0",
            "O(1)",
            "Chooses the protocol and describes the server.",
        ),
    Command::new("incr", 2, Handler::Keys(counter::incr))
        .flags(&["write", "denyoom", "fast"])
        .keys(1, 1, 1, &["RW", "access", "update"])
        .categories(&["@write", "@string", "@fast"])
        .docs(
            "string",
            "1.0.0",
            "O(1)",
            "Adds one to the number a key holds.",
        ),
    Command::new("incrby", 3, Handler::Keys(counter::incrby))
        .flags(&["write", "denyoom", "fast"])
        .keys(1, 1, 1, &["RW", "access", "update"])
        .categories(&["@write", "@string", "@fast"])
        .docs("string", "1.0.0", "O(1)", "Adds to the number a key holds."),
    Command::new("incrbyfloat", 3, Handler::Keys(counter::incrbyfloat))
        .flags(&["write", "denyoom", "fast"])
        .keys(1, 1, 1, &["RW", "access", "update"])
        .categories(&["@write", "@string", "@fast"])
        .docs(
            "string",
            "2.6.0",
            "O(1)",
            "Adds to the floating-point number a key holds.",
        ),
    Command::new("info", -1, Handler::Keyspace(server::info))
        .flags(&["loading", "stale"])
        .categories(&["@slow", "@dangerous"])
        .tips(&[
            "nondeterministic_output",
            "request_policy:all_shards",
            "response_policy:special",
        ])
        .docs(
            "server",
            "1.0.0",
            "O(1)",
            "Figures of the server, by sections.",
        ),
    Command::new("mget", -2, Handler::Keys(string::mget))
        .flags(&["readonly", "fast"])
        .keys(1, -1, 1, &["RO", "access"])
        .categories(&["@read", "@string", "@fast"])
        .tips(&["request_policy:multi_shard"])
        .docs("string", "1.0.0", "O(N)", "The values of many keys."),
    Command::new("mset", -3, Handler::Keys(string::mset))
        .flags(&["write", "denyoom"])
        .keys(1, -1, 2, &["OW", "update"])
        .categories(&["@write", "@string", "@slow"])
        .tips(&[
            "request_policy:multi_shard",
            "response_policy:all_succeeded",
        ])
        .docs(
            "string",
            "1.0.1",
            "O(N)",
            "Sets many keys; not atomic across keys.",
        ),
    Command::new("persist", 2, Handler::Keys(key::persist))
        .flags(&["write", "fast"])
        .keys(1, 1, 1, &["RW", "update"])
        .categories(&["@keyspace", "@write", "@fast"])
        .docs(
            "generic",
            "2.2.0",
            "O(1)",
            "Takes the end of life from a key.",
        ),
    Command::new("pexpire", -3, Handler::Keys(key::pexpire))
        .flags(&["write", "fast"])
        .keys(1, 1, 1, &["RW", "update"])
        .categories(&["@keyspace", "@write", "@fast"])
        .docs(
            "generic",
            "2.6.0",
            "O(1)",
            "Gives a key a life in milliseconds.",
        ),
    Command::new("pexpireat", -3, Handler::Keys(key::pexpireat))
        .flags(&["write", "fast"])
        .keys(1, 1, 1, &["RW", "update"])
        .categories(&["@keyspace", "@write", "@fast"])
        .docs(
            "generic",
            "2.6.0",
            "O(1)",
            "Gives a key an end of life in Unix milliseconds.",
        ),
    Command::new("pexpiretime", 2, Handler::Keys(key::pexpiretime))
        .flags(&["readonly", "fast"])
        .keys(1, 1, 1, &["RO", "access"])
        .categories(&["@keyspace", "@read", "@fast"])
        .docs(
            "generic",
            "7.0.0",
            "O(1)",
            "The end of life of a key in Unix milliseconds.",
        ),
    Command::new("ping", -1, Handler::Session(connection::ping))
        .flags(&["fast"])
        .categories(&["@fast", "@connection"])
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"])
        .docs(
            "connection",
            "1.0.0",
            "O(1)",
            "Answers PONG, or what it was given.",
        ),
    Command::new("psetex", 4, Handler::Keys(string::psetex))
        .flags(&["write", "denyoom"])
        .keys(1, 1, 1, &["OW", "update"])
        .categories(&["@write", "@string", "@slow"])
        .docs(
            "string",
            "2.6.0",
            "O(1)",
            "Sets a key with a life in milliseconds.",
        ),
    Command::new("pttl", 2, Handler::Keys(key::pttl))
        .flags(&["readonly", "fast"])
        .keys(1, 1, 1, &["RO", "access"])
        .categories(&["@keyspace", "@read", "@fast"])
        .tips(&["nondeterministic_output"])
        .docs(
            "generic",
            "2.6.0",
            "O(1)",
            "The life left to a key in milliseconds.",
        ),
    Command::new("quit", -1, Handler::Session(connection::quit))
        .flags(&[
            "noscript",
            "loading",
            "stale",
            "fast",
            "no_auth",
            "allow_busy",
        ])
        .categories(&["@fast", "@connection"])
        .docs(
            "connection",
            "1.0.0",
            "O(1)",
            "Answers OK and closes the connection.",
        ),
    Command::new("reset", 1, Handler::Session(connection::reset))
        .flags(&[
            "noscript",
            "loading",
            "stale",
            "fast",
            "no_auth",
            "allow_busy",
        ])
        .categories(&["@fast", "@connection"])
        .docs(
            "connection",
            "6.2.0",
            "O(1)",
            "Brings the connection back to its first state.",
        ),
    Command::new("scan", -2, Handler::Keyspace(scan::scan))
        .flags(&["readonly"])
        .categories(&["@keyspace", "@read", "@slow"])
        .tips(&["nondeterministic_output", "request_policy:special"])
        .docs(
            "generic",
            "2.8.0",
            "O(1) for every call",
            "Walks the keys in steps.",
        ),
    Command::new("select", 2, Handler::Session(connection::select))
        .flags(&["loading", "stale", "fast"])
        .categories(&["@fast", "@connection"])
        .docs(
            "connection",
            "1.0.0",
            "O(1)",
            "There is one keyspace: 0 is taken, other numbers are refused.",
        ),
    Command::new("set", -3, Handler::Keys(string::set))
        .flags(&["write", "denyoom"])
        .keys(1, 1, 1, &["RW", "access", "update", "variable_flags"])
        .categories(&["@write", "@string", "@slow"])
        .docs(
            "string",
            "1.0.0",
            "O(1)",
            "Sets a key; EX, PX, EXAT and PXAT give the life of the data, kept in the store.",
        ),
    Command::new("setex", 4, Handler::Keys(string::setex))
        .flags(&["write", "denyoom"])
        .keys(1, 1, 1, &["OW", "update"])
        .categories(&["@write", "@string", "@slow"])
        .docs(
            "string",
            "2.0.0",
            "O(1)",
            "Sets a key with a life in seconds.",
        ),
    Command::new("setnx", 3, Handler::Keys(string::setnx))
        .flags(&["write", "denyoom", "fast"])
        .keys(1, 1, 1, &["OW", "insert"])
        .categories(&["@write", "@string", "@fast"])
        .docs(
            "string",
            "1.0.0",
            "O(1)",
            "Sets a key unless it is present.",
        ),
    Command::new("strlen", 2, Handler::Keys(string::strlen))
        .flags(&["readonly", "fast"])
        .keys(1, 1, 1, &["RO"])
        .categories(&["@read", "@string", "@fast"])
        .docs("string", "2.2.0", "O(1)", "The length of a value in bytes."),
    Command::new("tidegate", -2, Handler::Session(connection::container))
        .flags(&[])
        .categories(&["@slow"])
        .docs("tidegate", "0.1.0", "O(1)", "What only this server has.")
        .subcommands(tidegate::SUBCOMMANDS),
    Command::new("time", 1, Handler::Session(server::time))
        .flags(&["loading", "stale", "fast"])
        .categories(&["@fast"])
        .tips(&["nondeterministic_output"])
        .docs(
            "server",
            "2.6.0",
            "O(1)",
            "The time of the server in seconds and microseconds.",
        ),
    Command::new("touch", -2, Handler::Keys(key::touch))
        .flags(&["readonly", "fast"])
        .keys(1, -1, 1, &["RO"])
        .categories(&["@keyspace", "@read", "@fast"])
        .tips(&["request_policy:multi_shard", "response_policy:agg_sum"])
        .docs(
            "generic",
            "3.2.1",
            "O(N)",
            "How many of the keys are present.",
        ),
    Command::new("ttl", 2, Handler::Keys(key::ttl))
        .flags(&["readonly", "fast"])
        .keys(1, 1, 1, &["RO", "access"])
        .categories(&["@keyspace", "@read", "@fast"])
        .tips(&["nondeterministic_output"])
        .docs(
            "generic",
            "1.0.0",
            "O(1)",
            "The life left to a key in seconds.",
        ),
    Command::new("type", 2, Handler::Keys(key::type_of))
        .flags(&["readonly", "fast"])
        .keys(1, 1, 1, &["RO"])
        .categories(&["@keyspace", "@read", "@fast"])
        .docs(
            "generic",
            "1.0.0",
            "O(1)",
            "The type of a value: string or none.",
        ),
    Command::new("unlink", -2, Handler::Keys(key::unlink))
        .flags(&["write", "fast"])
        .keys(1, -1, 1, &["RM", "delete"])
        .categories(&["@keyspace", "@write", "@fast"])
        .tips(&["request_policy:multi_shard", "response_policy:agg_sum"])
        .docs(
            "generic",
            "4.0.0",
            "O(1) for each key removed regardless of its size",
            "The same as DEL.",
        ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_in_order_and_complete() {
        let sets = COMMANDS.iter().map(|row| row.subcommands).chain([COMMANDS]);
        for rows in sets {
            assert!(rows.is_sorted_by(|a, b| a.name < b.name));
            for row in rows {
                assert!(
                    row.arity != 0 && !row.summary.is_empty() && !row.group.is_empty(),
                    "{}",
                    row.name
                );
                assert_eq!(row.name, row.name.to_lowercase());
            }
        }
    }

    #[test]
    fn names_are_found_in_any_case() {
        assert_eq!(find(b"GeT").map(|row| row.name), Some("get"));
        assert!(find(b"gets").is_none());
        assert!(find(b"").is_none());
    }
}
