//! A connection to a running server that waits for each answer.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use bytes::BytesMut;
use tidegate_resp::{Reply, ReplyDecoder};

use super::{Failure, Result};

/// How long the server may take to be reached, and to answer what it does at once.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) struct Connection {
    stream: TcpStream,
    server: String,
    decoder: ReplyDecoder,
    buffer: BytesMut,
}

impl Connection {
    /// Connects to `HOST:PORT`, trying each address of the name.
    pub(super) fn open(server: &str) -> Result<Self> {
        let unreachable = |why: String| {
            Failure::Unreachable(format!(
                "cannot reach {}: {why}; is it running there? another place is named with --server HOST:PORT",
                server.escape_debug()
            ))
        };
        let addresses = server
            .to_socket_addrs()
            .map_err(|error| unreachable(error.to_string()))?;
        let mut last = "the name has no address".to_owned();
        for address in addresses {
            match TcpStream::connect_timeout(&address, PATIENCE) {
                Ok(stream) => {
                    let connection = Self {
                        stream,
                        server: server.to_owned(),
                        decoder: ReplyDecoder::default(),
                        buffer: BytesMut::new(),
                    };
                    connection.wait_at_most(PATIENCE)?;
                    return Ok(connection);
                }
                Err(error) => last = error.to_string(),
            }
        }
        Err(unreachable(last))
    }

    fn wait_at_most(&self, patience: Duration) -> Result<()> {
        let set = self
            .stream
            .set_read_timeout(Some(patience))
            .and_then(|()| self.stream.set_write_timeout(Some(PATIENCE)))
            .and_then(|()| self.stream.set_nodelay(true));
        set.map_err(|error| self.broken(&error))
    }

    /// Sends a command; its answer, or what the server says is wrong.
    pub(super) fn ask<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> Result<Reply> {
        let mut bytes = BytesMut::new();
        tidegate_resp::encode_request(&mut bytes, arguments);
        self.stream
            .write_all(&bytes)
            .map_err(|error| self.broken(&error))?;
        match self.read()? {
            Reply::Error(text) => Err(Failure::Said(String::from_utf8_lossy(&text).into_owned())),
            reply => Ok(reply),
        }
    }

    /// The same for a command that may take as long as `deadline` and then answers.
    pub(super) fn ask_until<A: AsRef<[u8]>>(
        &mut self,
        arguments: &[A],
        deadline: Duration,
    ) -> Result<Reply> {
        self.wait_at_most(deadline.saturating_add(PATIENCE))?;
        let reply = self.ask(arguments);
        self.wait_at_most(PATIENCE)?;
        reply
    }

    fn read(&mut self) -> Result<Reply> {
        let mut piece = vec![0; 64 * 1024];
        loop {
            let decoded = self.decoder.decode(&mut self.buffer);
            if let Some(reply) = decoded.map_err(|error| Failure::Odd(error.to_string()))? {
                return Ok(reply);
            }
            match self.stream.read(&mut piece) {
                Ok(0) => return Err(self.broken(&io::ErrorKind::ConnectionReset.into())),
                Ok(read) => self.buffer.extend_from_slice(&piece[..read]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.broken(&error)),
            }
        }
    }

    fn broken(&self, error: &io::Error) -> Failure {
        let why = match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                "it does not answer in time".to_owned()
            }
            io::ErrorKind::ConnectionReset => "it closed the connection".to_owned(),
            _ => error.to_string(),
        };
        let server = self.server.escape_debug();
        Failure::Unreachable(format!(
            "lost {server}: {why}; what was asked may have been done"
        ))
    }
}
