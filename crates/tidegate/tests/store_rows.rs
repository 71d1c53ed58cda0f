//! A store made of rows does what every store must: the example's few lines over `RowStore`.

use std::sync::Arc;

use tidegate::port::RowStore;
use tidegate_testkit::conformance::store::{Subject, run};

#[expect(dead_code, reason = "its main is run as an example")]
#[path = "../examples/custom_store.rs"]
mod custom_store;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn rows_in_a_map() {
    run(|_case| async {
        let rows = custom_store::Map::default();
        Subject::new(Arc::new(RowStore::new("map", false, rows)))
    })
    .await;
}

#[test]
fn a_custom_store_is_less_than_sixty_lines() {
    let lines = include_str!("../examples/custom_store.rs").lines().count();
    assert!(lines < 60, "{lines} lines");
}
