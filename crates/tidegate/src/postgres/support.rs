//! The store's own sequence and tables: made if missing, checked in any case.

use tidegate_core::port::StoreError;
use tokio_postgres::Client;

use super::error;
use super::sql::quote;

/// The first number of all advisory locks taken here: "tide" in ASCII.
pub(super) const LOCK_CLASS: i32 = 0x7469_6465;

/// The statements that use the store's own tables, with their schema.
pub(super) struct Support {
    pub(super) sequence: String,
    pub(super) meta: String,
    pub(super) tombstone: String,
    pub(super) session: String,
    pub(super) mark: String,
    pub(super) in_time: String,
    pub(super) node: String,
    pub(super) outbox: String,
    /// The sequence that numbers it.
    pub(super) outbox_numbers: String,
    pub(super) outbox_start: String,
    /// Two functions, by the type of the key.
    pub(super) key: String,
    /// The schema they are all in, quoted.
    pub(super) schema: String,
}

const DDL: &str = include_str!("support.sql");

impl Support {
    /// Finds the tables in the first schema of the search path, and makes them if that is asked.
    pub(super) async fn open(client: &Client, create: bool) -> Result<Self, StoreError> {
        let wrong = |e: tokio_postgres::Error| error::configuration("preparing the database", &e);
        let ask = "select current_schema(), current_setting('server_version_num')::int,
            current_setting('server_encoding'), pg_is_in_recovery()";
        let row = client.query_one(ask, &[]).await.map_err(wrong)?;
        let schema: Option<String> = row.get(0);
        let (version, encoding): (i32, String) = (row.get(1), row.get(2));
        let refuse = |what: String| Err(StoreError::configuration(what));
        if version < 130_000 {
            return refuse(format!(
                "PostgreSQL {version} is too old: 13 or later is needed"
            ));
        }
        if encoding != "UTF8" {
            return refuse(format!(
                "the encoding of the database is {encoding} where UTF8 is needed"
            ));
        }
        if row.get(3) {
            return Err(StoreError::unavailable(
                "the server is a standby and takes no writes",
            ));
        }
        let Some(schema) = schema else {
            return refuse("the search path of the user names no schema that exists".into());
        };
        let support = Self::named(&schema);
        let missing = support.missing(client).await.map_err(wrong)?;
        if !missing.is_empty() {
            if !create {
                return refuse(format!(
                    "schema {schema} has no {}, and making what is missing is turned off",
                    missing.join(", ")
                ));
            }
            let made = client.batch_execute(&support.ddl()).await;
            if made.is_err() {
                let _ = client.batch_execute("rollback").await;
            }
            made.map_err(wrong)?;
        }
        support.check_sequence(client, &schema).await?;
        Ok(support)
    }

    /// The names of all, in this schema.
    pub(super) fn named(schema: &str) -> Self {
        let name = |name: &str| format!("{}.{}", quote(schema), quote(name));
        Self {
            sequence: name("tidegate_version"),
            meta: name("tidegate_meta"),
            tombstone: name("tidegate_tombstone"),
            session: name("tidegate_session"),
            mark: name("tidegate_mark"),
            in_time: name("tidegate_in_time"),
            node: name("tidegate_node"),
            outbox: name("tidegate_outbox"),
            outbox_numbers: name("tidegate_outbox_id_seq"),
            outbox_start: name("tidegate_outbox_start"),
            key: name("tidegate_key"),
            schema: quote(schema),
        }
    }

    /// What makes all of them that are missing.
    pub(super) fn ddl(&self) -> String {
        DDL.replace("{schema}", &self.schema)
            .replace("{lock}", &LOCK_CLASS.to_string())
    }

    /// What is not there, by its name without the schema.
    async fn missing(&self, client: &Client) -> Result<Vec<&'static str>, tokio_postgres::Error> {
        let ask = "select coalesce(to_regclass(u.name)::oid, to_regproc(u.name)::oid,
                to_regprocedure(u.name || '(bytea)')::oid) is null
            from unnest($1::text[]) with ordinality as u (name, n) order by u.n";
        let own = [
            (&self.sequence, "tidegate_version"),
            (&self.meta, "tidegate_meta"),
            (&self.tombstone, "tidegate_tombstone"),
            (&self.session, "tidegate_session"),
            (&self.mark, "tidegate_mark"),
            (&self.in_time, "tidegate_in_time"),
            (&self.node, "tidegate_node"),
            (&self.outbox, "tidegate_outbox"),
            (&self.outbox_start, "tidegate_outbox_start"),
            (&self.key, "tidegate_key"),
        ];
        let names = own.map(|(name, _)| name.as_str());
        let rows = client.query(ask, &[&&names[..]]).await?;
        let missing = own.iter().zip(rows).filter(|(_, row)| row.get(0));
        Ok(missing.map(|((_, name), _)| *name).collect())
    }

    /// A sequence that hands out numbers in blocks, or starts over, would number writes out of order. The order of a
    /// key's versions does not rest on it as long as its row or its deletion is there to count from; but a connection
    /// that holds numbers of a block would give out ones of a generation that is over, and ones that are older than
    /// a deletion which is forgotten by now.
    async fn check_sequence(&self, client: &Client, schema: &str) -> Result<(), StoreError> {
        let ask = "select seqcache = 1, not seqcycle and seqincrement = 1,
            seqtypid = 'bigint'::regtype and seqmax = 9223372036854775807
            from pg_sequence where seqrelid = to_regclass($1)";
        let wrong =
            |e: tokio_postgres::Error| error::configuration("sequence tidegate_version", &e);
        let row = client
            .query_opt(ask, &[&self.sequence])
            .await
            .map_err(wrong)?;
        let refuse = |what: &str, change: &str| {
            Err(StoreError::configuration(format_args!(
                "sequence tidegate_version in schema {schema} {what}: run `alter sequence {} {change}`",
                self.sequence
            )))
        };
        let Some(row) = row else {
            return Err(StoreError::configuration(format_args!(
                "tidegate_version in schema {schema} is not a sequence"
            )));
        };
        match (row.get(0), row.get(1), row.get(2)) {
            (true, true, true) => Ok(()),
            (false, _, _) => refuse("caches numbers; it must be `cache 1`", "cache 1"),
            (_, false, _) => refuse("must rise by one and not cycle", "increment 1 no cycle"),
            (_, _, false) => refuse(
                "must be of bigint without a maximum",
                "as bigint no maxvalue",
            ),
        }
    }
}
