//! What one command costs in the codec, in nanoseconds: reading pipelined requests and writing replies.
//!
//! Run with `cargo bench -p tidegate-resp`. It prints figures and never fails: they belong to the machine. Each figure
//! is the best of several rounds, which is the one least disturbed by other programs. The last lines are the same work
//! in other ways, kept so that the choice can be questioned: one shared handle per argument, and the `redis-protocol`
//! crate.

#![expect(
    clippy::print_stdout,
    reason = "the figures are what the program is for"
)]

use bytes::{Bytes, BytesMut};
use std::hint::black_box;
use std::time::Duration;
use tidegate_resp::{Protocol, ReplyDecoder, Request, RequestDecoder, encode_request, reply};

const ROUNDS: u32 = 200;
const PIPELINE: usize = 512;

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn best_of(mut round: impl FnMut()) -> Duration {
    (0..ROUNDS)
        .map(|_| {
            let start = std::time::Instant::now();
            round();
            start.elapsed()
        })
        .min()
        .unwrap_or_default()
}

fn report(name: &str, round: impl FnMut()) {
    let nanoseconds = best_of(round).as_nanos() as f64 / PIPELINE as f64;
    println!("{name:<52} {nanoseconds:>8.1} ns/command");
}

fn pipeline(arguments: &[&[u8]]) -> BytesMut {
    let mut bytes = BytesMut::new();
    for _ in 0..PIPELINE {
        encode_request(&mut bytes, arguments);
    }
    bytes
}

/// A read buffer as a connection has it: filled by a copy, emptied by the decoder, its memory used again.
fn fill(buffer: &mut BytesMut, wire: &[u8]) {
    buffer.clear();
    buffer.reserve(wire.len());
    buffer.extend_from_slice(wire);
}

fn main() {
    let value = [b'v'; 100];
    let get: &[&[u8]] = &[b"GET", b"session:00001234"];
    let set: &[&[u8]] = &[b"SET", b"session:00001234", &value];
    let set_with_options: &[&[u8]] = &[b"SET", b"session:00001234", &value, b"EX", b"100", b"NX"];
    let many: Vec<&[u8]> = vec![b"MSET"; 101];
    for (name, arguments) in [
        ("GET", get),
        ("SET of 100 bytes", set),
        ("SET of 100 bytes EX NX", set_with_options),
        ("MSET of 50 pairs", &many),
    ] {
        let wire = pipeline(arguments);
        let mut buffer = BytesMut::new();
        report(&format!("fill the buffer only: {name}"), || {
            fill(&mut buffer, &wire);
            black_box(&buffer);
        });
        let mut decoder = RequestDecoder::default();
        report(&format!("fill and read: {name}"), || {
            fill(&mut buffer, &wire);
            while let Ok(Some(request)) = decoder.decode(&mut buffer) {
                black_box(&request);
            }
        });
        report(
            &format!("fill and read, one shared handle per argument: {name}"),
            || {
                fill(&mut buffer, &wire);
                while let Ok(Some(request)) = decoder.decode(&mut buffer) {
                    black_box(shared_arguments(&request));
                }
            },
        );
        report(&format!("fill and read, redis-protocol: {name}"), || {
            fill(&mut buffer, &wire);
            while let Ok(Some(frame)) = redis_protocol::resp2::decode::decode_bytes_mut(&mut buffer)
            {
                black_box(&frame);
            }
        });
    }

    let mut out = BytesMut::new();
    report("write: bulk string of 100 bytes", || {
        out.clear();
        (0..PIPELINE).for_each(|_| reply::encode_bulk(&mut out, black_box(&value)));
    });
    report("write: OK", || {
        out.clear();
        (0..PIPELINE).for_each(|_| reply::encode_simple(&mut out, black_box(b"OK")));
    });
    report("write: integer", || {
        out.clear();
        (0..PIPELINE).for_each(|_| reply::encode_integer(&mut out, black_box(123_456)));
    });
    report("write: null", || {
        out.clear();
        (0..PIPELINE).for_each(|_| reply::encode_null(&mut out, black_box(Protocol::Resp3)));
    });
    let frame = redis_protocol::resp2::types::BytesFrame::BulkString(Bytes::from(value.to_vec()));
    report("write, redis-protocol: bulk string of 100 bytes", || {
        out.clear();
        for _ in 0..PIPELINE {
            let _ = redis_protocol::resp2::encode::extend_encode(&mut out, &frame, false);
        }
    });

    let mut wire = BytesMut::new();
    (0..PIPELINE).for_each(|_| reply::encode_bulk(&mut wire, &value));
    let mut buffer = BytesMut::new();
    let mut decoder = ReplyDecoder::default();
    report("fill and read a reply: bulk string of 100 bytes", || {
        fill(&mut buffer, &wire);
        while let Ok(Some(reply)) = decoder.decode(&mut buffer) {
            black_box(&reply);
        }
    });
}

fn shared_arguments(request: &Request) -> Vec<Bytes> {
    (0..request.len())
        .filter_map(|place| request.argument_shared(place))
        .collect()
}
