//! The file journal does what every journal must do, on the real disk and on one in memory.

#![cfg(feature = "journal")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use tidegate::journal::faulty::FaultyDisk;
use tidegate::journal::{FileJournal, JournalConfig};
use tidegate_core::port::Journal;
use tidegate_testkit::conformance::journal::{Subject, run};

fn small(path: impl Into<std::path::PathBuf>, segment_bytes: u64) -> JournalConfig {
    let mut config = JournalConfig::new(path);
    config.segment_bytes = segment_bytes;
    config
}

async fn on_the_real_disk(segment_bytes: u64) {
    let folder = tempfile::tempdir().unwrap();
    run(|case| {
        let config = small(folder.path().join(case), segment_bytes);
        async {
            Subject::new(move || {
                let config = config.clone();
                async {
                    let opened: Arc<dyn Journal> = Arc::new(FileJournal::open(config)?);
                    Ok(opened)
                }
            })
        }
    })
    .await;
}

/// Each segment holds few records, so that every case crosses from one to the next.
#[tokio::test]
async fn with_the_smallest_segments() {
    on_the_real_disk(4096).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn with_many_threads() {
    on_the_real_disk(1 << 20).await;
}

#[tokio::test]
async fn on_a_disk_that_writes_in_pieces() {
    run(|_case| async {
        let disk = FaultyDisk::new();
        disk.shorten_writes();
        Subject::new(move || {
            let disk = disk.clone();
            async move {
                let opened = FileJournal::open_on(small("journal", 4096), disk.mount())?;
                let opened: Arc<dyn Journal> = Arc::new(opened);
                Ok(opened)
            }
        })
    })
    .await;
}
