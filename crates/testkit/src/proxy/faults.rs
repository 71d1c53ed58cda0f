//! What a proxy does to its connections.

use std::time::Duration;

/// One of the two ways through a proxy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// From the client to the server.
    ToServer,
    /// From the server to the client.
    ToClient,
}

/// What happens to the bytes that go one way.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Way {
    /// They wait until this is over.
    pub held: bool,
    /// They arrive so much later.
    pub delay: Duration,
    /// And at random up to so much later still, in order all the same.
    pub jitter: Duration,
}

/// What happens to all connections of a proxy. The default is nothing.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Faults {
    /// New connections are reset as soon as they are there. (The port is never given up: somebody else could take
    /// it.)
    pub refuse: bool,
    /// The way to the server. While it is held, no new connection is made to the server.
    pub to_server: Way,
    /// The way back.
    pub to_client: Way,
}

impl Faults {
    /// New connections are refused.
    #[must_use]
    pub fn refusing() -> Self {
        Self {
            refuse: true,
            ..Self::default()
        }
    }

    /// Connections stay and are made, and nothing goes through.
    #[must_use]
    pub fn half_open() -> Self {
        let mut faults = Self::only(Direction::ToServer);
        faults.to_server.held = true;
        faults
    }

    /// Only what goes this way arrives.
    #[must_use]
    pub fn only(direction: Direction) -> Self {
        let mut faults = Self::default();
        match direction {
            Direction::ToServer => faults.to_client.held = true,
            Direction::ToClient => faults.to_server.held = true,
        }
        faults
    }

    /// Everything takes longer, each way by this and up to so much more.
    #[must_use]
    pub fn delayed(delay: Duration, jitter: Duration) -> Self {
        let way = Way {
            held: false,
            delay,
            jitter,
        };
        Self {
            refuse: false,
            to_server: way,
            to_client: way,
        }
    }

    /// What happens this way.
    #[must_use]
    pub fn way(&self, direction: Direction) -> Way {
        match direction {
            Direction::ToServer => self.to_server,
            Direction::ToClient => self.to_client,
        }
    }
}
