//! Records read as they were written, and what is none is refused.

use proptest::prelude::*;

use super::*;

fn refusal() -> impl Strategy<Value = Refusal> {
    let reason = prop_oneof![
        Just(DeadLetterReason::Refused),
        Just(DeadLetterReason::Conflict)
    ];
    (
        reason,
        prop::option::of("[0-9A-Z]{5}"),
        "\\PC{0,60}",
        1..u32::MAX,
        any::<u32>(),
        any::<u32>(),
    )
        .prop_map(|(reason, code, message, attempts, first, last)| Refusal {
            reason,
            code: code.map(Into::into),
            message: message.into(),
            attempts,
            first_at: Timestamp::from_millis(first.into()),
            last_at: Timestamp::from_millis(last.into()),
        })
}

fn change() -> impl Strategy<Value = Change> {
    let value = prop::collection::vec(any::<u8>(), 0..200);
    let expires_at = prop::option::of((1..u64::MAX).prop_map(Timestamp::from_millis));
    prop_oneof![
        Just(Change::Delete),
        (value, expires_at).prop_map(|(value, expires_at)| Change::Put {
            value: value.into(),
            expires_at,
        }),
    ]
}

proptest! {
    #[test]
    fn a_record_reads_as_it_was_written(
        class in "[a-z]{1,20}",
        key in prop::collection::vec(any::<u8>(), 0..100),
        version in 0..i64::MAX as u64,
        base in prop::option::of(0..i64::MAX as u64),
        change in change(),
        added in prop::option::of((any::<i64>(), any::<u64>())),
        refusal in prop::option::of(refusal()),
    ) {
        let key = Key::copy_from(&key);
        let version = Version::from_raw(version);
        let base = base.map(Version::from_raw).filter(|base| *base > Version::NONE);
        let added = added.map(|(by, since)| (by, Version::from_raw(since)));
        let added = added.filter(|_| change != Change::Delete);
        let bytes = encode(Written {
            class: &class,
            key: &key,
            version,
            base,
            change: &change,
            added,
            refusal: refusal.as_ref(),
        });
        let record = Record::decode(bytes);
        let written = Record::Write(WriteRecord { class, key, version, base, change, added, refusal });
        prop_assert_eq!(record, Some(written));
    }

    #[test]
    fn a_checkpoint_and_a_discard_read_as_they_were_written(
        place: u64,
        key in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let bytes = Record::encode_checkpoint(Lsn(place));
        prop_assert_eq!(Record::decode(bytes), Some(Record::Checkpoint(Lsn(place))));
        let (key, version) = (Key::copy_from(&key), Version::from_raw(place));
        let bytes = Record::encode_discarded(&key, version);
        prop_assert_eq!(Record::decode(bytes), Some(Record::Discarded(key, version)));
    }

    #[test]
    fn hostile_bytes_are_no_record_and_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        let _ = Record::decode(bytes.into());
    }
}

#[test]
fn records_of_the_first_format_are_still_read() {
    let mut put = vec![1, 1];
    put.extend(7_u64.to_le_bytes());
    put.extend(9_u64.to_le_bytes());
    put.extend(b"\x01\0b\x03\0\0\0b:1value");
    let written = Record::Write(WriteRecord {
        class: "b".into(),
        key: Key::from("b:1"),
        version: Version::from_raw(7),
        base: None,
        added: None,
        change: Change::Put {
            value: Bytes::from_static(b"value"),
            expires_at: Some(Timestamp::from_millis(9)),
        },
        refusal: None,
    });
    assert_eq!(Record::decode(put.into()), Some(written));
    let mut checkpoint = vec![1, 3];
    checkpoint.extend(5_u64.to_le_bytes());
    assert_eq!(
        Record::decode(checkpoint.into()),
        Some(Record::Checkpoint(Lsn(5)))
    );
    let later: Vec<u8> = [3, 1].into_iter().chain([0; 40]).collect();
    assert_eq!(Record::decode(later.into()), None);
}
