//! Opening what the server stands on: the data folder, the store, the journal, the shared cache, and the gate over them.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tidegate::journal::JournalConfig;
use tidegate::port::{Clock, SharedCache, SharedError};
#[cfg(feature = "fail-points")]
use tidegate::port::{Journal, Store};
use tidegate::redis::RedisConfig;
use tidegate::{Gate, SystemClock};
use tokio::time::Instant;

use crate::config::{Config, SharedConfig, SharedUrl};
use crate::console;
#[cfg(feature = "fail-points")]
use crate::fail_point;

/// How long a shared cache that is not there yet is waited for: machines that start together are not ready in an order.
const SHARED_PATIENCE: Duration = Duration::from_secs(10);
/// From one look for it to the next.
const SHARED_PAUSE: Duration = Duration::from_millis(200);

/// Opens everything; what failed, in words.
pub(crate) async fn open(config: &Config) -> Result<Gate, String> {
    make_private_folder(&config.data_dir)
        .map_err(|error| format!("cannot make {}: {error}", config.data_dir.display()))?;
    let store = tidegate::open_store(config.store_url.reveal())
        .await
        .map_err(|error| format!("store {}: {error}", config.store_url))?;
    let mut journal = JournalConfig::new(&config.journal_path);
    journal.bytes_max = config.journal_bytes_max;
    journal.segment_bytes = config.journal_segment_bytes;
    let journal = tidegate::open_journal_with(journal)
        .await
        .map_err(|error| format!("journal {}: {error}", config.journal_path.display()))?;
    #[cfg(feature = "fail-points")]
    let (store, journal) = (
        Arc::new(fail_point::FailingStore(store)) as Arc<dyn Store>,
        Arc::new(fail_point::FailingJournal(journal)) as Arc<dyn Journal>,
    );
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let mut builder = tidegate::builder()
        .clock_arc(Arc::clone(&clock))
        .near_bytes(config.near_bytes)
        .store_arc(store)
        .journal_arc(journal)
        .classes(config.classes.iter().cloned());
    if let Some(lanes) = config.lanes {
        builder = builder.lanes(lanes);
    }
    if let Some(shared) = &config.shared {
        let cache = open_shared(shared, &clock)
            .await
            .map_err(|error| format!("shared cache {}: {error}", shared.place()))?;
        builder = builder
            .shared_arc(cache)
            .mark_timeout(shared.mark_timeout)
            .outside_poll(shared.outside_poll);
    }
    builder.open().await.map_err(|error| error.to_string())
}

/// Opens the shared cache, waiting for it if it is not there yet.
async fn open_shared(
    shared: &SharedConfig,
    clock: &Arc<dyn Clock>,
) -> Result<Arc<dyn SharedCache>, SharedError> {
    let mut config = RedisConfig::from_urls(shared.urls.iter().map(SharedUrl::reveal))?;
    config.prefix.clone_from(&shared.prefix);
    config.shards = shared.shards;
    config.lease = shared.lease;
    config.replicas = shared.replicas;
    config.replica_timeout = shared.response_timeout;
    config.connect_timeout = shared.connect_timeout;
    config.response_timeout = shared.response_timeout;
    let start = Instant::now();
    let mut told = false;
    loop {
        match tidegate::open_shared_with(config.clone(), Arc::clone(clock)).await {
            Err(error @ SharedError::Unavailable { .. }) if start.elapsed() < SHARED_PATIENCE => {
                if !told {
                    console::say(format!(
                        "waiting for the shared cache {}: {error}",
                        shared.place()
                    ));
                    told = true;
                }
                clock.sleep(SHARED_PAUSE).await;
            }
            opened => return opened,
        }
    }
}

/// Makes the folder, readable by this user only, unless it is there.
fn make_private_folder(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;

    if folder.is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
}
