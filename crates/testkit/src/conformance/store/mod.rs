//! What every [`Store`] must do, as named cases.
//!
//! An adapter's author writes one test: a function that makes a [`Subject`] (a store with two fresh, empty
//! tables), handed to [`run`]. It is called once per case, with the name of the case, from which unique table
//! names can be made. The reference, `tidegate_core::memory::MemoryStore`, passes all of it.
//!
//! ```
//! use std::sync::Arc;
//! use tidegate_core::memory::MemoryStore;
//! use tidegate_testkit::conformance::store::{Subject, run};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! run(|_case| async {
//!     let store = MemoryStore::new();
//!     Subject::new(Arc::new(store.clone())).again(Arc::new(store))
//! })
//! .await;
//! # });
//! ```
//!
//! The cases in reading order: rows (what was put is loaded, scanned, counted), versions, guards, flushes
//! (what a write was made over), additions, expiry, races (many writers at once), many nodes
//! (limits of time, horizons, settings agreed on) and model (random batches against the reference).

#![expect(clippy::unwrap_used, reason = "a suite fails by panic, like any test")]

mod additions;
mod expiry;
mod flushes;
mod guards;
mod many_nodes;
mod model;
mod races;
mod rows;
mod scene;
mod versions;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tidegate_core::port::{Store, TableSpec};

use scene::Scene;

/// The keys a table takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keys {
    /// Any bytes.
    Any,
    /// UTF-8 without NUL; others must be refused by a write and be absent for a read.
    Text,
}

/// The values a table takes. Others must be refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Values {
    /// Any bytes.
    Any,
    /// UTF-8 without NUL.
    Text,
    /// JSON, the text kept as written or not.
    Json,
}

/// A store to be tried, with two tables that are empty or not there yet.
pub struct Subject {
    store: Arc<dyn Store>,
    again: Option<Arc<dyn Store>>,
    table: TableSpec,
    other: TableSpec,
    keys: Keys,
    values: Values,
}

impl Subject {
    /// A store with the tables `kv` and `kv_other`, taking any keys and values.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            again: None,
            table: TableSpec::named("kv"),
            other: TableSpec::named("kv_other"),
            keys: Keys::Any,
            values: Values::Any,
        }
    }

    /// Another opening of the same database, as another process would have it.
    #[must_use]
    pub fn again(mut self, store: Arc<dyn Store>) -> Self {
        self.again = Some(store);
        self
    }

    /// Other tables than the default ones. Both take the same keys and values.
    #[must_use]
    pub fn tables(mut self, table: TableSpec, other: TableSpec) -> Self {
        (self.table, self.other) = (table, other);
        self
    }

    /// What the tables take.
    #[must_use]
    pub fn takes(mut self, keys: Keys, values: Values) -> Self {
        (self.keys, self.values) = (keys, values);
        self
    }
}

type Run = fn(Scene) -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// One thing that every store must do.
#[derive(Clone, Copy)]
pub struct Case {
    /// What it is, as an identifier.
    pub name: &'static str,
    run: Run,
}

impl Case {
    /// Tries one store.
    ///
    /// # Panics
    /// If the store does not do it.
    pub async fn check(self, subject: Subject) {
        let named = OnPanic(self.name);
        (self.run)(Scene::open(subject).await).await;
        drop(named);
    }
}

/// All cases.
#[must_use]
pub fn cases() -> Vec<Case> {
    [
        rows::CASES,
        versions::CASES,
        guards::CASES,
        flushes::CASES,
        additions::CASES,
        expiry::CASES,
        races::CASES,
        many_nodes::CASES,
        model::CASES,
    ]
    .concat()
}

/// Runs all cases, each on a subject of its own. Best on a runtime with several threads: some cases race.
///
/// # Panics
/// If a case fails; the name of the case is printed.
pub async fn run<F, M>(make: M)
where
    M: Fn(&'static str) -> F,
    F: Future<Output = Subject>,
{
    for case in cases() {
        case.check(make(case.name).await).await;
    }
}

/// Says which case it was, since a panic only says where.
struct OnPanic(&'static str);

impl Drop for OnPanic {
    #[expect(clippy::print_stderr, reason = "this is the output of a failing test")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("store conformance: the case `{}` failed", self.0);
        }
    }
}

/// A table of cases out of async functions over a scene.
macro_rules! case_table {
    ($($name:ident),* $(,)?) => {
        /// The cases of this file.
        pub(super) const CASES: &[super::Case] = &[$(super::Case {
            name: stringify!($name),
            run: |scene| Box::pin($name(scene)),
        }),*];
    };
}
use case_table;
