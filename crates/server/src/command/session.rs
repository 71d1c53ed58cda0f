//! The state of one connection that commands see and change.

use std::sync::Arc;

use tidegate_resp::Protocol;

use crate::client::Client;
use crate::server::Server;

/// Whether answers are sent.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) enum Answers {
    #[default]
    On,
    Off,
    /// The next one is left out.
    SkipNext,
}

/// One connection, as its commands see it.
pub(crate) struct Session {
    pub(crate) server: Arc<Server>,
    pub(crate) client: Arc<Client>,
    pub(crate) protocol: Protocol,
    pub(crate) answers: Answers,
    /// Nothing more is read; the connection ends when everything is answered.
    pub(crate) closing: bool,
}

impl Session {
    pub(crate) fn new(server: Arc<Server>, client: Arc<Client>) -> Self {
        Self {
            server,
            client,
            protocol: Protocol::Resp2,
            answers: Answers::On,
            closing: false,
        }
    }

    pub(crate) fn set_protocol(&mut self, protocol: Protocol) {
        self.protocol = protocol;
        self.client.set_protocol(match protocol {
            Protocol::Resp2 => 2,
            Protocol::Resp3 => 3,
        });
    }
}
