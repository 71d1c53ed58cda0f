//! Reading answers that are maps: pairs of a name and a value, in either version of the protocol.

use bytes::Bytes;
use tidegate_resp::Reply;

use super::{Failure, Result};

/// A map as the server sent it.
pub(super) struct Fields(Vec<(Bytes, Reply)>);

impl Fields {
    pub(super) fn of(reply: Reply) -> Result<Self> {
        let pairs: Vec<(Reply, Reply)> = match reply {
            Reply::Map(pairs) => pairs,
            Reply::Array(items) if items.len().is_multiple_of(2) => {
                let mut items = items.into_iter();
                std::iter::from_fn(|| Some((items.next()?, items.next()?))).collect()
            }
            other => return Err(Failure::Odd(format!("no map: {}", kind(&other)))),
        };
        let named = pairs.into_iter().map(|(name, value)| match name {
            Reply::Bulk(name) | Reply::Simple(name) => Ok((name, value)),
            other => Err(Failure::Odd(format!("a name is {}", kind(&other)))),
        });
        Ok(Self(named.collect::<Result<_>>()?))
    }

    /// Takes a value out; null if it is not there.
    pub(super) fn take(&mut self, name: &str) -> Reply {
        let at = self.0.iter().position(|(one, _)| one == name.as_bytes());
        at.map_or(Reply::Null, |at| self.0.swap_remove(at).1)
    }

    pub(super) fn bytes(&mut self, name: &str) -> Result<Bytes> {
        self.optional_bytes(name)?
            .ok_or_else(|| Failure::Odd(format!("no {name}")))
    }

    pub(super) fn optional_bytes(&mut self, name: &str) -> Result<Option<Bytes>> {
        match self.take(name) {
            Reply::Bulk(bytes) | Reply::Simple(bytes) => Ok(Some(bytes)),
            Reply::Null => Ok(None),
            other => Err(Failure::Odd(format!("{name} is {}", kind(&other)))),
        }
    }

    pub(super) fn text(&mut self, name: &str) -> Result<String> {
        Ok(String::from_utf8_lossy(&self.bytes(name)?).into_owned())
    }

    pub(super) fn number(&mut self, name: &str) -> Result<u64> {
        match self.take(name) {
            Reply::Integer(number) => {
                u64::try_from(number).map_err(|_| Failure::Odd(format!("{name} is negative")))
            }
            other => Err(Failure::Odd(format!("{name} is {}", kind(&other)))),
        }
    }
}

/// The items of a list.
pub(super) fn items(reply: Reply) -> Result<Vec<Reply>> {
    match reply {
        Reply::Array(items) | Reply::Set(items) => Ok(items),
        other => Err(Failure::Odd(format!("no list: {}", kind(&other)))),
    }
}

/// What an answer is, without what is in it.
fn kind(reply: &Reply) -> &'static str {
    match reply {
        Reply::Integer(_) => "a number",
        Reply::Null | Reply::NullArray => "nothing",
        Reply::Array(_) | Reply::Set(_) | Reply::Push(_) => "a list",
        Reply::Map(_) => "a map",
        Reply::Error(_) => "an error",
        _ => "a text",
    }
}
