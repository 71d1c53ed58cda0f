//! One connection: bytes in, commands, bytes out.
//!
//! One task does everything for a connection. Requests are taken as they come and run concurrently, but for those on
//! the same keys ([`order`]); answers leave in the order of the requests ([`replies`]). A `GET` that hits the near
//! cache is answered at once, without a future or an allocation.
//!
//! Memory is bounded: nothing more is read while too many commands are under way, too many bytes of requests are
//! kept, or the client does not take its answers.

mod flight;
mod order;
mod replies;
mod stranger;
mod transaction;

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tidegate::{KEY_BYTES_MAX, Lookup};
use tidegate_resp::{Reply, Request, RequestDecoder, RequestLimits};
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::client::Client;
use crate::command::{self, Answers, Handler, Prepared, Session, Work, errors};
use crate::server::{Counters, Server};
use flight::{Flight, Landed};
use order::KeyOrder;
use replies::{Form, Replies};

/// Room made in the read buffer before each read.
const READ_BYTES: usize = 16 * 1024;

/// What is read and thrown away from a client that is told to go, so that the answer reaches it.
const PARTING_BYTES_MAX: usize = 1 << 20;

/// A connection and everything under way on it.
pub(crate) struct Connection {
    stream: TcpStream,
    input: BytesMut,
    decoder: RequestDecoder,
    replies: Replies,
    session: Session,
    transaction: transaction::Refused,
    order: KeyOrder,
    /// Commands that were begun.
    flights: FuturesUnordered<Flight>,
    /// Commands that wait for their keys, and for how many of them.
    grounded: HashMap<u64, (usize, Flight)>,
    /// A command on the whole keyspace that waits for all before it.
    held: Option<(Form, Request, Work)>,
    /// A command on the whole keyspace is under way, and the next ones wait.
    keyspace_busy: bool,
    /// Bytes of the requests under way.
    bytes_under_way: usize,
    /// The client sends no more.
    ended: bool,
    /// No whole request is left in the read buffer.
    starved: bool,
    /// The connection ends now, whatever is unanswered.
    cut_off: bool,
    idle: Option<(Duration, Pin<Box<Sleep>>)>,
    /// Not yet added to the server's counters.
    commands: u64,
}

impl Connection {
    pub(crate) fn new(stream: TcpStream, server: Arc<Server>, client: Arc<Client>) -> Self {
        let config = &server.config;
        let request_bytes_max = usize::try_from(config.request_bytes_max).unwrap_or(usize::MAX);
        let default = RequestLimits::default();
        let limits = RequestLimits {
            bulk_bytes_max: default.bulk_bytes_max.min(request_bytes_max),
            request_bytes_max,
            ..default
        };
        let idle = config
            .idle_timeout
            .map(|timeout| (timeout, Box::pin(sleep_until(Instant::now() + timeout))));
        Self {
            stream,
            input: BytesMut::new(),
            decoder: RequestDecoder::new(limits),
            replies: Replies::new(config.output_bytes_max),
            session: Session::new(server, client),
            transaction: transaction::Refused::default(),
            order: KeyOrder::default(),
            flights: FuturesUnordered::new(),
            grounded: HashMap::new(),
            held: None,
            keyspace_busy: false,
            bytes_under_way: 0,
            ended: false,
            starved: true,
            cut_off: false,
            idle,
            commands: 0,
        }
    }

    /// Serves the connection to its end.
    ///
    /// # Errors
    /// The connection broke. What was begun goes on.
    pub(crate) async fn run(mut self) -> io::Result<()> {
        let done = std::future::poll_fn(|cx| self.poll(cx)).await;
        self.session.server.clients.remove(self.session.client.id);
        done?;
        self.part().await
    }

    /// Ends the connection so that the client still gets its last answers: data left unread would make the system
    /// reset the connection and drop them.
    async fn part(mut self) -> io::Result<()> {
        tokio::io::AsyncWriteExt::shutdown(&mut self.stream).await?;
        let mut rest = [0; 4096];
        let mut left = PARTING_BYTES_MAX;
        while let Ok(read) = self.stream.try_read(&mut rest) {
            if read == 0 || left < read {
                break;
            }
            left -= read;
        }
        Ok(())
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.session.client.register(cx.waker());
        if self.session.client.is_closing() {
            self.session.closing = true;
        }
        let done = loop {
            let mut moved = self.poll_flights(cx);
            moved |= self.take_requests(cx);
            match self.poll_write(cx) {
                Ok(written) => moved |= written,
                Err(error) => break Poll::Ready(Err(error)),
            }
            if self.is_done() {
                break Poll::Ready(Ok(()));
            }
            match self.poll_read(cx) {
                Ok(read) => moved |= read,
                Err(error) => break Poll::Ready(Err(error)),
            }
            if moved {
                continue;
            }
            if self.poll_idle(cx) {
                break Poll::Ready(Ok(()));
            }
            break Poll::Pending;
        };
        if self.commands > 0 {
            Counters::add(&self.session.server.counters.commands, self.commands);
            self.commands = 0;
        }
        done
    }

    /// Whether everything that will be answered is answered and sent.
    fn is_done(&self) -> bool {
        if self.cut_off {
            return true;
        }
        (self.session.closing || (self.ended && self.starved))
            && self.replies.waiting() == 0
            && self.replies.bytes().is_empty()
            && self.held.is_none()
    }

    /// Whether there is room for another command.
    fn has_room(&self) -> bool {
        let config = &self.session.server.config;
        !self.session.closing
            && !self.keyspace_busy
            && self.held.is_none()
            && self.replies.waiting() < config.pipeline_max
            && (self.replies.held_bytes().max(self.bytes_under_way) as u64)
                < config.output_bytes_max
    }

    /// Ends the flights that have landed.
    fn poll_flights(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        while let Poll::Ready(Some((number, keys, bytes, landed))) =
            self.flights.poll_next_unpin(cx)
        {
            self.bytes_under_way -= bytes;
            self.land(number, landed);
            match keys {
                None => self.keyspace_busy = false,
                Some(keys) => self.release(keys, cx),
            }
            moved = true;
        }
        moved
    }

    /// Gives up keys and begins the commands that waited for them.
    fn release(&mut self, keys: order::KeyHashes, cx: &mut Context<'_>) {
        let mut released = vec![keys];
        let mut admitted = Vec::new();
        while let Some(keys) = released.pop() {
            self.order.release(keys.as_slice(), &mut admitted);
            for number in admitted.drain(..) {
                let Some((waits, _)) = self.grounded.get_mut(&number) else {
                    continue;
                };
                *waits -= 1;
                if *waits > 0 {
                    continue;
                }
                let Some((_, mut flight)) = self.grounded.remove(&number) else {
                    continue;
                };
                match flight.poll_work(cx) {
                    Poll::Pending => self.flights.push(flight),
                    Poll::Ready(landed) => {
                        self.bytes_under_way -= flight.bytes;
                        self.land(number, landed);
                        released.extend(flight.keys);
                    }
                }
            }
        }
    }

    fn land(&mut self, number: u64, landed: Landed) {
        if landed.broke_down {
            self.report_break_down();
        }
        self.replies.answer(number, landed.reply);
    }

    fn report_break_down(&self) {
        Counters::add(&self.session.server.counters.broke_down, 1);
        tracing::error!(
            client = self.session.client.id,
            "a command broke down; this is a bug"
        );
    }

    /// Begins what can be begun of what was read.
    fn take_requests(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        if self.replies.unanswered() == 0
            && let Some((form, request, work)) = self.held.take()
        {
            self.begin_on_keyspace(form, &request, work, cx);
            moved = true;
        }
        while self.has_room() {
            self.starved = false;
            match self.decoder.decode(&mut self.input) {
                Ok(None) => {
                    self.starved = true;
                    break;
                }
                Ok(Some(request)) => self.take(&request, cx),
                Err(error) => {
                    self.session.closing = true;
                    let form = Form {
                        protocol: self.session.protocol,
                        silent: false,
                    };
                    self.replies
                        .push(form, Reply::error(format!("ERR {error}")));
                }
            }
            moved = true;
        }
        moved
    }

    fn take(&mut self, request: &Request, cx: &mut Context<'_>) {
        if stranger::speaks_http(request) {
            return self.cut_off();
        }
        self.commands += 1;
        if let Some(refused) = self.transaction.answer(request) {
            return self.refuse(Some(refused));
        }
        if self.answer_hit(request) {
            return;
        }
        let command = match command::find(request) {
            Ok(command) => command,
            Err(refused) => {
                let refused = self.transaction.open(request).unwrap_or(refused);
                return self.refuse(Some(refused));
            }
        };
        let server = &self.session.server;
        match command.handler {
            Handler::Session(handler) => self.answer_session(handler, request),
            Handler::Keys(handler) => match guarded(|| handler(server, request)) {
                Ok(prepared) => {
                    let places = command.key_places(request.len());
                    let keys = places.map(|place| request.argument(place).unwrap_or_default());
                    let keys = self.order.hashes(keys);
                    self.begin(prepared, keys, request.held_bytes(), cx);
                }
                Err(refused) => self.refuse(refused),
            },
            Handler::Keyspace(handler) => match guarded(|| handler(server, request)) {
                Ok(work) => {
                    let form = self.form();
                    if self.replies.unanswered() == 0 {
                        self.begin_on_keyspace(form, request, work, cx);
                    } else {
                        self.held = Some((form, request.clone(), work));
                    }
                }
                Err(refused) => self.refuse(refused),
            },
        }
    }

    /// Ends a connection that speaks HTTP. Commands of it that wait for their keys are not begun any more.
    fn cut_off(&mut self) {
        tracing::warn!(
            client = self.session.client.id,
            address = %self.session.client.address,
            "possible security attack: a client speaks HTTP, as if a web page were made to send commands; \
             its connection is closed"
        );
        self.cut_off = true;
        self.session.closing = true;
        self.input.clear();
        self.grounded.clear();
        self.held = None;
    }

    /// Answers a `GET` from the near cache, if it can be and nothing before it concerns its key.
    fn answer_hit(&mut self, request: &Request) -> bool {
        let (name, Some(key)) = (request.name(), request.argument(1)) else {
            return false;
        };
        if request.len() != 2 || !name.eq_ignore_ascii_case(b"GET") || key.len() > KEY_BYTES_MAX {
            return false;
        }
        let free = self.order.is_idle()
            || self
                .order
                .admits(&[self.order.hash(key)], command::Access::Read);
        if !free {
            return false;
        }
        let reply = match self.session.server.gate.lookup(key) {
            Lookup::Hit(entry) => Reply::Bulk(entry.value),
            Lookup::Negative => Reply::Null,
            Lookup::Miss => return false,
        };
        let form = self.form();
        self.replies.push(form, reply);
        true
    }

    /// The form of the next answer.
    fn form(&mut self) -> Form {
        let silent = self.session.answers != Answers::On;
        if self.session.answers == Answers::SkipNext {
            self.session.answers = Answers::On;
        }
        Form {
            protocol: self.session.protocol,
            silent,
        }
    }

    fn refuse(&mut self, refused: Option<Reply>) {
        let form = self.form();
        if refused.is_none() {
            self.report_break_down();
        }
        self.replies
            .push(form, refused.unwrap_or_else(errors::broke_down));
    }

    fn answer_session(&mut self, handler: fn(&mut Session, &Request) -> Reply, request: &Request) {
        let form = self.form();
        let before = self.session.answers;
        let reply = catch_unwind(AssertUnwindSafe(|| handler(&mut self.session, request)));
        let reply = reply.unwrap_or_else(|_| {
            self.report_break_down();
            errors::broke_down()
        });
        // A command that turns answers on or off is itself answered in the new way.
        let silent = if self.session.answers == before {
            form.silent
        } else {
            self.session.answers != Answers::On
        };
        self.replies.push(
            Form {
                protocol: self.session.protocol,
                silent,
            },
            reply,
        );
    }

    fn begin(
        &mut self,
        prepared: Prepared,
        keys: order::KeyHashes,
        bytes: usize,
        cx: &mut Context<'_>,
    ) {
        let form = self.form();
        let Prepared { access, work } = prepared;
        let admitted = self.order.admits(keys.as_slice(), access);
        let mut flight = Flight {
            number: self.replies.next(),
            keys: None,
            bytes,
            work,
        };
        if admitted && let Poll::Ready(landed) = flight.poll_work(cx) {
            if landed.broke_down {
                self.report_break_down();
            }
            return self.replies.push(form, landed.reply);
        }
        let number = self.replies.reserve(form);
        let waits = self.order.claim(number, keys.as_slice(), access);
        flight.keys = Some(keys);
        self.bytes_under_way += bytes;
        if admitted {
            self.flights.push(flight);
        } else {
            self.grounded.insert(number, (waits, flight));
        }
    }

    fn begin_on_keyspace(
        &mut self,
        form: Form,
        request: &Request,
        work: Work,
        cx: &mut Context<'_>,
    ) {
        let bytes = request.held_bytes();
        let mut flight = Flight {
            number: self.replies.next(),
            keys: None,
            bytes,
            work,
        };
        match flight.poll_work(cx) {
            Poll::Ready(landed) => {
                if landed.broke_down {
                    self.report_break_down();
                }
                self.replies.push(form, landed.reply);
            }
            Poll::Pending => {
                self.replies.reserve(form);
                self.bytes_under_way += bytes;
                self.keyspace_busy = true;
                self.flights.push(flight);
            }
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let had_room = self.has_room();
        let mut written = false;
        while !self.replies.bytes().is_empty() {
            #[cfg(feature = "fail-points")]
            crate::fail_point::hit("acknowledge", "before");
            match Pin::new(&mut self.stream).poll_write(cx, self.replies.bytes()) {
                Poll::Pending => break,
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(sent)) => {
                    #[cfg(feature = "fail-points")]
                    crate::fail_point::hit("acknowledge", "after");
                    Counters::add(&self.session.server.counters.bytes_out, sent as u64);
                    self.replies.advance(sent);
                    written = true;
                }
                Poll::Ready(Err(error)) => return Err(error),
            }
        }
        if written && self.idle.is_some() {
            self.session.client.touch(self.session.server.gate.now());
        }
        // Only room that was won makes another round worth while.
        Ok(written && !had_room)
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        if self.ended || !self.has_room() {
            return Ok(false);
        }
        let wanted = self.decoder.bytes_wanted(&self.input).max(READ_BYTES);
        self.input.reserve(wanted);
        let read = std::pin::pin!(self.stream.read_buf(&mut self.input)).poll(cx);
        match read {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(0)) => {
                self.ended = true;
                Ok(true)
            }
            Poll::Ready(Ok(read)) => {
                Counters::add(&self.session.server.counters.bytes_in, read as u64);
                self.starved = false;
                self.session.client.touch(self.session.server.gate.now());
                Ok(true)
            }
            Poll::Ready(Err(error)) => Err(error),
        }
    }

    /// Whether the connection has been silent for too long. One that waits for its answers is not silent.
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> bool {
        let Some((timeout, sleep)) = &mut self.idle else {
            return false;
        };
        while sleep.as_mut().poll(cx).is_ready() {
            let silent = self
                .session
                .server
                .gate
                .now()
                .since(self.session.client.last_active());
            let waits = self.replies.unanswered() > 0;
            match timeout.checked_sub(silent).filter(|left| !left.is_zero()) {
                None if !waits => return true,
                left => {
                    let again = left.unwrap_or(*timeout);
                    sleep.as_mut().reset(Instant::now() + again);
                }
            }
        }
        false
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.session.server.clients.remove(self.session.client.id);
    }
}

/// Runs a handler; nothing if it panicked.
fn guarded<T>(handler: impl FnOnce() -> Result<T, Reply>) -> Result<T, Option<Reply>> {
    match catch_unwind(AssertUnwindSafe(handler)) {
        Ok(result) => result.map_err(Some),
        Err(_) => Err(None),
    }
}
