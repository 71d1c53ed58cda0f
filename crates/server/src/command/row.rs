//! One row of the command table: all that is known of a command besides what it does.

use std::future::Future;
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::sync::Arc;

use tidegate_resp::{Reply, Request};

use super::session::Session;
use crate::server::Server;

/// A command that goes on after it was prepared. Owns what it needs; dropping it never loses a write that began.
pub(crate) type Work = Pin<Box<dyn Future<Output = Reply> + Send>>;

/// What a command does to its keys, which decides what it must wait for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Access {
    /// Looks only: may run beside other reads of the key.
    Read,
    /// Writes without a look and answers without one: may follow another such write at once, since the gate
    /// applies writes of a key in the order in which they were begun.
    Overwrite,
    /// Depends on what is there: runs alone on its keys.
    Change,
}

/// A command on keys, its arguments understood.
pub(crate) struct Prepared {
    pub(crate) access: Access,
    pub(crate) work: Work,
}

impl Prepared {
    pub(crate) fn read(work: impl Future<Output = Reply> + Send + 'static) -> Self {
        Self {
            access: Access::Read,
            work: Box::pin(work),
        }
    }

    pub(crate) fn overwrite(work: impl Future<Output = Reply> + Send + 'static) -> Self {
        Self {
            access: Access::Overwrite,
            work: Box::pin(work),
        }
    }

    pub(crate) fn change(work: impl Future<Output = Reply> + Send + 'static) -> Self {
        Self {
            access: Access::Change,
            work: Box::pin(work),
        }
    }
}

/// How a command is run. A refused argument is answered by the `Err` and has changed nothing.
#[derive(Clone, Copy)]
pub(crate) enum Handler {
    /// Answers at once and may change the connection; touches no key.
    Session(fn(&mut Session, &Request) -> Reply),
    /// Works on the keys named by its row, in order with the connection's other commands on them.
    Keys(fn(&Arc<Server>, &Request) -> Result<Prepared, Reply>),
    /// Concerns all keys: waits for all earlier commands of the connection, and the later ones wait for it.
    Keyspace(fn(&Arc<Server>, &Request) -> Result<Work, Reply>),
}

/// Where the keys are among the arguments; the command's name is argument 0.
#[derive(Clone, Copy)]
pub(crate) struct Keys {
    /// The first key; 0 for none.
    pub(crate) first: usize,
    /// The last one; counted from the end if negative.
    pub(crate) last: isize,
    /// From one key to the next.
    pub(crate) step: usize,
    /// What is done to them, in the words of `COMMAND INFO`.
    pub(crate) flags: &'static [&'static str],
}

/// A command or subcommand.
pub(crate) struct Command {
    pub(crate) name: &'static str,
    /// Arguments with the name; if negative, at least so many. For a subcommand, the container's name counts.
    pub(crate) arity: i32,
    pub(crate) handler: Handler,
    pub(crate) flags: &'static [&'static str],
    pub(crate) keys: Keys,
    pub(crate) categories: &'static [&'static str],
    pub(crate) tips: &'static [&'static str],
    pub(crate) group: &'static str,
    pub(crate) since: &'static str,
    pub(crate) complexity: &'static str,
    pub(crate) summary: &'static str,
    /// The arguments as the help shows them, where it does.
    pub(crate) syntax: &'static str,
    pub(crate) subcommands: &'static [Self],
}

impl Command {
    pub(crate) const fn new(name: &'static str, arity: i32, handler: Handler) -> Self {
        Self {
            name,
            arity,
            handler,
            flags: &[],
            keys: Keys {
                first: 0,
                last: 0,
                step: 0,
                flags: &[],
            },
            categories: &[],
            tips: &[],
            group: "",
            since: "",
            complexity: "",
            summary: "",
            syntax: "",
            subcommands: &[],
        }
    }

    pub(crate) const fn flags(mut self, flags: &'static [&'static str]) -> Self {
        self.flags = flags;
        self
    }

    pub(crate) const fn keys(
        mut self,
        first: usize,
        last: isize,
        step: usize,
        flags: &'static [&'static str],
    ) -> Self {
        self.keys = Keys {
            first,
            last,
            step,
            flags,
        };
        self
    }

    pub(crate) const fn categories(mut self, categories: &'static [&'static str]) -> Self {
        self.categories = categories;
        self
    }

    pub(crate) const fn tips(mut self, tips: &'static [&'static str]) -> Self {
        self.tips = tips;
        self
    }

    pub(crate) const fn docs(
        mut self,
        group: &'static str,
        since: &'static str,
        complexity: &'static str,
        summary: &'static str,
    ) -> Self {
        self.group = group;
        self.since = since;
        self.complexity = complexity;
        self.summary = summary;
        self
    }

    pub(crate) const fn syntax(mut self, syntax: &'static str) -> Self {
        self.syntax = syntax;
        self
    }

    pub(crate) const fn subcommands(mut self, subcommands: &'static [Self]) -> Self {
        self.subcommands = subcommands;
        self
    }

    /// Whether so many arguments are right.
    pub(crate) fn takes(&self, arguments: usize) -> bool {
        let least = usize::try_from(self.arity.unsigned_abs()).unwrap_or(usize::MAX);
        if self.arity < 0 {
            arguments >= least
        } else {
            arguments == least
        }
    }

    /// The places of the keys in a request of so many arguments.
    pub(crate) fn key_places(&self, arguments: usize) -> std::iter::StepBy<RangeInclusive<usize>> {
        let last = if self.keys.last < 0 {
            arguments.checked_add_signed(self.keys.last).unwrap_or(0)
        } else {
            self.keys.last.unsigned_abs().min(arguments - 1)
        };
        // A range that ends before it begins is empty; so it is for a command without keys.
        let first = if self.keys.first == 0 {
            last + 1
        } else {
            self.keys.first
        };
        (first..=last).step_by(self.keys.step.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::find;

    fn places(name: &str, arguments: usize) -> Vec<usize> {
        find(name.as_bytes())
            .unwrap()
            .key_places(arguments)
            .collect()
    }

    #[test]
    fn keys_are_where_the_row_says() {
        assert_eq!(places("get", 2), [1]);
        assert_eq!(places("set", 5), [1]);
        assert_eq!(places("mget", 4), [1, 2, 3]);
        assert_eq!(places("mset", 5), [1, 3]);
        assert_eq!(places("ping", 1), [0_usize; 0]);
        assert_eq!(places("ping", 2), [0_usize; 0]);
        let tidegate = find(b"tidegate").unwrap().subcommands;
        let class = tidegate.iter().find(|sub| sub.name == "class").unwrap();
        assert_eq!(class.key_places(2).count(), 0);
        assert_eq!(class.key_places(3).collect::<Vec<_>>(), [2]);
    }
}
