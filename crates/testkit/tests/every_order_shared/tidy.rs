//! States of which the same follows are made the same one.
//!
//! What nobody looks at any more is blotted out; numbers of transactions are only ever compared, so what counts is
//! their order; and writers that do the same are told apart by nothing but their names. None of this is done to a row
//! that is to show a violation by writers' names: there a way has to be told.

use tidegate_core::memory::machine::SharedState;
use tidegate_core::port::Token;

use super::{At, Cache, Look, State, Variant, WRITERS_MAX, Writer, writer_token};

impl Cache {
    /// Whether this is marked by a writer.
    fn is_marked(&self, token: Token) -> bool {
        match &self.entry.state {
            SharedState::Quarantine(quarantine) => {
                quarantine.marks.iter().any(|(marked, _)| *marked == token)
            }
            _ => false,
        }
    }

    /// Gives the marks of writers the names that the writers have now.
    fn rename(&mut self, order: &[usize]) {
        if let SharedState::Quarantine(quarantine) = &mut self.entry.state {
            for (token, _) in &mut quarantine.marks {
                let now = order.iter().position(|was| writer_token(*was) == *token);
                *token = now.map_or(*token, writer_token);
            }
            quarantine.marks.sort_unstable();
        }
    }
}

impl State {
    pub(super) fn tidy(&mut self, variant: &Variant) {
        for i in 0..variant.writers {
            self.writers[i] = self.tidy_writer(i);
        }
        self.tidy_numbers();
        if variant.shows.is_empty() {
            self.order_writers(variant.writers - usize::from(variant.stranger));
        }
    }

    fn is_marked(&self, i: usize) -> (bool, bool) {
        let token = writer_token(i);
        let in_replica = self
            .replica
            .as_ref()
            .is_some_and(|replica| replica.is_marked(token));
        (self.cache.is_marked(token), in_replica)
    }

    fn tidy_writer(&self, i: usize) -> Writer {
        let mut writer = self.writers[i];
        let (in_cache, in_replica) = self.is_marked(i);
        let is_marked = in_cache || in_replica;
        if writer.dead && matches!(writer.at, At::Committed | At::Told | At::Refused) {
            writer.at = if is_marked { At::Refused } else { At::Done };
        }
        let is_running = matches!(writer.at, At::Stated | At::Ready | At::Sent | At::Passed);
        if !is_running {
            writer.number = 0;
        }
        if !is_running && !matches!(writer.at, At::Committed | At::Told) {
            writer.version = 0;
        }
        if !is_marked && matches!(writer.at, At::Committed | At::Told | At::Refused | At::Done) {
            writer.commit_by = 0;
        }
        if !in_cache {
            writer.look = None;
        }
        writer
    }

    /// Gives the numbers of transactions their places in their order.
    fn tidy_numbers(&mut self) {
        let mut numbers = Vec::with_capacity(16);
        self.each_number(&mut |number| numbers.push(*number));
        numbers.sort_unstable();
        numbers.dedup();
        self.each_number(&mut |number| {
            let place = numbers.binary_search(number).unwrap_or(0);
            *number = u8::try_from(place + 1).unwrap_or(u8::MAX);
        });
    }

    fn each_number(&mut self, act: &mut impl FnMut(&mut u8)) {
        let look = |look: &mut Option<Look>, act: &mut dyn FnMut(&mut u8)| {
            if let Some((_, oldest, next)) = look {
                act(oldest);
                act(next);
            }
        };
        for writer in &mut self.writers {
            if writer.number > 0 {
                act(&mut writer.number);
            }
            look(&mut writer.look, act);
        }
        if let Some((_, grace)) = &mut self.grace {
            look(grace, act);
        }
        act(&mut self.next_number);
    }

    /// Names the first `count` writers by what they do.
    fn order_writers(&mut self, count: usize) {
        let mut order = [0, 1, 2];
        let was: [_; WRITERS_MAX] = std::array::from_fn(|i| (self.writers[i], self.is_marked(i)));
        order[..count].sort_by_key(|i| was[*i]);
        if order.is_sorted() {
            return;
        }
        for (writer, i) in self.writers.iter_mut().zip(order) {
            *writer = was[i].0;
        }
        self.cache.rename(&order);
        if let Some(replica) = &mut self.replica {
            replica.rename(&order);
        }
    }
}
