//! The admin address: metrics for Prometheus and two questions for whoever watches over the process, by HTTP.
//!
//! | path | answer |
//! |---|---|
//! | `/metrics` | the figures, in the text format of Prometheus |
//! | `/healthz` | 200 as long as the process answers |
//! | `/readyz` | 200 if clients can be served: no shutdown has begun, the journal has not failed if a class needs it, and the store and the shared cache, if there is one, answer; otherwise 503 |
//!
//! It takes `GET` and `HEAD` only, reads no bodies, and bounds what a stranger can hold: connections at once, the size
//! of a head, the time to send it, and the life of a connection. It goes on answering while the server drains.

mod figures;
mod page;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tidegate::{Class, Durability, Strategy, WhenJournalFails};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;

use crate::server::Server;

/// Connections at once; one more ends the oldest. So those who hold places keep nobody from asking after the health of
/// the process.
const CONNECTIONS_MAX: usize = 64;
/// Bytes of a request's head.
const HEAD_BYTES_MAX: usize = 16 * 1024;
const HEADERS_MAX: usize = 64;
/// How long a request's head may take, from the end of the last answer on: longer than the pause between two scrapes.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
/// How long a connection may live, whatever happens on it.
const CONNECTION_LIFE: Duration = Duration::from_secs(600);
/// How long the store may take to be called ready.
const READY_TIMEOUT: Duration = Duration::from_secs(2);
/// How long to wait when no connection can be taken, as when the process has no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const METRICS: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// Answers on the listener until this future is dropped, which closes all connections.
pub(crate) async fn serve(listener: TcpListener, server: Arc<Server>) {
    let mut connections = JoinSet::new();
    let mut oldest_first = VecDeque::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                while connections.try_join_next().is_some() {}
                oldest_first.retain(|connection: &AbortHandle| !connection.is_finished());
                if oldest_first.len() >= CONNECTIONS_MAX
                    && let Some(oldest) = oldest_first.pop_front()
                {
                    oldest.abort();
                }
                let server = Arc::clone(&server);
                oldest_first.push_back(connections.spawn(async move {
                    // A peer that is cut off or speaks no HTTP is no news.
                    let _ = timeout(CONNECTION_LIFE, converse(stream, server)).await;
                }));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot take an admin connection; trying again");
                tokio::time::sleep_until(tokio::time::Instant::now() + ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn converse(stream: TcpStream, server: Arc<Server>) -> hyper::Result<()> {
    let service = service_fn(move |request: Request<Incoming>| {
        let server = Arc::clone(&server);
        async move {
            let (method, path) = (request.method().clone(), request.uri().path().to_owned());
            // The body, if there is one, is dropped unread.
            drop(request);
            Ok::<_, Infallible>(answer(&method, &path, &server).await)
        }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

async fn answer(method: &Method, path: &str, server: &Server) -> Response<Full<Bytes>> {
    if method != Method::GET && method != Method::HEAD {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match path {
        "/metrics" => respond(StatusCode::OK, METRICS, figures::page(server).into()),
        "/healthz" => text(StatusCode::OK, "ok\n"),
        "/readyz" => ready(server).await,
        "/" => text(StatusCode::OK, "tidegate: /metrics /healthz /readyz\n"),
        _ => text(
            StatusCode::NOT_FOUND,
            "not found; there are /metrics /healthz /readyz\n",
        ),
    }
}

/// What keeps a server from being ready is in its log and metrics; a stranger is told no more than this.
async fn ready(server: &Server) -> Response<Full<Bytes>> {
    if server.clients.is_closing() {
        return text(StatusCode::SERVICE_UNAVAILABLE, "shutting down\n");
    }
    if server.gate.journal_failed() && server.gate.classes().iter().any(refuses_without_journal) {
        return text(
            StatusCode::SERVICE_UNAVAILABLE,
            "the journal takes no writes until the server is started again\n",
        );
    }
    match timeout(READY_TIMEOUT, server.gate.ping_store()).await {
        Ok(Ok(())) => ready_shared(server).await,
        Ok(Err(_)) => text(
            StatusCode::SERVICE_UNAVAILABLE,
            "the store cannot be reached\n",
        ),
        Err(_) => text(
            StatusCode::SERVICE_UNAVAILABLE,
            "the store does not answer\n",
        ),
    }
}

async fn ready_shared(server: &Server) -> Response<Full<Bytes>> {
    match timeout(READY_TIMEOUT, server.gate.ping_shared()).await {
        Ok(Ok(())) => text(StatusCode::OK, "ready\n"),
        Ok(Err(_)) | Err(_) => text(
            StatusCode::SERVICE_UNAVAILABLE,
            "the shared cache cannot be reached: writes are refused, reads come from the store\n",
        ),
    }
}

/// Whether writes of a class are refused once the journal has failed.
fn refuses_without_journal(class: &Class) -> bool {
    class.strategy == Strategy::WriteBack
        && class.durability == Durability::Journal
        && class.when_journal_fails == WhenJournalFails::Refuse
}

fn text(status: StatusCode, words: &'static str) -> Response<Full<Bytes>> {
    respond(status, TEXT, Bytes::from_static(words.as_bytes()))
}

fn respond(status: StatusCode, kind: HeaderValue, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, kind);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_journal_matters_where_writes_are_then_refused() {
        let back = || Class::new("b", "b:*").strategy(Strategy::WriteBack);
        assert!(refuses_without_journal(&back()));
        let through = back().when_journal_fails(WhenJournalFails::WriteThrough);
        assert!(!refuses_without_journal(&through));
        assert!(!refuses_without_journal(
            &back().durability(Durability::Memory)
        ));
        assert!(!refuses_without_journal(&Class::new("t", "t:*")));
    }
}
