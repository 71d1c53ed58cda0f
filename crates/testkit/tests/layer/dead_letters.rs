//! Dead letters: kept with their history, listed, retried, edited, discarded, superseded; never dropped and
//! never written over anything newer.

use tidegate_core::{
    Class, DeadLetterReason, Durability, ErrorKind, Gate, State, Strategy, Version,
};
use tidegate_testkit::sim::JournalFaults;

use crate::hooked::Hooked;
use crate::world::{World, ms, pass, text};

fn back() -> Class {
    Class::new("b", "b:*")
        .strategy(Strategy::WriteBack)
        .linger(ms(50))
}

/// A store that refuses what begins with '!', until it is told otherwise.
fn picky(world: &World) -> Hooked {
    let store = Hooked::new(world.rows.clone());
    store.settings().refused = Some("!");
    store
}

async fn open(world: &World, store: &Hooked, class: Class) -> Gate {
    let builder = world.builder().store(store.clone()).class(class);
    builder.open().await.unwrap()
}

fn keys(gate: &Gate, class: Option<&str>, after: Option<&[u8]>, limit: usize) -> Vec<String> {
    let letters = gate.dead_letters(class, after, limit);
    letters
        .iter()
        .map(|letter| letter.key.to_string())
        .collect()
}

fn assert_audit(gate: &Gate) {
    assert!(gate.audit().is_empty(), "{:?}", gate.audit());
}

#[tokio::test(start_paused = true)]
async fn are_listed_by_key_without_values_and_shown_with_them() {
    let world = World::new();
    let store = picky(&world);
    let other = Class::new("c", "c:*").strategy(Strategy::WriteBack);
    let builder = world.builder().store(store.clone()).class(back());
    let gate = builder.class(other).open().await.unwrap();
    let written = gate.set("b:3", "!three").await.unwrap();
    for key in ["b:1", "c:1", "b:2"] {
        gate.set(key, "!x").await.unwrap();
    }
    gate.set("b:4", "good").await.unwrap();
    gate.flush(ms(10_000)).await.unwrap();
    assert_eq!(keys(&gate, None, None, 10), ["b:1", "b:2", "b:3", "c:1"]);
    assert_eq!(keys(&gate, None, Some(b"b:1"), 2), ["b:2", "b:3"]);
    assert_eq!(keys(&gate, Some("c"), None, 10), ["c:1"]);
    assert!(keys(&gate, Some("nobody"), None, 10).is_empty());
    let listed = gate.dead_letters(Some("b"), Some(b"b:2"), 1).remove(0);
    assert_eq!((listed.value.as_ref(), listed.value_bytes), (None, 6));
    assert!(!format!("{listed:?}").contains("three"));
    let letter = gate.dead_letter(b"b:3").unwrap();
    assert_eq!(letter.value.as_deref(), Some(b"!three".as_slice()));
    assert!(!format!("{letter:?}").contains("three"), "no log has it");
    assert_eq!((letter.class.as_str(), letter.is_delete), ("b", false));
    assert_eq!(letter.version, written.receipt.version);
    assert_eq!(letter.reason, DeadLetterReason::Refused);
    assert_eq!(letter.code.as_deref(), Some("23514"));
    assert!(
        letter.message.contains("well_behaved"),
        "{}",
        letter.message
    );
    assert_eq!((letter.attempts, letter.first_at), (1, letter.last_at));
    assert!(gate.dead_letter(b"b:4").is_none());
    let stats = gate.stats();
    let class = stats
        .classes
        .iter()
        .find(|class| class.name == "b")
        .unwrap();
    assert_eq!((class.parked, class.dirty_entries), (3, 0));
    assert_eq!(class.parked_bytes, class.dirty_bytes);
    assert!(class.parked_bytes > 6);
    assert_audit(&gate);
}

#[tokio::test(start_paused = true)]
async fn are_not_retried_by_a_flush_and_count_their_attempts() {
    let world = World::new();
    let store = picky(&world);
    let gate = open(&world, &store, back()).await;
    gate.set("b:1", "!x").await.unwrap();
    gate.flush(ms(10_000)).await.unwrap();
    let applies = store.settings().applies;
    for _ in 0..3 {
        assert_eq!(gate.flush(ms(10_000)).await.unwrap().parked, 1);
    }
    assert_eq!(store.settings().applies, applies);
    pass(ms(5_000)).await;
    assert!(gate.retry_dead_letter(b"b:1"));
    assert_eq!(gate.flush(ms(10_000)).await.unwrap().parked, 1);
    let letter = gate.dead_letter(b"b:1").unwrap();
    assert_eq!(letter.attempts, 2);
    assert!(letter.last_at.since(letter.first_at) >= ms(5_000));
    // Not being able to reach the store is no attempt.
    store.settings().away = true;
    assert!(gate.retry_dead_letter(b"b:1"));
    assert!(!gate.retry_dead_letter(b"b:1"), "it is on its way");
    pass(ms(60_000)).await;
    assert!(gate.dead_letter(b"b:1").is_none(), "nor while it is tried");
    store.settings().away = false;
    gate.flush(ms(10_000)).await.unwrap();
    assert_eq!(gate.dead_letter(b"b:1").unwrap().attempts, 3);
    assert!(!gate.retry_dead_letter(b"b:none"));
    assert_audit(&gate);
}

#[tokio::test(start_paused = true)]
async fn survive_a_restart_as_what_they_are() {
    for durability in [Durability::Journal, Durability::Memory] {
        let world = World::new();
        let store = picky(&world);
        let class = || back().durability(durability);
        let gate = open(&world, &store, class()).await;
        gate.set("b:1", "!x").await.unwrap();
        gate.delete("b:2").await.unwrap();
        gate.flush(ms(10_000)).await.unwrap();
        gate.retry_dead_letter(b"b:1");
        gate.flush(ms(10_000)).await.unwrap();
        let before = gate.dead_letter(b"b:1").unwrap();
        // No drain: the process is gone.
        drop(gate);
        let applies = store.settings().applies;
        let gate = open(&world, &store, class()).await;
        assert_eq!(gate.dead_letter(b"b:1").unwrap(), before, "{durability:?}");
        pass(ms(10_000)).await;
        assert_eq!(store.settings().applies, applies, "not tried by itself");
        assert_eq!(text(&gate, "b:1").await.as_deref(), Some("!x"));
        assert_eq!(gate.explain(b"b:1").state, State::Parked);
        assert_audit(&gate);
        // A class of durability journal may become one of memory, and so on.
        gate.drain(ms(10_000)).await.unwrap();
        let gate = open(&world, &store, back()).await;
        assert_eq!(gate.dead_letter(b"b:1").unwrap(), before);
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_that_is_taken_keeps_the_version_and_ends_the_letter() {
    let world = World::new();
    let store = picky(&world);
    let gate = open(&world, &store, back()).await;
    for n in 0..5 {
        gate.set(format!("b:{n}"), "!x").await.unwrap();
    }
    gate.flush(ms(10_000)).await.unwrap();
    let version = gate.dead_letter(b"b:1").unwrap().version;
    store.settings().refused = None;
    assert_eq!(gate.retry_dead_letters(Some("nobody")), 0);
    assert!(gate.retry_dead_letter(b"b:1"));
    assert_eq!(gate.flush(ms(10_000)).await.unwrap().parked, 4);
    assert_eq!(world.row("b", "b:1").unwrap().version, version);
    assert_eq!(gate.retry_dead_letters(Some("b")), 4);
    assert!(gate.flush(ms(10_000)).await.unwrap().is_complete());
    assert!(gate.dead_letters(None, None, 10).is_empty());
    assert_eq!(gate.count().await.unwrap(), 5);
    drop(gate);
    let gate = open(&world, &store, back()).await;
    assert!(
        gate.dead_letters(None, None, 10).is_empty(),
        "nor after a restart"
    );
    assert_audit(&gate);
}

#[tokio::test(start_paused = true)]
async fn a_retry_never_overwrites_something_newer() {
    let world = World::new();
    let store = picky(&world);
    let gate = open(&world, &store, back()).await;
    gate.set("b:1", "!x").await.unwrap();
    gate.flush(ms(10_000)).await.unwrap();
    world
        .write_outside_as("b", "b:1", "theirs", 1_760_000_000_000_000_000)
        .await;
    store.settings().refused = None;
    gate.retry_dead_letter(b"b:1");
    assert_eq!(gate.flush(ms(10_000)).await.unwrap().parked, 1);
    assert_eq!(world.value("b", "b:1").as_deref(), Some("theirs"));
    let letter = gate.dead_letter(b"b:1").unwrap();
    assert_eq!(
        (letter.reason, letter.attempts),
        (DeadLetterReason::Conflict, 2)
    );
    assert_audit(&gate);
}

#[tokio::test(start_paused = true)]
async fn the_loser_of_a_conflict_does_not_cover_the_row() {
    let world = World::new();
    world
        .write_outside_as("b", "b:1", "theirs", 1_760_000_000_000_000_000)
        .await;
    let store = picky(&world);
    let gate = open(&world, &store, back()).await;
    gate.set("b:1", "ours").await.unwrap();
    assert_eq!(
        text(&gate, "b:1").await.as_deref(),
        Some("ours"),
        "as long as it is dirty"
    );
    gate.flush(ms(10_000)).await.unwrap();
    let letter = gate.dead_letter(b"b:1").unwrap();
    assert_eq!(letter.reason, DeadLetterReason::Conflict);
    assert_eq!(text(&gate, "b:1").await.as_deref(), Some("theirs"));
    assert_eq!(gate.count().await.unwrap(), 1);
    // Tried again it loses again, and is not seen meanwhile.
    store.settings().costs.0 = ms(100);
    gate.retry_dead_letter(b"b:1");
    pass(ms(50)).await;
    assert_eq!(text(&gate, "b:1").await.as_deref(), Some("theirs"));
    gate.flush(ms(10_000)).await.unwrap();
    assert_eq!(gate.dead_letter(b"b:1").unwrap().attempts, 2);
    // An edit is a new write, over whatever is there.
    gate.edit_dead_letter("b:1", letter.version, "both")
        .await
        .unwrap();
    assert!(gate.flush(ms(10_000)).await.unwrap().is_complete());
    assert_eq!(world.value("b", "b:1").as_deref(), Some("both"));
    assert_audit(&gate);
}

#[tokio::test(start_paused = true)]
async fn an_edit_is_a_new_write_of_the_version_that_was_looked_at() {
    let world = World::new();
    let store = picky(&world);
    let gate = open(&world, &store, back()).await;
    let end = gate.now().after(ms(600_000));
    gate.set_with("b:1", "!x", Some(end)).await.unwrap();
    gate.flush(ms(10_000)).await.unwrap();
    let letter = gate.dead_letter(b"b:1").unwrap();
    let wrong = Version::from_raw(letter.version.raw() + 1);
    for (key, version) in [("b:1", wrong), ("b:2", letter.version)] {
        let error = gate.edit_dead_letter(key, version, "y").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    }
    assert_eq!(gate.dead_letter(b"b:1").as_ref(), Some(&letter));
    let edited = gate
        .edit_dead_letter("b:1", letter.version, "good")
        .await
        .unwrap();
    assert!(edited.receipt.version > letter.version);
    assert!(gate.dead_letter(b"b:1").is_none());
    assert_eq!(text(&gate, "b:1").await.as_deref(), Some("good"));
    assert!(gate.flush(ms(10_000)).await.unwrap().is_complete());
    let row = world.row("b", "b:1").unwrap();
    assert_eq!(
        (row.value.as_ref(), row.expires_at),
        (b"good".as_slice(), Some(end))
    );
    assert_audit(&gate);
}

#[tokio::test(start_paused = true)]
async fn a_discard_needs_the_version_and_is_for_good() {
    for durability in [Durability::Journal, Durability::Memory] {
        let world = World::new();
        world.write_outside("b", "b:1", "row").await;
        let store = picky(&world);
        let class = || back().durability(durability);
        let gate = open(&world, &store, class()).await;
        gate.set("b:1", "!x").await.unwrap();
        gate.set("b:2", "!x").await.unwrap();
        gate.flush(ms(10_000)).await.unwrap();
        let version = gate.dead_letter(b"b:1").unwrap().version;
        let wrong = Version::from_raw(version.raw() + 1_000);
        assert!(!gate.discard_dead_letter("b:1", wrong).await.unwrap());
        assert!(gate.discard_dead_letter("b:1", version).await.unwrap());
        assert!(!gate.discard_dead_letter("b:1", version).await.unwrap());
        assert_eq!(text(&gate, "b:1").await.as_deref(), Some("row"));
        assert_eq!(keys(&gate, None, None, 10), ["b:2"]);
        assert_eq!(gate.stats().classes[0].discarded, 1);
        assert_audit(&gate);
        // The other letter keeps the records of both in the journal.
        drop(gate);
        let gate = open(&world, &store, class()).await;
        assert_eq!(keys(&gate, None, None, 10), ["b:2"], "{durability:?}");
        assert_eq!(text(&gate, "b:1").await.as_deref(), Some("row"));
        assert_audit(&gate);
    }
}

#[tokio::test(start_paused = true)]
async fn a_discard_that_the_journal_does_not_take_leaves_the_letter() {
    let world = World::new();
    let store = picky(&world);
    let gate = open(&world, &store, back()).await;
    gate.set("b:1", "!x").await.unwrap();
    gate.drain(ms(10_000)).await.unwrap();
    let faults = JournalFaults {
        sync_max: ms(1),
        fail: 1.0,
        full: 0.0,
        answers_early: false,
    };
    let builder = world.builder_with(faults).store(store.clone());
    let gate = builder.class(back()).open().await.unwrap();
    let version = gate.dead_letter(b"b:1").unwrap().version;
    let error = gate.discard_dead_letter("b:1", version).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unknown, "{error}");
    assert_eq!(keys(&gate, None, None, 10), ["b:1"]);
    assert_audit(&gate);
}

#[tokio::test(start_paused = true)]
async fn a_newer_write_supersedes_a_letter_also_across_a_restart() {
    let world = World::new();
    let store = picky(&world);
    let gate = open(&world, &store, back()).await;
    gate.set("b:1", "!x").await.unwrap();
    gate.set("b:2", "!x").await.unwrap();
    gate.flush(ms(10_000)).await.unwrap();
    gate.set("b:1", "good").await.unwrap();
    assert_eq!(keys(&gate, None, None, 10), ["b:2"]);
    drop(gate);
    let gate = open(&world, &store, back()).await;
    assert_eq!(keys(&gate, None, None, 10), ["b:2"]);
    assert_eq!(text(&gate, "b:1").await.as_deref(), Some("good"));
    gate.flush(ms(10_000)).await.unwrap();
    assert_eq!(world.value("b", "b:1").as_deref(), Some("good"));
    assert_audit(&gate);
}

#[tokio::test(start_paused = true)]
async fn a_letter_does_not_keep_the_journal_from_shrinking() {
    for durability in [Durability::Journal, Durability::Memory] {
        let world = World::new();
        let store = picky(&world);
        let quick = Class::new("q", "q:*").strategy(Strategy::WriteBack);
        let open = || {
            let builder = world.builder().store(store.clone());
            let builder = builder.class(back().durability(durability));
            builder.class(quick.clone()).open()
        };
        let gate = open().await.unwrap();
        gate.set("b:1", "!x").await.unwrap();
        gate.flush(ms(10_000)).await.unwrap();
        let letter = gate.dead_letter(b"b:1");
        for n in 0..2_000 {
            gate.set(format!("q:{}", n % 20), "v").await.unwrap();
        }
        gate.flush(ms(10_000)).await.unwrap();
        pass(ms(5_000)).await;
        let kept = world.disk.len();
        assert!(kept <= 200, "{kept} records are kept for one");
        assert_audit(&gate);
        drop(gate);
        let gate = open().await.unwrap();
        assert_eq!(gate.dead_letter(b"b:1"), letter, "{durability:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_class_that_is_no_longer_write_back_is_refused_while_it_has_letters() {
    let world = World::new();
    let store = picky(&world);
    let gate = open(&world, &store, back()).await;
    gate.set("b:1", "!x").await.unwrap();
    gate.drain(ms(10_000)).await.unwrap();
    let through = world.builder().store(store.clone());
    let error = through
        .class(Class::new("b", "b:*"))
        .open()
        .await
        .err()
        .unwrap();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(
        error.to_string().contains("dead letter") && error.to_string().contains("'b'"),
        "{error}"
    );
    let gate = open(&world, &store, back()).await;
    let version = gate.dead_letter(b"b:1").unwrap().version;
    assert!(gate.discard_dead_letter("b:1", version).await.unwrap());
    gate.drain(ms(10_000)).await.unwrap();
    let through = world.builder().store(store.clone());
    assert!(through.class(Class::new("b", "b:*")).open().await.is_ok());
}
