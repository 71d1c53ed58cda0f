//! A plain connection to whatever speaks Redis's protocol.

use std::io;

use bytes::BytesMut;
use tidegate_resp::{Reply, ReplyDecoder, encode_request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub(crate) struct Connection {
    stream: TcpStream,
    decoder: ReplyDecoder,
    buffer: BytesMut,
}

impl Connection {
    pub(crate) async fn open(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            decoder: ReplyDecoder::default(),
            buffer: BytesMut::new(),
        })
    }

    /// Sends a command and waits for its answer. Dropped half-way, the connection is of no more use.
    pub(crate) async fn ask(&mut self, arguments: &[&str]) -> io::Result<Reply> {
        let mut bytes = BytesMut::new();
        encode_request(&mut bytes, arguments);
        self.stream.write_all(&bytes).await?;
        loop {
            match self.decoder.decode(&mut self.buffer) {
                Ok(Some(reply)) => return Ok(reply),
                Ok(None) => {}
                Err(error) => return Err(io::Error::other(error.to_string())),
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}
