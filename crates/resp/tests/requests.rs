//! Requests construct by construct, limit by limit, through the public interface.

use bytes::BytesMut;
use tidegate_resp::{ProtocolError, Request, RequestDecoder, RequestLimits, encode_request};

/// Everything that a stream yields until it ends or fails.
fn decode_all(
    input: &[u8],
    chunk_bytes: usize,
    limits: RequestLimits,
) -> (Vec<Request>, Option<ProtocolError>, usize) {
    let mut decoder = RequestDecoder::new(limits);
    let mut buffer = BytesMut::new();
    let mut requests = Vec::new();
    for chunk in input.chunks(chunk_bytes.max(1)) {
        buffer.extend_from_slice(chunk);
        loop {
            match decoder.decode(&mut buffer) {
                Ok(Some(request)) => requests.push(request),
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(decoder.decode(&mut buffer), Err(error), "an error is final");
                    return (requests, Some(error), buffer.len());
                }
            }
        }
    }
    (requests, None, buffer.len())
}

/// The stream yields these requests, then this error or nothing, whole and byte by byte.
#[track_caller]
fn check_limited(
    input: &[u8],
    expected: &[&[&[u8]]],
    error: Option<ProtocolError>,
    limits: RequestLimits,
) {
    for chunk_bytes in [input.len(), 1, 2, 3] {
        let (requests, found, _) = decode_all(input, chunk_bytes, limits);
        let arguments: Vec<Vec<&[u8]>> = requests
            .iter()
            .map(|request| request.arguments().collect())
            .collect();
        assert_eq!(
            arguments,
            expected,
            "{} in {chunk_bytes}",
            input.escape_ascii()
        );
        assert_eq!(found, error, "{} in {chunk_bytes}", input.escape_ascii());
    }
}

#[track_caller]
fn check(input: &[u8], expected: &[&[&[u8]]]) {
    check_limited(input, expected, None, RequestLimits::default());
}

#[track_caller]
fn check_error(input: &[u8], error: ProtocolError, text: &str) {
    check_limited(input, &[], Some(error), RequestLimits::default());
    let mut out = BytesMut::new();
    error.write_reply(&mut out);
    assert_eq!(
        out.escape_ascii().to_string(),
        format!("-ERR {}\\r\\n", text.escape_default())
    );
}

#[test]
fn arrays_of_bulk_strings() {
    check(b"*1\r\n$4\r\nPING\r\n", &[&[b"PING"]]);
    check(
        b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$0\r\n\r\n*2\r\n$3\r\nGET\r\n$1\r\na\r\n",
        &[&[b"SET", b"a", b""], &[b"GET", b"a"]],
    );
    check(
        b"*1\r\n$12\r\n\r\n$-1\r\n*9\r\n\0\r\n",
        &[&[b"\r\n$-1\r\n*9\r\n\0"]],
    );
    let long = [b'x'; 12345];
    let mut out = BytesMut::new();
    encode_request(&mut out, &[&long[..], b"y"]);
    check(&out, &[&[&long, b"y"]]);
}

#[test]
fn more_arguments_than_lie_inline() {
    let arguments: Vec<String> = (0..1000).map(|n| n.to_string()).collect();
    let mut out = BytesMut::new();
    encode_request(&mut out, &arguments);
    let expected: Vec<&[u8]> = arguments.iter().map(String::as_bytes).collect();
    check(&out, &[&expected]);
}

#[test]
fn inline_commands() {
    check(
        b"PING\r\nSET a 'b c'\nGET \"\\x61\"\r\n",
        &[&[b"PING"], &[b"SET", b"a", b"b c"], &[b"GET", b"a"]],
    );
    check(
        b"PING\r\n*1\r\n$4\r\nECHO\r\nTIME\r\n",
        &[&[b"PING"], &[b"ECHO"], &[b"TIME"]],
    );
    check(b"$3\r\n", &[&[b"$3"]]);
}

#[test]
fn nothing_is_no_request() {
    check(b"", &[]);
    check(b"\r\n\n\r\n   \r\n", &[]);
    check(
        b"*0\r\n*-1\r\n*-5\r\nPING\r\n\r\n*0\r\nTIME\r\n",
        &[&[b"PING"], &[b"TIME"]],
    );
}

#[test]
fn malformed_counts_and_lengths() {
    let count = |input| {
        check_error(
            input,
            ProtocolError::InvalidCount,
            "Protocol error: invalid multibulk length",
        );
    };
    count(b"*\r\n");
    count(b"*abc\r\n");
    count(b"*01\r\n");
    count(b"*+1\r\n");
    count(b"* 1\r\n");
    count(b"*-0\r\n");
    count(b"*99999999999999999999\r\n");
    count(b"*1\rx");
    count(b"*1111111111111111111111111111111111111111111111\r\n");
    let length = |input| {
        check_error(
            input,
            ProtocolError::InvalidLength,
            "Protocol error: invalid bulk length",
        );
    };
    length(b"*1\r\n$\r\n");
    length(b"*1\r\n$-1\r\n");
    length(b"*1\r\n$abc\r\n");
    length(b"*1\r\n$00\r\n\r\n");
    length(b"*1\r\n$1\rx");
}

#[test]
fn an_argument_must_be_a_bulk_string() {
    let got = |input, got, text| {
        check_error(input, ProtocolError::ExpectedBulk { got }, text);
    };
    got(
        b"*1\r\nPING\r\n",
        b'P',
        "Protocol error: expected '$', got 'P'",
    );
    got(
        b"*2\r\n$1\r\na\r\n*1\r\n",
        b'*',
        "Protocol error: expected '$', got '*'",
    );
    got(
        b"*1\r\n\r\n",
        b'\r',
        "Protocol error: expected '$', got ' '",
    );
    got(
        b"*1\r\n\xff\r\n",
        0xff,
        "Protocol error: expected '$', got ' '",
    );
}

#[test]
fn a_wrong_length_never_turns_data_into_a_command() {
    check_error(
        b"*1\r\n$1\r\nabFLUSHALL\r\n",
        ProtocolError::BulkNotTerminated,
        "Protocol error: expected a line break after the bulk string",
    );
}

#[test]
fn open_quotes() {
    check_error(
        b"SET a \"b\r\n",
        ProtocolError::UnbalancedQuotes,
        "Protocol error: unbalanced quotes in request",
    );
}

#[test]
fn requests_before_the_bad_one_are_given() {
    check_limited(
        b"PING\r\n*1\r\n$4\r\nTIME\r\n*x\r\nPING\r\n",
        &[&[b"PING"], &[b"TIME"]],
        Some(ProtocolError::InvalidCount),
        RequestLimits::default(),
    );
}

#[test]
fn each_limit_has_its_error() {
    let limits = RequestLimits {
        arguments_max: 3,
        bulk_bytes_max: 8,
        inline_bytes_max: 6,
        request_bytes_max: 40,
    };
    let check = |input: &[u8], error| {
        let expected: &[&[&[u8]]] = &[];
        check_limited(input, expected, Some(error), limits);
        assert!(error.to_string().starts_with("Protocol error: "));
    };
    check(b"*4\r\n", ProtocolError::TooManyArguments);
    check(b"*1\r\n$9\r\n", ProtocolError::BulkTooLong);
    check(b"PINGING", ProtocolError::InlineTooLong);
    check(b"PINGING\r\n", ProtocolError::InlineTooLong);
    check(b"*111111", ProtocolError::CountLineTooLong);
    check(b"*1\r\n$111111", ProtocolError::LengthLineTooLong);
    // Two arguments of 8 bytes and the headers fit into 40 bytes, three do not.
    check(
        b"*3\r\n$8\r\n12345678\r\n$8\r\n12345678\r\n$8\r\n",
        ProtocolError::RequestTooLong,
    );
    check_limited(b"PINGIN\r\n", &[&[b"PINGIN"]], None, limits);
    check_limited(
        b"*3\r\n$8\r\n12345678\r\n$8\r\n12345678\r\n$1\r\n1\r\n",
        &[&[b"12345678", b"12345678", b"1"]],
        None,
        limits,
    );
}

#[test]
fn the_default_limits_are_those_of_redis() {
    let fails = |input: &[u8], expected| {
        let (_, error, _) = decode_all(input, input.len(), RequestLimits::default());
        assert_eq!(error, expected, "{}", input.len());
    };
    fails(b"*1048577\r\n", Some(ProtocolError::TooManyArguments));
    fails(b"*1048576\r\n", None);
    fails(b"*1\r\n$536870913\r\n", Some(ProtocolError::BulkTooLong));
    fails(b"*1\r\n$536870912\r\n", None);
    fails(&[b'a'; 64 * 1024], None);
    fails(&[b'a'; 64 * 1024 + 1], Some(ProtocolError::InlineTooLong));
    let mut digits = vec![b'1'; 64 * 1024 + 1];
    digits[0] = b'*';
    fails(&digits, Some(ProtocolError::CountLineTooLong));
    fails(&digits[..64 * 1024], None);
}

#[test]
fn what_is_announced_is_not_reserved() {
    let mut decoder = RequestDecoder::default();
    let mut buffer = BytesMut::from(&b"*1048576\r\n$536870912\r\nab"[..]);
    let capacity = buffer.capacity();
    assert_eq!(decoder.decode(&mut buffer), Ok(None));
    assert_eq!(buffer.capacity(), capacity);
    assert_eq!(decoder.bytes_wanted(&buffer), 256 * 1024, "a bounded wish");
    assert!(decoder.is_mid_request(&buffer));

    let mut decoder = RequestDecoder::default();
    let mut buffer = BytesMut::from(&b"*1\r\n$5\r\nab"[..]);
    assert_eq!(decoder.decode(&mut buffer), Ok(None));
    assert_eq!(
        decoder.bytes_wanted(&buffer),
        5,
        "three of the body, two of its line break"
    );
    buffer.extend_from_slice(b"cde\r\n");
    assert!(matches!(decoder.decode(&mut buffer), Ok(Some(_))));
    assert_eq!(decoder.bytes_wanted(&buffer), 0);
    assert!(!decoder.is_mid_request(&buffer));
}

#[test]
fn a_request_gives_its_parts() {
    let mut buffer = BytesMut::from(&b"*2\r\n$3\r\nget\r\n$6\r\nsecret\r\n"[..]);
    let request = RequestDecoder::default()
        .decode(&mut buffer)
        .expect("valid")
        .expect("whole");
    assert_eq!(request.name(), b"get");
    assert_eq!(request.len(), 2);
    assert_eq!(request.argument(1), Some(&b"secret"[..]));
    assert_eq!(request.argument_shared(1).as_deref(), Some(&b"secret"[..]));
    assert_eq!(request.argument(2), None);
    assert_eq!(request.argument_shared(2), None);
    assert_eq!(request.held_bytes(), 25);
    assert_eq!(format!("{request:?}"), "Request { argument_bytes: [3, 6] }");
}

/// Four times the bytes, one at a time, must cost about four times the work; a decoder that begins again with each byte
/// needs sixteen times. The best of several rounds on both sides keeps other programs out of the comparison.
#[track_caller]
fn check_linear(what: &str, input_of: impl Fn(usize) -> Vec<u8>, whole: usize) {
    let limits = RequestLimits {
        inline_bytes_max: 4 * 1024 * 1024,
        ..RequestLimits::default()
    };
    let best = |size| {
        let input = input_of(size);
        (0..3)
            .map(|_| {
                time(|| {
                    let (requests, error, _) = decode_all(&input, 1, limits);
                    assert_eq!((requests.len(), error), (whole, None), "{what}");
                })
            })
            .min()
            .expect("three rounds")
    };
    let (small, large) = (best(128 * 1024), best(512 * 1024));
    assert!(
        large < 8 * small,
        "{what}: {small:?} for a quarter of {large:?}"
    );
}

#[expect(
    clippy::disallowed_methods,
    reason = "the cost of decoding is measured in real time"
)]
fn time(work: impl FnOnce()) -> std::time::Duration {
    let start = std::time::Instant::now();
    work();
    start.elapsed()
}

#[test]
fn input_byte_by_byte_is_linear() {
    let encoded = |arguments: &[&[u8]]| {
        let mut out = BytesMut::new();
        encode_request(&mut out, arguments);
        out.to_vec()
    };
    check_linear(
        "a long argument",
        |size| encoded(&[b"SET", b"a", &vec![b'v'; size]]),
        1,
    );
    check_linear(
        "many arguments",
        |size| encoded(&vec![&b"x"[..]; size / 7]),
        1,
    );
    for first in ["*", "a", "*1\r\n$"] {
        let unfinished = |size| [first.as_bytes(), &vec![b'1'; size]].concat();
        check_linear("a line without an end", unfinished, 0);
    }
}

#[test]
fn a_mebibyte_byte_by_byte_arrives_whole() {
    let value: Vec<u8> = (0..1024 * 1024).map(|n| (n % 251) as u8).collect();
    let mut input = BytesMut::new();
    encode_request(&mut input, &[b"SET", &b"a"[..], &value]);
    let (requests, error, left) = decode_all(&input, 1, RequestLimits::default());
    assert_eq!((requests.len(), error, left), (1, None, 0));
    assert_eq!(requests[0].argument(2), Some(&value[..]));
}
