//! What `[shared]` means, and what is refused in it.

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
        ("url = [\"redis://h\", \"redis+unix:///s\"]", "4 shared.url"),
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
