//! Requests and responses, a line a case; each is fed whole, in pieces, and byte by byte.

use super::body::{EXTENSION_BYTES_MAX, TRAILER_BYTES_MAX};
use super::head::{BLANK_LINES_MAX, HEADERS_MAX, TARGET_BYTES_MAX};
use super::response::{GZIP_BYTES_MIN, reason_phrase};
use super::*;
use crate::model::Wall;

/// Feeds the bytes in pieces of `step` and lists what comes out, until an error.
fn feed(bytes: &[u8], step: usize) -> (Vec<Request>, Option<u16>) {
    let (mut parser, mut buffer, mut requests) = (Parser::default(), Vec::new(), Vec::new());
    for piece in bytes.chunks(step) {
        buffer.extend_from_slice(piece);
        loop {
            match parser.next(&mut buffer) {
                Ok(Parsed::Request(request)) => requests.push(request),
                Ok(Parsed::Partial) => break,
                Ok(Parsed::Body { .. }) => {}
                Err(bad) => return (requests, Some(bad.status)),
            }
        }
    }
    (requests, None)
}

#[track_caller]
fn refuse(text: &str, status: u16) {
    for step in [1, 7, text.len()] {
        let (requests, error) = feed(text.as_bytes(), step);
        assert_eq!((requests.len(), error), (0, Some(status)), "{:?}", &text[..text.len().min(90)]);
    }
}

/// The one request of this text.
#[track_caller]
fn take(text: &str) -> Request {
    for step in [1, 7] {
        assert_eq!(feed(text.as_bytes(), step), feed(text.as_bytes(), text.len()));
    }
    let (mut requests, error) = feed(text.as_bytes(), text.len());
    assert_eq!((requests.len(), error), (1, None), "{:?}", &text[..text.len().min(90)]);
    requests.remove(0)
}

/// A GET with these headers, a line each.
fn get(headers: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: x\r\n{headers}\r\n")
}

fn post(headers: &str, body: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: x\r\n{headers}\r\n\r\n{body}")
}

fn chunked(body: &str) -> String {
    post("Transfer-Encoding: chunked", body)
}

#[test]
fn requests_come_out_however_the_bytes_are_split() {
    let text = "GET /cron/list?a=1&b HTTP/1.1\r\nHost: x\r\n\r\nPOST /cron/add HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nabcde\r\nGET / HTTP/1.0\r\n\r\n";
    for step in 1..text.len() {
        let (requests, error) = feed(text.as_bytes(), step);
        assert_eq!(error, None);
        let seen: Vec<_> = requests
            .iter()
            .map(|request| (request.method.as_str(), request.path.as_str(), request.keep_alive))
            .collect();
        assert_eq!(seen, [("GET", "/cron/list", true), ("POST", "/cron/add", true), ("GET", "/", false)]);
        assert_eq!(requests[0].query, b"a=1&b");
        assert_eq!(requests[1].body, b"abcde");
    }
}

#[test]
fn a_request_line_that_is_none_is_refused() {
    for line in ["rubbish", "GET /", "GET  / HTTP/1.1", "GET / HTTP/1.1 ", " GET / HTTP/1.1", "G(T / HTTP/1.1"] {
        refuse(&format!("{line}\r\nHost: x\r\n\r\n"), 400);
    }
    for line in ["GET x HTTP/1.1", "GET * HTTP/1.1", "GET ftp://x/ HTTP/1.1", "GET http:/// HTTP/1.1", "GET / http/1.1"]
    {
        refuse(&format!("{line}\r\nHost: x\r\n\r\n"), 400);
    }
    refuse("\0\0\0\0 \r\n\r\n", 400);
    refuse("\x16\x03\x01\x02", 400);
    for version in ["9.9", "2.0", "0.9", "3.0"] {
        refuse(&format!("GET / HTTP/{version}\r\nHost: x\r\n\r\n"), 505);
    }
    refuse("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505);
    assert_eq!(feed(b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n", 9).1, Some(400));
    assert!(take("GET / HTTP/1.2\r\nHost: x\r\n\r\n").takes_chunks, "a later minor version is understood as 1.1");
}

#[test]
fn a_line_ends_with_cr_lf_and_nothing_else() {
    for text in [
        "GET / HTTP/1.1\nHost: x\n\n",
        "GET / HTTP/1.1\r\nHost: x\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nA: b\rc\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\n\nGET / HTTP/1.1\r\n\r\n",
        "\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\n A: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nA : b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\n: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nA: b\0\r\n\r\n",
    ] {
        refuse(text, 400);
    }
    refuse(&chunked("1\na\r\n0\r\n\r\n"), 400);
    refuse(&chunked("1\r\na\n0\r\n\r\n"), 400);
    refuse(&chunked("0\r\nA: b\n\r\n"), 400);
    assert_eq!(take(&get("Empty:\r\nBlank:  \r\n")).path, "/");
}

#[test]
fn a_host_is_there_once_and_is_one() {
    let with = |host: &str| format!("GET / HTTP/1.1\r\n{host}\r\n");
    for host in ["", "Host: x\r\nHost: x\r\n", "Host: a b\r\n", "Host: a/b\r\n", "Host: a@b\r\n", "Host: a:b\r\n"] {
        refuse(&with(host), 400);
    }
    for host in ["Host: [::1\r\n", "Host: [x]\r\n", "Host: [::1]9\r\n", "Host: a:123456\r\n", "Host: x,y:z\r\n"] {
        refuse(&with(host), 400);
    }
    for host in ["", "x", "x:", "a-b_c.d:9990", "127.0.0.1:80", "[::1]", "[fe80::1]:80", "x%20y"] {
        take(&with(&format!("Host: {host}\r\n")));
    }
    take("GET / HTTP/1.0\r\n\r\n");
    refuse("GET / HTTP/1.0\r\nHost: x\r\nHost: y\r\n\r\n", 400);
}

#[test]
fn a_target_may_be_a_whole_url() {
    let target = |target: &str| {
        let request = take(&format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"));
        (request.path, String::from_utf8(request.query).unwrap())
    };
    for (sent, path, query) in [
        ("/a?b=c?d", "/a", "b=c?d"),
        ("http://x:80/a?b", "/a", "b"),
        ("HTTPS://x", "/", ""),
        ("http://x?b", "/", "b"),
        ("/?u=http://x/y", "/", "u=http://x/y"),
        ("//a", "//a", ""),
        ("/log/list?search=中文", "/log/list", "search=中文"),
    ] {
        assert_eq!(target(sent), (path.into(), query.into()), "{sent}");
    }
    assert_eq!(take("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n").path, "*");
    for (sent, host) in [("/a", "x"), ("http://y:80/a", "y:80"), ("http://x", "x")] {
        let request = take(&format!("GET {sent} HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert_eq!(request.headers.all("host").collect::<Vec<_>>(), [host], "{sent}");
    }
    assert_eq!(take("GET http://y/a HTTP/1.0\r\n\r\n").headers.get("host"), Some("y"));
}

#[test]
fn a_body_has_one_framing() {
    for (headers, status) in [
        ("Transfer-Encoding: chunked\r\nContent-Length: 3", 400),
        ("Content-Length: 3\r\nTransfer-Encoding: chunked", 400),
        ("Content-Length: 3\r\nContent-Length: 4", 400),
        ("Content-Length: 3\r\nContent-Length: 3", 400),
        ("Content-Length: 3, 4", 400),
        ("Content-Length: +3", 400),
        ("Content-Length: -3", 400),
        ("Content-Length: 0x3", 400),
        ("Content-Length:", 400),
        ("Content-Length: 99999999999999999999999", 413),
        ("Transfer-Encoding: chunked, chunked", 400),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", 400),
        ("Transfer-Encoding: gzip, chunked", 501),
        ("Transfer-Encoding: chunked, gzip", 501),
        ("Transfer-Encoding: identity", 501),
        ("Transfer-Encoding: xchunked", 501),
        ("Transfer-Encoding: chunked\u{a0}", 501),
        ("Content-Length: 3\u{a0}", 400),
        ("Transfer-Encoding:", 501),
        ("Expect: 200-ok", 417),
        ("Content-Type: a\r\nContent-Type: b", 400),
        ("Idempotency-Key: a\r\nIdempotency-Key: a", 400),
    ] {
        refuse(&post(headers, "abc"), status);
    }
    refuse("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400);
    assert!(!take(&get("")).has_body);
    assert!(take(&post("Content-Length: 0", "")).has_body);
}

#[test]
fn a_chunked_body_is_put_together() {
    for (sent, body) in [
        ("0\r\n\r\n", ""),
        ("3\r\nabc\r\n0\r\n\r\n", "abc"),
        ("1\r\na\r\n002\r\nbc\r\n000\r\n\r\n", "abc"),
        ("3;name=value\r\nabc\r\n0 ; x=\"y\"\r\n\r\n", "abc"),
        (
            "A\r\n0123456789\r\nb\r\n0123456789\n\r\n0\r\nTrailer: ignored\r\nContent-Length: 7\r\n\r\n",
            "01234567890123456789\n",
        ),
    ] {
        let request = take(&chunked(sent));
        assert_eq!((String::from_utf8(request.body).unwrap().as_str(), request.has_body), (body, true), "{sent:?}");
    }
    take(&post("transfer-ENCODING: Chunked", "0\r\n\r\n"));
    for wrong in [
        "x\r\n",
        "\r\n",
        ";a\r\n",
        "-1\r\na\r\n",
        "1 \r\na\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "1\r\nab\r\n",
        "0x1\r\na\r\n",
    ] {
        refuse(&chunked(wrong), 400);
    }
    refuse(&chunked("ffffffffffffffffffffffff\r\n"), 413);
    let two = [chunked("1\r\na\r\n0\r\n\r\n"), get("")].concat();
    assert_eq!(feed(two.as_bytes(), 5).0.len(), 2);
}

#[test]
fn each_limit_of_a_head_has_its_edge() {
    let long = |target: usize, header: usize| {
        format!("GET /{} HTTP/1.1\r\nHost: x\r\nA: {}\r\n\r\n", "x".repeat(target - 1), "y".repeat(header))
    };
    let head_rest = long(1, 0).len() - 1;
    take(&long(TARGET_BYTES_MAX, 1));
    refuse(&long(TARGET_BYTES_MAX + 1, 1), 414);
    refuse(&"G".repeat(TARGET_BYTES_MAX + 100), 414);
    take(&long(1, HEAD_BYTES_MAX - head_rest - 1));
    refuse(&long(1, HEAD_BYTES_MAX - head_rest), 431);
    take(&get(&"A: b\r\n".repeat(HEADERS_MAX - 1)));
    refuse(&get(&"A: b\r\n".repeat(HEADERS_MAX)), 431);
    take(&["\r\n".repeat(BLANK_LINES_MAX), get("")].concat());
    refuse(&"\r\n".repeat(BLANK_LINES_MAX + 1), 400);
}

#[test]
fn each_limit_of_a_body_has_its_edge() {
    let of = |bytes: usize| post(&format!("Content-Length: {bytes}"), &"z".repeat(bytes));
    assert_eq!(take(&of(BODY_BYTES_MAX)).body.len(), BODY_BYTES_MAX);
    refuse(&of(BODY_BYTES_MAX + 1), 413);
    let half = format!("{:x}\r\n{}\r\n", BODY_BYTES_MAX / 2, "z".repeat(BODY_BYTES_MAX / 2));
    assert_eq!(take(&chunked(&format!("{half}{half}0\r\n\r\n"))).body.len(), BODY_BYTES_MAX);
    refuse(&chunked(&format!("{half}{half}1\r\nz\r\n")), 413);
    let extended = |bytes: usize| chunked(&format!("00000003;{}\r\nabc\r\n0\r\n\r\n", "x".repeat(bytes - 1)));
    take(&extended(EXTENSION_BYTES_MAX));
    refuse(&extended(EXTENSION_BYTES_MAX + 1), 400);
    let share = EXTENSION_BYTES_MAX / 16;
    let many = |chunks: usize| chunked(&format!("00000001;{}\r\na\r\n", "x".repeat(share - 1)).repeat(chunks));
    assert_eq!(feed(many(16).as_bytes(), 999), (vec![], None));
    refuse(&many(17), 400);
    let trailed = |bytes: usize| chunked(&format!("0\r\nA: {}\r\nB: c\r\n\r\n", "x".repeat(bytes - 11)));
    take(&trailed(TRAILER_BYTES_MAX));
    refuse(&trailed(TRAILER_BYTES_MAX + 1), 431);
}

#[test]
fn a_connection_is_kept_as_both_sides_say() {
    for (version, connection, is_kept) in [
        ("1.1", "", true),
        ("1.1", "close", false),
        ("1.1", "keep-alive, Close", false),
        ("1.1", "close\r\nConnection: keep-alive", false),
        ("1.0", "", false),
        ("1.0", "Keep-Alive", true),
        ("1.0", "keep-alive, close", false),
        ("1.0", "upgrade", false),
    ] {
        let request = take(&format!("GET / HTTP/{version}\r\nHost: x\r\nConnection: {connection}\r\n\r\n"));
        assert_eq!(request.keep_alive, is_kept, "{version} {connection}");
        assert_eq!(request.takes_chunks, version == "1.1");
    }
}

#[test]
fn gzip_is_taken_by_its_quality() {
    for (accepted, is_wanted) in [
        ("gzip", true),
        ("GZIP;Q=1", true),
        ("deflate, gzip;q=0.5, br", true),
        ("x-gzip", true),
        ("*", true),
        ("*;q=0.1", true),
        ("", false),
        ("gzip;q=0", false),
        ("gzip;q=0.000, *", false),
        ("*;q=0", false),
        ("identity", false),
        ("identity;q=1, gzip;q=0.5", false),
        ("identity;q=0.5, gzip;q=1.0", true),
        ("gzip;q=x", false),
        ("gzip; q=2", false),
        ("gzipped", false),
    ] {
        let request = take(&get(&format!("Accept-Encoding: {accepted}\r\n")));
        assert_eq!(request.takes_gzip, is_wanted, "{accepted}");
    }
    assert!(!take("GET / HTTP/1.0\r\nAccept-Encoding: gzip\r\n\r\n").takes_gzip, "it comes in chunks");
}

#[test]
fn an_answer_is_compressed_where_it_is_worth_it() {
    let text = |parts: (Vec<(&'static str, String)>, Content)| {
        let (headers, mut bytes) = (parts.0, Vec::new());
        match parts.1 {
            Content::Plain(body) => bytes = body,
            Content::Gzip(mut gzip) => {
                while let Some(piece) = gzip.next_piece() {
                    bytes.extend(piece)
                }
            }
        }
        (String::from_utf8(response_head(200, &headers, true, Wall(0))).unwrap(), bytes)
    };
    let of = |bytes: usize, takes_gzip| text(Response::json(200, b"x1".repeat(bytes / 2)).into_parts(takes_gzip));
    let (head, body) = of(GZIP_BYTES_MIN, true);
    assert!(head.contains("Content-Length: 1024\r\n") && !head.contains("Vary") && body.len() == 1024, "{head}");
    let (head, body) = of(GZIP_BYTES_MIN + 2, false);
    assert!(head.contains("Vary: Accept-Encoding\r\nContent-Length: 1026\r\n") && body.len() == 1026, "{head}");
    for bytes in [GZIP_BYTES_MIN + 2, 64 << 10, (64 << 10) + 2, 300 << 10] {
        let (head, body) = of(bytes, true);
        assert!(head.contains("Vary: Accept-Encoding\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n"));
        assert!(!head.contains("Content-Length") && body.len() < bytes / 10, "{head}");
        let mut plain = Vec::with_capacity(bytes + 1);
        let status = flate2::Decompress::new(false).decompress_vec(
            &body[10..body.len() - 8],
            &mut plain,
            flate2::FlushDecompress::Finish,
        );
        assert_eq!((status.unwrap(), plain == b"x1".repeat(bytes / 2)), (flate2::Status::StreamEnd, true));
        assert_eq!(body[body.len() - 4..], (bytes as u32).to_le_bytes());
    }
}

#[test]
fn a_head_has_a_date_and_the_reason_of_its_status() {
    let head = |status, headers: &[_], keep_alive| {
        String::from_utf8(response_head(status, headers, keep_alive, Wall(784_111_777_000_000_000))).unwrap()
    };
    let date = "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
    assert_eq!(head(200, &[], true), format!("HTTP/1.1 200 OK\r\n{date}Connection: keep-alive\r\n\r\n"));
    let allow = ("Allow", "GET".to_string());
    assert_eq!(
        head(409, &[allow], false),
        format!("HTTP/1.1 409 Conflict\r\nAllow: GET\r\n{date}Connection: close\r\n\r\n")
    );
    for status in [200, 204, 400, 404, 405, 408, 409, 411, 413, 414, 415, 417, 431, 500, 501, 503, 505] {
        assert_ne!(reason_phrase(status), "", "{status}");
    }
}

#[test]
fn a_chunk_tells_its_length() {
    assert_eq!(chunk(&[b'x'; 26]), format!("1a\r\n{}\r\n", "x".repeat(26)).into_bytes());
    assert_eq!(chunk(b"\xff\r\n"), b"3\r\n\xff\r\n\r\n");
    assert_eq!(chunk(b""), b"", "it would end the text");
}

#[test]
fn a_request_may_have_a_key() {
    assert_eq!(take(&get("idempotency-KEY:  a b \r\n")).request_key.as_deref(), Some("a b"));
}

#[test]
fn a_client_that_waits_for_leave_is_told_once() {
    for (expect, version, expects_continue) in
        [("100-Continue", "1.1", true), ("100-continue", "1.0", false), ("", "1.1", false)]
    {
        let head = format!("POST / HTTP/{version}\r\nHost: x\r\nExpect: {expect}\r\nContent-Length: 2\r\n\r\n");
        let (mut parser, mut buffer) = (Parser::default(), head.into_bytes());
        assert_eq!(parser.next(&mut buffer), Ok(Parsed::Body { bytes_max: 2, expects_continue }));
        assert_eq!(parser.next(&mut buffer), Ok(Parsed::Partial));
        assert!(parser.is_in_body());
        buffer.extend_from_slice(b"ok");
        assert!(matches!(parser.next(&mut buffer), Ok(Parsed::Request(_))));
        assert!(!parser.is_midway(&buffer));
    }
}

#[test]
fn a_refused_head_request_is_known_as_one() {
    for (text, is_head) in
        [("HEAD /x HTTP/1.1\r\n\r\n", true), ("HEAD /x\r\n", true), ("GET /x HTTP/1.1\r\n\r\n", false)]
    {
        let (mut parser, mut buffer) = (Parser::default(), text.as_bytes().to_vec());
        assert!(parser.next(&mut buffer).is_err());
        assert_eq!(parser.is_head(), is_head, "{text}");
    }
}

#[test]
fn mutated_requests_never_panic_and_do_not_depend_on_the_split() {
    let seed_text = b"POST /cron/add?x=%41 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcPOST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2;x\r\nab\r\n0\r\nA: b\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!((feed(seed_text, 3).0.len(), feed(seed_text, 3).1), (3, None));
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    for round in 0..10_000 {
        let mut bytes = seed_text.to_vec();
        for _ in 0..=random(4) {
            let at = random(bytes.len());
            match random(3) {
                0 => bytes[at] = random(256) as u8,
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, b"\r\n :0\0"[random(6)]),
            }
        }
        let whole = feed(&bytes, bytes.len());
        assert_eq!(feed(&bytes, 1), whole, "round {round}");
        assert_eq!(feed(&bytes, 1 + random(9)), whole, "round {round}");
    }
}
