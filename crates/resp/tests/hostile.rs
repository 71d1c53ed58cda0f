//! Hostile inputs kept as files: each is fed as requests and as replies, whole and in pieces, and must end in the same
//! way every time, without a panic and without memory that only an announcement asked for.
//!
//! The files lie in `tests/corpus`. A name begins with what the request decoder must make of it: `ok` (no error),
//! `wait` (no error, and nothing whole), or `bad` (an error). An input that once broke something belongs there.

use bytes::BytesMut;
use std::fs;
use std::path::Path;
use tidegate_resp::{ReplyDecoder, RequestDecoder};

#[test]
fn every_file_of_the_corpus_ends_as_its_name_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut files: Vec<_> = fs::read_dir(&folder)
        .expect("the corpus folder")
        .map(|entry| entry.expect("a file").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "bin"))
        .collect();
    files.sort();
    assert!(
        files.len() >= 25,
        "only {} files in {}",
        files.len(),
        folder.display()
    );
    for path in files {
        let name = path
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        let input = fs::read(&path).expect("readable");
        let whole = requests(&input, input.len().max(1));
        for chunk_bytes in [1, 2, 3, 7, 64] {
            assert_eq!(
                requests(&input, chunk_bytes),
                whole,
                "{name} in pieces of {chunk_bytes}"
            );
        }
        let (count, error) = &whole;
        match name.split('_').next() {
            Some("ok") => assert!(error.is_none() && *count > 0, "{name}: {whole:?}"),
            Some("wait") => assert!(error.is_none() && *count == 0, "{name}: {whole:?}"),
            Some("bad") => assert!(error.is_some(), "{name}: {whole:?}"),
            _ => panic!("{name}: the name must begin with ok, wait or bad"),
        }
        let replies_whole = replies(&input, input.len().max(1));
        for chunk_bytes in [1, 3, 64] {
            assert_eq!(
                replies(&input, chunk_bytes),
                replies_whole,
                "{name} as replies"
            );
        }
    }
}

fn requests(input: &[u8], chunk_bytes: usize) -> (usize, Option<String>) {
    let mut decoder = RequestDecoder::default();
    let mut buffer = BytesMut::new();
    let mut count = 0;
    for chunk in input.chunks(chunk_bytes) {
        buffer.extend_from_slice(chunk);
        loop {
            match decoder.decode(&mut buffer) {
                Ok(Some(request)) => count += request.len(),
                Ok(None) => break,
                Err(error) => return (count, Some(error.to_string())),
            }
            assert!(count <= input.len(), "more arguments than bytes");
        }
        assert!(
            buffer.capacity() <= 16 * input.len() + 1024,
            "memory was reserved"
        );
    }
    (count, None)
}

fn replies(input: &[u8], chunk_bytes: usize) -> (usize, Option<String>) {
    let mut decoder = ReplyDecoder::default();
    let mut buffer = BytesMut::new();
    let mut count = 0;
    for chunk in input.chunks(chunk_bytes) {
        buffer.extend_from_slice(chunk);
        loop {
            match decoder.decode(&mut buffer) {
                Ok(Some(_)) => count += 1,
                Ok(None) => break,
                Err(error) => return (count, Some(error.to_string())),
            }
        }
    }
    (count, None)
}
