//! A row that somebody else changes in SQL while a write of its key waits for the store: what the class says, happens.

#![expect(clippy::unwrap_used, reason = "a test that meets an error has failed")]

mod support;

use support::{Client, Folder, bulk, error_text, field, integer, ok};
use tidegate_resp::Reply;
use tidegate_testkit::servers::Postgres;

const CLASSES: &str = "
    [journal]
    segment = '256KiB'
    [[class]]
    name = 'store'
    keys = 'store:*'
    strategy = 'write-back'
    linger = '1h'
    [[class]]
    name = 'cache'
    keys = 'cache:*'
    strategy = 'write-back'
    linger = '1h'
    conflict = 'cache-wins'
    [[class]]
    name = 'count'
    keys = 'count:*'
    strategy = 'write-back'
    linger = '1h'
    delta = true
";

/// A flush of everything; how many dead letters there are.
fn flush(client: &mut Client) -> Reply {
    let report = client.ask("TIDEGATE FLUSH TIMEOUT 20000");
    assert_eq!(field(&report, "left"), integer(0));
    field(&report, "parked")
}

/// The same over every store: `sql` runs a statement and returns what it answers.
fn the_class_decides(folder: &Folder, store: &str, sql: &dyn Fn(&str) -> String) {
    let config = format!("[store]\nurl = '{store}'\n{CLASSES}");
    let server = folder.serve_config(&config);
    let mut client = server.connect();
    for class in ["store", "cache", "count"] {
        client.expect(&format!("SET {class}:1 5"), ok());
    }
    assert_eq!(flush(&mut client), integer(0));
    // Written here over what is there, and changed there before this arrives.
    client.expect("SET store:1 mine", ok());
    client.expect("SET cache:1 mine", ok());
    client.expect("INCRBY count:1 2", integer(7));
    sql("update store set value = 'theirs' where key = 'store:1'");
    sql("update cache set value = 'theirs' where key = 'cache:1'");
    sql("update count set value = '105' where key = 'count:1'");
    assert_eq!(flush(&mut client), integer(1));

    let letter = client.ask("TIDEGATE DEADLETTERS SHOW store:1 VALUE");
    assert_eq!(field(&letter, "reason"), bulk("conflict"));
    assert_eq!(field(&letter, "value"), bulk("mine"));
    client.expect("GET store:1", bulk("theirs"));
    assert_eq!(
        sql("select value from store where key = 'store:1'"),
        "theirs"
    );
    client.expect("GET cache:1", bulk("mine"));
    assert_eq!(sql("select value from cache where key = 'cache:1'"), "mine");
    client.expect("GET count:1", bulk("107"));
    assert_eq!(sql("select value from count where key = 'count:1'"), "107");

    // It is a conflict after a restart too, and a retry does not go over what is newer.
    assert_eq!(server.terminate(), 6);
    let server = folder.serve_config(&config);
    let mut client = server.connect();
    client.expect("GET store:1", bulk("theirs"));
    client.expect("TIDEGATE DEADLETTERS RETRY store:1", integer(1));
    let told = error_text(&client.ask("TIDEGATE FLUSH store:1 TIMEOUT 20000"));
    assert!(told.starts_with("REFUSED "), "{told}");
    client.expect("GET store:1", bulk("theirs"));
    // A person who has looked at both decides.
    let letter = client.ask("TIDEGATE DEADLETTERS SHOW store:1");
    let Reply::Bulk(version) = field(&letter, "version") else {
        panic!("{letter:?}");
    };
    let version = String::from_utf8(version.to_vec()).unwrap();
    client.expect(
        &format!("TIDEGATE DEADLETTERS EDIT store:1 {version} both"),
        ok(),
    );
    assert_eq!(flush(&mut client), integer(0));
    assert_eq!(sql("select value from store where key = 'store:1'"), "both");
    assert_eq!(server.terminate(), 0);
}

#[test]
fn the_class_decides_over_sqlite() {
    let folder = Folder::new();
    let file = folder.data().join("store.db");
    let sql = |statement: &str| {
        let database = rusqlite::Connection::open(&file).unwrap();
        database.busy_timeout(support::PATIENCE).unwrap();
        let mut statement = database.prepare(statement).unwrap();
        let mut rows = statement.query([]).unwrap();
        let row = rows.next().unwrap();
        row.map_or(String::new(), |row| row.get(0).unwrap())
    };
    the_class_decides(&folder, "sqlite:store.db", &sql);
}

#[test]
fn the_class_decides_over_postgresql() {
    let postgres = Postgres::shared();
    let database = postgres.fresh_database();
    let sql = |statement: &str| postgres.sql(&database, statement);
    the_class_decides(&Folder::new(), &postgres.url(&database), &sql);
}
