//! Read-modify-write: a caller's function as an operation of a lane.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use crate::entry::{Change, Entry};
use crate::error::{Error, ErrorKind, Result};
use crate::lane::{Operation, Update, WriteReply};
use crate::layer::Layer;
use crate::receipt::Written;
use crate::write::write;

/// A function waiting to be run in its lane, and the answer of its last run.
struct Function<F, R> {
    change: F,
    answer: Arc<Mutex<Option<R>>>,
    reply: WriteReply,
}

impl<F, R> Update for Function<F, R>
where
    F: FnMut(Option<&Entry>) -> (Option<Change>, R) + Send,
    R: Send,
{
    fn evaluate(&mut self, current: Option<&Entry>) -> Option<Change> {
        let (change, answer) = (self.change)(current);
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
        change
    }

    fn answer(self: Box<Self>, answer: Result<Written>) {
        drop(self.reply.send(answer));
    }
}

pub(super) async fn update<F, R>(layer: &Layer, key: &[u8], change: F) -> Result<(R, Written)>
where
    F: FnMut(Option<&Entry>) -> (Option<Change>, R) + Send + 'static,
    R: Send + 'static,
{
    let answer = Arc::new(Mutex::new(None));
    let shared = Arc::clone(&answer);
    let operation = |reply: oneshot::Sender<_>| {
        Operation::Update(Box::new(Function {
            change,
            answer: shared,
            reply,
        }))
    };
    let written = write(layer, key, operation).await?;
    let last = answer.lock().unwrap_or_else(PoisonError::into_inner).take();
    // An acknowledged update was evaluated; this is for the case that it is not.
    let last = last.ok_or_else(|| Error::new(ErrorKind::Unknown, "the update gave no answer"))?;
    Ok((last, written))
}
