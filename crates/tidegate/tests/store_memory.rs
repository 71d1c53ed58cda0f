//! The store in memory, the reference, does what every store must.

use std::sync::Arc;

use tidegate_core::memory::MemoryStore;
use tidegate_testkit::conformance::store::{Subject, run};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn memory() {
    run(|_case| async {
        let store = MemoryStore::new();
        Subject::new(Arc::new(store.clone())).again(Arc::new(store))
    })
    .await;
}
