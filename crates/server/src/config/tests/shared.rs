//! What `[shared]` means, and what is refused in it.

use std::time::Duration;

use tidegate::Level;

use super::{load_text, problems};

/// The problems of a table `[shared]` with these keys; the first of them is in line 4.
fn shared_problems(keys: &str) -> Vec<String> {
    problems(&format!(
        "[store]\nurl = \"postgres://h/db\"\n[shared]\n{keys}"
    ))
}

#[test]
fn contradictions_in_the_shared_cache_are_refused_with_key_and_line() {
    for (keys, expected) in [
        ("prefix = \"tg\"", "3 shared.url"),
        ("url = \"127.0.0.1:6379\"", "4 shared.url"),
        ("url = \"rediss://h\"", "4 shared.url"),
        ("url = []", "4 shared.url"),
        ("url = [\"redis://h\", 5]", "4 shared.url"),
        ("url = [\"redis://h/1\", \"redis://h\"]", "4 shared.url"),
        ("url_env = \"NOT_SET\"", "4 shared.url_env"),
        (
            "url = \"redis://h\"\nurl_env = \"SHARED_URL\"",
            "5 shared.url_env",
        ),
    ] {
        assert_eq!(shared_problems(keys), [expected], "{keys}");
    }
    for (keys, expected) in [
        ("password_env = \"NOT_SET\"", "5 shared.password_env"),
        (
            "password_file = \"/nonexistent/secret\"",
            "5 shared.password_file",
        ),
        ("password_file = \"/dev/null\"", "5 shared.password_file"),
        ("prefix = \"\"", "5 shared.prefix"),
        ("prefix = \"t g\"", "5 shared.prefix"),
        ("prefix = \"{tg}\"", "5 shared.prefix"),
        ("prefix = \"tä\"", "5 shared.prefix"),
        ("shards = 0", "5 shared.shards"),
        ("shards = 16385", "5 shared.shards"),
        ("shards = 99999999", "5 shared.shards"),
        ("replicas = 17", "5 shared.replicas"),
        ("lease = \"0s\"", "5 shared.lease"),
        ("mark_timeout = \"2m\"", "5 shared.mark_timeout"),
        ("mark_timeout = \"1s\"", "5 shared.mark_timeout"),
        ("response_timeout = \"2s\"", "5 shared.response_timeout"),
        ("response_timeout = \"1ms\"", "5 shared.response_timeout"),
        ("connect_timeout = \"0s\"", "5 shared.connect_timeout"),
        ("sharts = 5", "5 shared.sharts"),
    ] {
        let keys = format!("url = \"redis://h\"\n{keys}");
        assert_eq!(shared_problems(&keys), [expected], "{keys}");
    }
    let two = "url = \"redis://u:one@h\"\npassword_env = \"SHARED_PASSWORD\"";
    assert_eq!(shared_problems(two), ["5 shared.password_env"]);
}

#[test]
fn the_password_of_the_shared_cache_is_taken_from_where_it_is_kept_and_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, "top secret\n").unwrap();
    let shared = |keys: &str| {
        let text = format!("[store]\nurl = \"postgres://h/db\"\n[shared]\n{keys}");
        let config = load_text(&text).unwrap();
        assert!(!format!("{config:?}").contains("secret"), "{config:?}");
        let shared = config.shared.unwrap();
        assert!(!shared.place().contains("secret"), "{}", shared.place());
        let urls = shared.urls.iter().map(|url| url.reveal().to_owned());
        urls.collect::<Vec<_>>()
    };
    let wanted = ["redis://:top%20secret@h:6379"];
    assert_eq!(
        shared("url = \"redis://h:6379\"\npassword_env = \"SHARED_PASSWORD\""),
        wanted
    );
    let keys = format!(
        "url = \"redis://h:6379\"\npassword_file = '{}'",
        file.display()
    );
    assert_eq!(shared(&keys), wanted);
    assert_eq!(
        shared("url_env = \"SHARED_URL\""),
        ["redis://a:1", "redis://u:secret@b:2"]
    );
}

/// The problems of a class of strategy write-through under a shared cache; the first of its keys is in line 8.
fn class_problems(keys: &str) -> Vec<String> {
    shared_problems(&format!(
        "url = \"redis://h\"\n[[class]]\nname = \"a\"\nkeys = \"a:*\"\n{keys}"
    ))
}

#[test]
fn contradictions_of_a_class_with_the_shared_cache_are_refused_with_key_and_line() {
    for (keys, expected) in [
        ("level = \"strong\"", "8 class[1].level"),
        ("level = \"bounded(0s)\"", "8 class[1].level"),
        ("level = \"bounded\"", "8 class[1].level"),
        ("level = \"eventual\"", "8 class[1].level"),
        (
            "strategy = \"cache-only\"\nlevel = \"session\"",
            "9 class[1].level",
        ),
        (
            "strategy = \"write-back\"\ndelta = true",
            "9 class[1].delta",
        ),
    ] {
        assert_eq!(class_problems(keys), [expected], "{keys}");
    }
    let redis =
        "strategy = \"write-back\"\ndurability = \"redis\"\nwhen_journal_fails = \"refuse\"";
    assert_eq!(class_problems(redis), ["10 class[1].when_journal_fails"]);
    for (keys, expected) in [
        ("level = \"linearizable\"", "4 class[1].level"),
        ("outbox = true", "4 class[1].outbox"),
        (
            "strategy = \"write-back\"\ndurability = \"redis\"",
            "5 class[1].durability",
        ),
        (
            "strategy = \"write-back\"\ndurability = \"both\"",
            "5 class[1].durability",
        ),
    ] {
        let alone = format!("[[class]]\nname = \"a\"\nkeys = \"a:*\"\n{keys}");
        assert_eq!(problems(&alone), [expected], "{keys}");
    }
}

#[test]
fn levels_are_taken_as_they_are_written() {
    let text = "[store]\nurl = 'postgres://h/db'\n[shared]\nurl = 'redis://h'\n\
                [[class]]\nname = 'a'\nkeys = 'a:*'\nlevel = 'bounded(200ms)'\n\
                [[class]]\nname = 'b'\nkeys = 'b:*'\nlevel = 'eventual'\nttl = '1m'\n\
                [[class]]\nname = 'c'\nkeys = 'c:*'\n";
    let classes = load_text(text).unwrap().classes;
    let levels: Vec<Level> = classes.iter().map(|class| class.level).collect();
    let bound = Duration::from_millis(200);
    assert_eq!(
        levels,
        [Level::Bounded(bound), Level::Eventual, Level::Linearizable]
    );
}
