//! `tidegate schema`: the SQL on stdout, and nothing is connected to or made.

mod support;

use support::{Folder, run};

#[test]
fn without_a_configuration_it_is_that_of_the_embedded_default() {
    let ended = run(&["schema"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_eq!(ended.stderr, "");
    let wanted = [
        "create table if not exists tidegate_meta",
        "create table if not exists \"entries\"",
        "-- Raises the version",
    ];
    for wanted in wanted {
        assert!(ended.stdout.contains(wanted), "{wanted}: {}", ended.stdout);
    }
}

#[test]
fn of_postgres_it_has_every_table_once_and_what_to_grant() {
    let folder = Folder::new();
    let path = folder.write(
        "tidegate.toml",
        "
        [store]
        url = 'postgres://shop:secret@nowhere.invalid/shop'
        [[class]]
        name = 'session'
        keys = 'session:*'
        [[class]]
        name = 'login'
        keys = 'login:*'
        table = 'session'
        [[class]]
        name = 'scratch'
        keys = 'scratch:*'
        strategy = 'cache-only'
        [[class]]
        name = 'theirs'
        keys = 'theirs:*'
        table = 'app.theirs'
        create_table = false
        trigger = true
        ",
    );
    let path = path.display().to_string();
    let ended = run(&["schema", "--config", &path, "--schema", "tide"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_eq!(ended.stderr, "");
    let times = |part: &str| ended.stdout.matches(part).count();
    assert_eq!(times("create table \"tide\".\"session\""), 1);
    assert_eq!(times("create table \"tide\".\"entries\""), 1);
    assert_eq!(times("create table \"app\""), 0);
    assert_eq!(
        times("create trigger tidegate_raise before update on \"app\".\"theirs\""),
        1
    );
    assert_eq!(
        times("-- grant select, insert, update, delete on \"app\".\"theirs\" to tidegate;"),
        1
    );
    assert_eq!(times("scratch"), 0);
    assert_eq!(times("secret"), 0);
}

#[test]
fn what_is_wrong_with_a_configuration_is_said() {
    let folder = Folder::new();
    let path = folder.write("tidegate.toml", "[store]\nurl = 'mysql://u:secret@h/d'");
    let ended = run(&["schema", "--config", &path.display().to_string()]);
    assert_eq!(ended.code, 3, "{ended:?}");
    assert!(!ended.stderr.contains("secret") && !ended.stderr.is_empty());
    assert_eq!(ended.stdout, "");
    let path = folder.write("other.toml", "[store]\nurl = 'postgres://u:secret@h/d'");
    let ended = run(&[
        "schema",
        "--config",
        &path.display().to_string(),
        "--schema",
        "",
    ]);
    assert_eq!(ended.code, 3, "{ended:?}");
}
