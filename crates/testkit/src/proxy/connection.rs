//! One connection through a proxy: two ways, each a reader that looks at the bytes and says when they are due, and
//! a writer that waits until then. So a delay does not make a connection narrower.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::faults::{Direction, Faults};
use super::postgres::{Asked, Conversation};
use super::{Shared, Trap};

const PIECE_BYTES: usize = 32 * 1024;

/// Pieces under way in one direction; beyond that the sender has to wait.
const PIECES_MAX: usize = 256;

/// A piece on its way.
enum Piece {
    Bytes(Instant, Vec<u8>),
    /// The connection is cut when everything before it has arrived.
    Cut,
}

/// Why a connection ended before both sides had closed it.
struct Broken;

impl From<io::Error> for Broken {
    fn from(_: io::Error) -> Self {
        Self
    }
}

pub(super) struct Connection<'a> {
    shared: &'a Shared,
    faults: watch::Receiver<Faults>,
    /// What client and server say to each other, if it is understood.
    conversation: Option<Mutex<Conversation>>,
}

impl<'a> Connection<'a> {
    pub(super) fn new(shared: &'a Shared) -> Self {
        let conversation = shared.postgres.then(Mutex::default);
        Self {
            shared,
            faults: shared.faults.subscribe(),
            conversation,
        }
    }

    /// Serves a client until one side is gone or the connection is cut.
    pub(super) async fn run(self, mut client: TcpStream) {
        let mut cuts = self.shared.cuts.subscribe();
        let carried = tokio::select! {
            carried = self.carry(&mut client) => carried,
            _ = cuts.changed() => Err(Broken),
        };
        if carried.is_err() {
            let _ = client.set_zero_linger();
        }
    }

    async fn carry(&self, client: &mut TcpStream) -> Result<(), Broken> {
        let mut faults = self.faults.clone();
        let open = faults.wait_for(|faults| !faults.to_server.held).await;
        open.map_err(|_| Broken)?;
        let mut server = TcpStream::connect(self.shared.target()).await?;
        server.set_nodelay(true)?;
        client.set_nodelay(true)?;
        // Whatever ends this, nothing that is still on its way may arrive afterwards.
        server.set_zero_linger()?;
        let (client_source, client_sink) = client.split();
        let (server_source, server_sink) = server.split();
        tokio::try_join!(
            self.pump(client_source, server_sink, Direction::ToServer),
            self.pump(server_source, client_sink, Direction::ToClient),
        )?;
        Ok(())
    }

    async fn pump(
        &self,
        source: impl AsyncReadExt + Unpin,
        sink: impl AsyncWriteExt + Unpin,
        direction: Direction,
    ) -> Result<(), Broken> {
        let (pieces, due) = mpsc::channel(PIECES_MAX);
        tokio::try_join!(
            self.read(source, pieces, direction),
            self.write(sink, due, direction),
        )?;
        Ok(())
    }

    async fn read(
        &self,
        mut source: impl AsyncReadExt + Unpin,
        pieces: mpsc::Sender<Piece>,
        direction: Direction,
    ) -> Result<(), Broken> {
        let mut piece = vec![0; PIECE_BYTES];
        let mut last = Instant::now();
        loop {
            let length = source.read(&mut piece).await?;
            if length == 0 {
                return Ok(());
            }
            let way = self.faults.borrow().way(direction);
            let jitter = u64::try_from(way.jitter.as_micros()).unwrap_or(u64::MAX);
            let jitter = std::time::Duration::from_micros(self.shared.random.below(jitter));
            // In order, whatever the jitter says.
            last = last.max(Instant::now() + way.delay + jitter);
            let (kept, cut) = self.look(&piece[..length], direction);
            let bytes = Piece::Bytes(last, piece[..kept].to_vec());
            pieces.send(bytes).await.map_err(|_| Broken)?;
            if cut {
                self.shared.sprung.fetch_add(1, Ordering::AcqRel);
                pieces.send(Piece::Cut).await.map_err(|_| Broken)?;
                return Ok(());
            }
        }
    }

    async fn write(
        &self,
        mut sink: impl AsyncWriteExt + Unpin,
        mut pieces: mpsc::Receiver<Piece>,
        direction: Direction,
    ) -> Result<(), Broken> {
        let mut faults = self.faults.clone();
        while let Some(piece) = pieces.recv().await {
            let Piece::Bytes(due, bytes) = piece else {
                return Err(Broken);
            };
            tokio::time::sleep_until(due).await;
            let open = faults.wait_for(|faults| !faults.way(direction).held).await;
            open.map_err(|_| Broken)?;
            sink.write_all(&bytes).await?;
        }
        sink.shutdown().await?;
        Ok(())
    }

    /// How many of these bytes go on, and whether the connection is cut after them.
    fn look(&self, bytes: &[u8], direction: Direction) -> (usize, bool) {
        let mut trap = self.shared.trap();
        if let Some(Trap::Bytes(way, left)) = &mut *trap
            && *way == direction
        {
            let length = bytes.len() as u64;
            if length > *left {
                let kept = usize::try_from(*left).unwrap_or(bytes.len());
                *trap = None;
                return (kept, true);
            }
            *left -= length;
        }
        let Some(mut conversation) = self.conversation() else {
            return (bytes.len(), false);
        };
        match direction {
            Direction::ToServer => {
                let fits = |text: &str| matches!(&*trap, Some(Trap::Answer(fits)) if fits(text));
                match conversation.asked(bytes, fits) {
                    Asked::Nothing => (bytes.len(), false),
                    Asked::UpTo(end) => {
                        *trap = None;
                        // What comes behind it belongs to a client that will learn that the connection is gone.
                        (end, false)
                    }
                    Asked::Deaf => (0, false),
                }
            }
            Direction::ToClient => conversation.answered(bytes),
        }
    }

    fn conversation(&self) -> Option<MutexGuard<'_, Conversation>> {
        let conversation = self.conversation.as_ref()?;
        Some(conversation.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
