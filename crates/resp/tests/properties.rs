//! Properties that must hold for any input: how the bytes are cut changes nothing, nothing panics, everything written
//! can be read back, and another implementation of the protocol agrees.

use bytes::{Bytes, BytesMut};
use proptest::collection::vec;
use proptest::prelude::*;
use tidegate_resp::{
    Protocol, ProtocolError, Reply, ReplyDecoder, ReplyError, ReplyLimits, Request, RequestDecoder,
    RequestLimits, encode_request,
};

/// Cuts the input at the given places, whatever their order, and feeds the pieces.
fn pieces<'a>(input: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(input.len() + 1)).collect();
    places.sort_unstable();
    places.push(input.len());
    let mut start = 0;
    let mut pieces = Vec::new();
    for end in places {
        pieces.push(&input[start..end]);
        start = end;
    }
    pieces
}

/// Requests until the stream ends or fails. Fails itself if the decoder gives more than the bytes can hold.
fn read_requests(pieces: &[&[u8]], limits: RequestLimits) -> (Vec<Request>, Option<ProtocolError>) {
    let mut decoder = RequestDecoder::new(limits);
    let mut buffer = BytesMut::new();
    let mut requests = Vec::new();
    let input_len: usize = pieces.iter().map(|piece| piece.len()).sum();
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            assert!(requests.len() <= input_len, "more requests than bytes");
            match decoder.decode(&mut buffer) {
                Ok(Some(request)) => requests.push(request),
                Ok(None) => break,
                Err(error) => return (requests, Some(error)),
            }
        }
    }
    (requests, None)
}

fn read_replies(pieces: &[&[u8]], limits: ReplyLimits) -> (Vec<Reply>, Option<ReplyError>) {
    let mut decoder = ReplyDecoder::new(limits);
    let mut buffer = BytesMut::new();
    let mut replies = Vec::new();
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match decoder.decode(&mut buffer) {
                Ok(Some(reply)) => replies.push(reply),
                Ok(None) => break,
                Err(error) => return (replies, Some(error)),
            }
        }
    }
    (replies, None)
}

/// Bytes that look like the protocol often enough to reach its corners.
fn hostile_bytes() -> impl Strategy<Value = Vec<u8>> {
    let token = prop_oneof![
        8 => prop::sample::select(vec![
            "*", "$", "+", "-", ":", "_", "#", ",", "(", "=", "%", "~", ">", "|", "!", "\r\n",
            "\r\n", "\r\n", "\r", "\n", "0", "1", "2", "3", "-1", "10", "4294967296",
            "99999999999999999999", "\"", "'", "\\x", "\\", " ", "t", "f", "inf", "txt:", "PING",
            "*1\r\n$4\r\nPING\r\n", "$1\r\na\r\n", "*2\r\n", "\0",
        ]).prop_map(|token| token.as_bytes().to_vec()),
        1 => vec(any::<u8>(), 0..8),
    ];
    vec(token, 0..40).prop_map(|tokens| tokens.concat())
}

/// A line that needs no change to be safe.
fn line() -> impl Strategy<Value = Bytes> {
    "[ -~]{0,20}".prop_map(Bytes::from)
}

fn blob() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

/// Doubles that equal themselves.
fn double() -> impl Strategy<Value = f64> {
    any::<f64>().prop_map(|value| if value.is_nan() { 0.5 } else { value })
}

/// Values without parts that both versions keep apart.
fn scalar_of_both() -> impl Strategy<Value = Reply> {
    prop_oneof![
        line().prop_map(Reply::Simple),
        line().prop_map(Reply::Error),
        any::<i64>().prop_map(Reply::Integer),
        blob().prop_map(Reply::Bulk),
        Just(Reply::Null),
    ]
}

fn reply_of_resp2() -> impl Strategy<Value = Reply> {
    scalar_of_both().prop_recursive(4, 40, 6, |inner| vec(inner, 0..6).prop_map(Reply::Array))
}

fn scalar_of_resp3() -> impl Strategy<Value = Reply> {
    prop_oneof![
        3 => scalar_of_both(),
        1 => double().prop_map(Reply::Double),
        1 => any::<bool>().prop_map(Reply::Boolean),
        1 => "-?[0-9]{1,40}".prop_map(|digits| Reply::BigNumber(Bytes::from(digits))),
        1 => "[ -~]{0,20}".prop_map(|text| Reply::Verbatim { format: *b"txt", text: Bytes::from(text) }),
    ]
}

fn reply_of_resp3() -> impl Strategy<Value = Reply> {
    scalar_of_resp3().prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Reply::Array),
            vec(inner.clone(), 0..4).prop_map(Reply::Set),
            vec((inner.clone(), inner), 0..4).prop_map(Reply::Map),
        ]
    })
}

/// Replies that an implementation can hold which keeps sets and maps in hash tables: set items and map keys without
/// parts, and at most one of them, since their order is lost.
fn hashable_reply_of_resp3() -> impl Strategy<Value = Reply> {
    let key = || {
        prop_oneof![
            blob().prop_map(Reply::Bulk),
            any::<i64>().prop_map(Reply::Integer)
        ]
    };
    scalar_of_resp3().prop_recursive(4, 40, 6, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Reply::Array),
            vec(key(), 0..=1).prop_map(Reply::Set),
            vec((key(), inner), 0..=1).prop_map(Reply::Map),
        ]
    })
}

fn encoded(reply: &Reply, protocol: Protocol) -> BytesMut {
    let mut out = BytesMut::new();
    reply.encode(&mut out, protocol);
    out
}

/// Writes an argument so that the inline rules read it back.
fn quoted(argument: &[u8]) -> String {
    let bytes: Vec<String> = argument
        .iter()
        .map(|byte| format!("\\x{byte:02x}"))
        .collect();
    format!("\"{}\"", bytes.concat())
}

proptest! {
    #[test]
    fn any_requests_cut_anywhere_read_back(
        requests in vec(vec(vec(any::<u8>(), 0..30), 1..10), 1..6),
        inline in vec(any::<bool>(), 6),
        cuts in vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let mut input = BytesMut::new();
        for (request, inline) in requests.iter().zip(&inline) {
            if *inline {
                let line: Vec<String> = request.iter().map(|a| quoted(a)).collect();
                input.extend_from_slice(line.join(" ").as_bytes());
                input.extend_from_slice(b"\r\n");
            } else {
                encode_request(&mut input, request);
            }
        }
        let (read, error) = read_requests(&pieces(&input, &cuts), RequestLimits::default());
        prop_assert_eq!(error, None);
        let read: Vec<Vec<Vec<u8>>> = read
            .iter()
            .map(|request| request.arguments().map(<[u8]>::to_vec).collect())
            .collect();
        prop_assert_eq!(read, requests);
    }

    #[test]
    fn hostile_requests_do_not_depend_on_the_cuts(
        input in hostile_bytes(),
        cuts in vec(any::<prop::sample::Index>(), 0..12),
        small in any::<bool>(),
    ) {
        let limits = if small {
            RequestLimits { arguments_max: 2, bulk_bytes_max: 3, inline_bytes_max: 5, request_bytes_max: 24 }
        } else {
            RequestLimits::default()
        };
        let whole = read_requests(&[&input], limits);
        let single: Vec<&[u8]> = input.chunks(1).collect();
        prop_assert_eq!(&read_requests(&pieces(&input, &cuts), limits), &whole);
        prop_assert_eq!(&read_requests(&single, limits), &whole);
    }

    #[test]
    fn hostile_replies_do_not_depend_on_the_cuts(
        input in hostile_bytes(),
        cuts in vec(any::<prop::sample::Index>(), 0..12),
        small in any::<bool>(),
    ) {
        let limits = if small {
            ReplyLimits { depth_max: 2, values_max: 4, bulk_bytes_max: 3, line_bytes_max: 5 }
        } else {
            ReplyLimits::default()
        };
        // Text is compared, because a double may be `nan`, which differs from itself.
        let text = |pieces: &[&[u8]]| format!("{:?}", read_replies(pieces, limits));
        let whole = text(&[&input]);
        let single: Vec<&[u8]> = input.chunks(1).collect();
        prop_assert_eq!(&text(&pieces(&input, &cuts)), &whole);
        prop_assert_eq!(&text(&single), &whole);
    }

    #[test]
    fn replies_of_the_second_version_read_back(
        replies in vec(reply_of_resp2(), 1..5),
        cuts in vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let input: Vec<u8> =
            replies.iter().flat_map(|reply| encoded(reply, Protocol::Resp2)).collect();
        prop_assert_eq!(
            read_replies(&pieces(&input, &cuts), ReplyLimits::default()),
            (replies, None)
        );
    }

    #[test]
    fn replies_of_the_third_version_read_back(
        replies in vec(reply_of_resp3(), 1..5),
        cuts in vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let input: Vec<u8> =
            replies.iter().flat_map(|reply| encoded(reply, Protocol::Resp3)).collect();
        prop_assert_eq!(
            read_replies(&pieces(&input, &cuts), ReplyLimits::default()),
            (replies, None)
        );
    }

    /// Whatever texts a reply is made of, it is exactly one reply on the wire.
    #[test]
    fn no_text_forges_a_reply(
        text in vec(prop::sample::select(b"\r\n+-:$*_a0".to_vec()), 0..30),
        kind in 0..4,
    ) {
        let bytes = Bytes::from(text);
        let reply = match kind {
            0 => Reply::Simple(bytes),
            1 => Reply::Error(bytes),
            2 => Reply::Bulk(bytes),
            _ => Reply::Verbatim { format: *b"txt", text: bytes },
        };
        for protocol in [Protocol::Resp2, Protocol::Resp3] {
            let input = encoded(&reply, protocol);
            let (read, error) = read_replies(&[&input], ReplyLimits::default());
            prop_assert_eq!((read.len(), error), (1, None));
        }
    }

    #[test]
    fn another_implementation_writes_requests_that_are_read(
        arguments in vec(vec(any::<u8>(), 0..30), 1..10),
    ) {
        use redis_protocol::resp2::{encode::extend_encode, types::BytesFrame};
        let frame = BytesFrame::Array(
            arguments.iter().map(|a| BytesFrame::BulkString(Bytes::from(a.clone()))).collect(),
        );
        let mut theirs = BytesMut::new();
        extend_encode(&mut theirs, &frame, false).expect("encodable");
        let mut ours = BytesMut::new();
        encode_request(&mut ours, &arguments);
        prop_assert_eq!(&ours, &theirs);
        let (read, error) = read_requests(&[&theirs], RequestLimits::default());
        prop_assert_eq!((read.len(), error), (1, None));
        prop_assert!(read[0].arguments().eq(arguments.iter().map(Vec::as_slice)));
    }

    #[test]
    fn another_implementation_agrees_on_the_second_version(reply in reply_of_resp2()) {
        use redis_protocol::resp2::{decode::decode, encode};
        let ours = encoded(&reply, Protocol::Resp2);
        let (frame, len) = decode(&ours).expect("well-formed").expect("whole");
        prop_assert_eq!(len, ours.len());
        let mut theirs = vec![0; ours.len() + 64];
        let len = encode::encode(&mut theirs, &frame, false).expect("encodable");
        prop_assert_eq!(theirs[..len].escape_ascii().to_string(), ours.escape_ascii().to_string());
        prop_assert_eq!(from_resp2(frame), reply);
    }

    #[test]
    fn another_implementation_agrees_on_the_third_version(reply in hashable_reply_of_resp3()) {
        use redis_protocol::resp3::decode::complete::decode;
        let ours = encoded(&reply, Protocol::Resp3);
        let (frame, len) = decode(&ours).expect("well-formed").expect("whole");
        prop_assert_eq!(len, ours.len());
        prop_assert_eq!(from_resp3(frame), reply);
    }
}

fn from_resp2(frame: redis_protocol::resp2::types::OwnedFrame) -> Reply {
    use redis_protocol::resp2::types::OwnedFrame as Frame;
    match frame {
        Frame::SimpleString(text) => Reply::simple(text),
        Frame::Error(text) => Reply::error(text),
        Frame::Integer(value) => Reply::Integer(value),
        Frame::BulkString(bytes) => Reply::bulk(bytes),
        Frame::Array(items) => Reply::Array(items.into_iter().map(from_resp2).collect()),
        Frame::Null => Reply::Null,
    }
}

fn from_resp3(frame: redis_protocol::resp3::types::OwnedFrame) -> Reply {
    use redis_protocol::resp3::types::OwnedFrame as Frame;
    match frame {
        Frame::BlobString { data, .. } => Reply::bulk(data),
        Frame::SimpleString { data, .. } => Reply::simple(data),
        Frame::SimpleError { data, .. } => Reply::error(data),
        Frame::Boolean { data, .. } => Reply::Boolean(data),
        Frame::Null => Reply::Null,
        Frame::Number { data, .. } => Reply::Integer(data),
        Frame::Double { data, .. } => Reply::Double(data),
        Frame::BigNumber { data, .. } => Reply::BigNumber(Bytes::from(data)),
        Frame::VerbatimString { data, .. } => Reply::Verbatim {
            format: *b"txt",
            text: Bytes::from(data),
        },
        Frame::Array { data, .. } => Reply::Array(data.into_iter().map(from_resp3).collect()),
        Frame::Set { data, .. } => Reply::Set(data.into_iter().map(from_resp3).collect()),
        Frame::Map { data, .. } => Reply::Map(
            data.into_iter()
                .map(|(key, value)| (from_resp3(key), from_resp3(value)))
                .collect(),
        ),
        other => panic!("a frame of a kind that was not written: {other:?}"),
    }
}
