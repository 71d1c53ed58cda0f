//! A process that appends is killed at any moment: every record it was told is durable is there.

#![cfg(feature = "journal")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use tidegate::journal::{FileJournal, JournalConfig};
use tidegate_core::port::{Journal, Lsn};

/// Set for the child: the folder of its journal.
const FOLDER_VARIABLE: &str = "TIDEGATE_TEST_JOURNAL_FOLDER";
const TASKS: u64 = 8;

fn config(folder: &str) -> JournalConfig {
    let mut config = JournalConfig::new(folder);
    // Small, so that a kill often meets a change of segments.
    config.segment_bytes = 16_384;
    config
}

/// What a child writes says which task wrote it and how often that task had written.
fn record(task: u64, number: u64) -> Bytes {
    let length = (task * 131 + number * 17) % 700;
    let mut record = format!("{task} {number} ").into_bytes();
    record.resize(record.len() + length as usize, b'.');
    record.into()
}

/// The child's life: append for ever, print what was acknowledged. Without the variable there is nothing to
/// do, so this passes when it is run with the other tests.
#[test]
fn child() {
    let Ok(folder) = env::var(FOLDER_VARIABLE) else {
        return;
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let journal = Arc::new(FileJournal::open(config(&folder)).unwrap());
        let tasks: Vec<_> = (0..TASKS)
            .map(|task| {
                let journal = Arc::clone(&journal);
                tokio::spawn(async move {
                    for number in 0.. {
                        let lsn = journal.append(vec![record(task, number)]).await.unwrap();
                        let line = format!("ack {} {task} {number}\n", lsn.0);
                        // One write a line, past the capture of the test harness.
                        std::io::stdout().write_all(line.as_bytes()).unwrap();
                        if lsn.0 % 64 == 0 {
                            let mark = Lsn(lsn.0.saturating_sub(400));
                            journal.trim(mark).await.unwrap();
                        }
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
}

fn spawn_child(folder: &str) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(FOLDER_VARIABLE, folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test]
async fn a_killed_process_loses_nothing_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let path = path.to_str().unwrap();
    let mut places = 0;
    for acknowledged_before_kill in [1, 7, 50, 211, 700, 3, 1_500, 90] {
        let mut child = spawn_child(path);
        let mut acknowledged = Vec::new();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        // To the end of the output: what was printed before the kill was acknowledged before it.
        while lines.read_line(&mut line).unwrap() > 0 {
            // The harness prints its own words in front of the first.
            if let Some((_, words)) = line.split_once("ack ")
                && words.ends_with('\n')
            {
                let numbers: Vec<u64> = words
                    .split_whitespace()
                    .map(|word| word.parse().unwrap())
                    .collect();
                acknowledged.push((numbers[0], numbers[1], numbers[2]));
                if acknowledged.len() == acknowledged_before_kill {
                    child.kill().unwrap();
                }
            }
            line.clear();
        }
        let status = child.wait().unwrap();
        assert!(!status.success(), "the child ended by itself: {status}");
        assert!(acknowledged.len() >= acknowledged_before_kill);
        let last = acknowledged.iter().map(|(lsn, ..)| *lsn).max().unwrap();

        let journal = FileJournal::open(config(path)).unwrap();
        let tail = journal.tail();
        assert!(
            tail.0 > last,
            "acknowledged up to {last}, the tail is {tail:?}"
        );
        // What is not acknowledged was under way: at most one append of each task.
        assert!(tail.0 <= places + acknowledged.len() as u64 + TASKS + 1);
        let mut found = Vec::new();
        let mut next = Lsn(0);
        loop {
            let page = journal.replay(next, 100).await.unwrap();
            let Some(last) = page.last() else { break };
            next = last.lsn.next();
            found.extend(page);
        }
        assert_eq!(next, tail);
        let first = found[0].lsn.0;
        assert!(
            first <= last.saturating_sub(400).max(1).max(places),
            "{first}"
        );
        for (lsn, task, number) in acknowledged {
            if lsn >= first {
                let replayed = &found[(lsn - first) as usize];
                assert_eq!(replayed.lsn, Lsn(lsn));
                assert!(replayed.record == record(task, number), "record {lsn}");
            }
        }
        places = tail.0 - 1;
        journal.close().await;
    }
}
