//! Being told of changes.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tidegate_core::port::{Flushed, SharedKey, Watcher};

use super::stage::{NOW, Stage, committed, held, life};

const EVERY: Duration = Duration::from_millis(20);

/// What was told, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Told {
    Changed(SharedKey),
    Lost,
    Fence(Duration),
}

#[derive(Default)]
struct Ears(Mutex<Vec<Told>>);

impl Ears {
    fn hear(&self, told: Told) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(told);
    }

    fn heard(&self) -> Vec<Told> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Watcher for Ears {
    fn changed(&self, key: &SharedKey) {
        self.hear(Told::Changed(key.clone()));
    }

    fn lost(&self) {
        self.hear(Told::Lost);
    }

    fn fence(&self, at: Duration) {
        self.hear(Told::Fence(at));
    }
}

async fn listen(stage: &Stage) -> Arc<Ears> {
    let ears = Arc::new(Ears::default());
    stage.cache().watch(ears.clone(), EVERY).await.unwrap();
    ears
}

/// Waits until something of this kind is told, and tells all of before it.
async fn until(stage: &Stage, ears: &Ears, found: impl Fn(&Told) -> bool) -> Vec<Told> {
    for _ in 0..1000 {
        let mut heard = ears.heard();
        if let Some(at) = heard.iter().position(&found) {
            heard.truncate(at);
            return heard;
        }
        stage.pass(Duration::from_millis(10)).await;
    }
    panic!("not told in time: {:?}", ears.heard());
}

/// Waits for a fence after now: all of before it.
async fn fence(stage: &Stage, ears: &Ears) -> Vec<Told> {
    let now = stage.scene.clock().elapsed();
    until(
        stage,
        ears,
        |told| matches!(told, Told::Fence(at) if *at >= now),
    )
    .await
}

pub(super) async fn every_change_is_told_before_the_fence(stage: Stage) {
    let ears = listen(&stage).await;
    let [key, other] = stage.keys();
    macro_rules! told {
        ($($change:expr),* $(,)?) => {$(
            let before = ears.heard().len();
            $change;
            let heard = fence(&stage, &ears).await;
            let heard = heard.get(before..).unwrap_or_default();
            let changed = Told::Changed(key.clone());
            assert!(heard.contains(&changed), "{}: {heard:?}", stringify!($change));
            assert!(!heard.contains(&Told::Lost), "{heard:?}");
            assert!(!heard.contains(&Told::Changed(other.clone())), "{heard:?}");
        )*};
    }
    stage.lease(&key, 1).await;
    told![
        assert!(stage.fill(&key, 1, &held(5, "five")).await),
        stage.invalidate(&key, 6).await,
        stage.quarantine(&key, 2).await,
        stage.release(&key, 2, committed(7, "seven")).await,
        stage.evict(&key).await,
        {
            stage.put(&key, "first").await;
        },
    ];
    let second = stage.put(&key, "second").await;
    told![
        assert!(stage.settle(&key, second, Flushed::Stored(life())).await),
        {
            stage.put(&key, "third").await;
        },
    ];
    let third = stage.claim(&key, NOW).await.held.version;
    told![
        assert!(
            stage
                .settle(&key, third, Flushed::Parked("no".into()))
                .await
        ),
        assert!(stage.settle(&key, third, Flushed::Dropped).await),
        stage.make_clean(&key, &held(5, "five")).await,
        stage.cache().clear().await.unwrap(),
        stage.quarantine(&key, 3).await,
        stage.sweep(&key, 3).await,
    ];
    // Fences come by themselves, and never go back.
    fence(&stage, &ears).await;
    fence(&stage, &ears).await;
    let heard = ears.heard();
    let fences = heard.iter().filter_map(|told| match told {
        Told::Fence(at) => Some(*at),
        _ => None,
    });
    assert!(fences.is_sorted(), "{heard:?}");
}

pub(super) async fn a_loss_is_told(stage: Stage) {
    let ears = listen(&stage).await;
    fence(&stage, &ears).await;
    if stage.scene.lose_everything().await {
        until(&stage, &ears, |told| *told == Told::Lost).await;
    }
    let ears = listen(&stage).await;
    fence(&stage, &ears).await;
    if stage.scene.restart().await {
        until(&stage, &ears, |told| *told == Told::Lost).await;
        stage.answers().await;
        // It is taken up again by itself.
        fence(&stage, &ears).await;
    }
}

pub(super) async fn a_closed_watch_ends(stage: Stage) {
    let ears = listen(&stage).await;
    fence(&stage, &ears).await;
    stage.cache().close().await;
    let told = async || {
        stage.pass(EVERY * 4).await;
        ears.heard().len()
    };
    let before = told().await;
    assert_eq!(told().await, before, "fences go on");
}
