//! One command under way.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use tidegate_resp::Reply;

use super::order::KeyHashes;
use crate::command::{Work, errors};

/// A command's work, and what is to be done when it ends.
pub(super) struct Flight {
    /// The number of its request.
    pub(super) number: u64,
    /// Nothing for a command on the whole keyspace.
    pub(super) keys: Option<KeyHashes>,
    /// Bytes of its request, which it keeps in some form.
    pub(super) bytes: usize,
    pub(super) work: Work,
}

/// How it ended.
pub(super) struct Landed {
    pub(super) reply: Reply,
    /// It broke down; the reply says so.
    pub(super) broke_down: bool,
}

impl Flight {
    /// Goes on with the work. A panic in it ends this command only.
    pub(super) fn poll_work(&mut self, cx: &mut Context<'_>) -> Poll<Landed> {
        match catch_unwind(AssertUnwindSafe(|| self.work.as_mut().poll(cx))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(reply)) => Poll::Ready(Landed {
                reply,
                broke_down: false,
            }),
            Err(_) => Poll::Ready(Landed {
                reply: errors::broke_down(),
                broke_down: true,
            }),
        }
    }
}

impl Future for Flight {
    type Output = (u64, Option<KeyHashes>, usize, Landed);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.poll_work(cx)
            .map(|landed| (self.number, self.keys.take(), self.bytes, landed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_answer() {
        let mut flight = Flight {
            number: 7,
            keys: None,
            bytes: 1,
            work: Box::pin(async { panic!("a bug, made for this test") }),
        };
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let Poll::Ready(landed) = flight.poll_work(&mut cx) else {
            panic!("it ended")
        };
        assert!(landed.broke_down);
        assert_eq!(landed.reply, errors::broke_down());
    }
}
