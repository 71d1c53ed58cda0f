//! What happens between this node and the cache that it shares with others.

use tidegate::{ClassStats, SharedStats};

use super::super::page::{Kind, Page};
use super::{breaker, figure};
use crate::shared_figures::SHARED_FIGURES;

pub(super) fn about_shared(page: &mut Page, stats: &SharedStats, classes: &[ClassStats]) {
    page.family(
        "tidegate_shared_hits_total",
        Kind::Counter,
        "Reads answered by the shared cache at the first look.",
    );
    figure(page, classes, |class| class.shared_hits);
    for figure in &SHARED_FIGURES {
        let kind = if figure.is_counter() {
            Kind::Counter
        } else {
            Kind::Gauge
        };
        page.family(figure.metric, kind, figure.help)
            .value((figure.of)(stats));
    }
    page.family(
        "tidegate_shared_disagreement",
        Kind::Gauge,
        "1 if another live node has other settings of a class: they must not go on together.",
    )
    .value(u8::from(stats.disagreement.is_some()));
    page.family(
        "tidegate_shared_breaker_state",
        Kind::Gauge,
        "1 for the state the breaker of the shared cache is in: closed (it is asked), open (it is away), half-open (one \
         call goes, to see).",
    );
    breaker(page, stats.breaker);
}
