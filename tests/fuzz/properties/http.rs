//! Requests in bytes: found alike however the bytes were split, each with its own bytes and no others, and as `httparse`
//! reads them.

use super::pieces;
use wing_crontab::wire::http::{BODY_BYTES_MAX, BadRequest, HEAD_BYTES_MAX, Parsed, Parser, Request};

/// A request that nobody else sends.
const MARKER: &[u8] = b"GET /marker HTTP/1.1\r\nHost: marker\r\n\r\n";

pub fn check(bytes: &[u8]) {
    let mut ways = pieces::ways(bytes).into_iter().map(|pieces| read(&pieces));
    let whole = ways.next().expect("the bytes as a whole");
    for other in ways {
        assert_eq!(other.requests, whole.requests, "the requests depend on how the bytes were split");
        assert_eq!(other.refused, whole.refused);
    }
    if whole.refused.is_none() && !whole.is_midway {
        ends_where_it_says(bytes, &whole.requests);
    }
    is_the_same_in_other_words(&whole.requests);
    if let Some(first) = whole.requests.first() {
        is_as_httparse_reads_it(bytes, first);
    }
}

/// What the parser made of some bytes.
struct Read {
    requests: Vec<Request>,
    refused: Option<BadRequest>,
    is_midway: bool,
}

fn read(pieces: &[&[u8]]) -> Read {
    let (mut parser, mut buffer, mut requests) = (Parser::default(), Vec::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            let parsed = parser.next(&mut buffer);
            assert!(parser.head_bytes() <= HEAD_BYTES_MAX);
            match parsed {
                Ok(Parsed::Request(request)) => requests.push(request),
                Ok(Parsed::Body { bytes_max, .. }) => assert!(0 < bytes_max && bytes_max <= BODY_BYTES_MAX),
                Ok(Parsed::Partial) => break,
                Err(bad) => return Read { requests, refused: Some(bad), is_midway: true },
            }
        }
    }
    Read { requests, refused: None, is_midway: parser.is_midway(&buffer) }
}

/// The next request begins where this one ends.
fn ends_where_it_says(bytes: &[u8], requests: &[Request]) {
    let with_marker = read(&[bytes, MARKER]);
    let (marker, others) = with_marker.requests.split_last().expect("the marker is a request");
    assert_eq!((marker.path.as_str(), others, with_marker.refused), ("/marker", requests, None));
}

/// Requests that are written anew, one behind the other, are the same requests.
fn is_the_same_in_other_words(requests: &[Request]) {
    let mut text = Vec::new();
    for request in requests {
        let head = head(request);
        if HEAD_BYTES_MAX < head.len() {
            return;
        }
        text.extend(head);
        let is_chunked = request.headers.get("transfer-encoding").is_some();
        match is_chunked {
            true if request.body.is_empty() => text.extend(b"0\r\n\r\n"),
            true => {
                text.extend(format!("{:x}\r\n", request.body.len()).bytes());
                text.extend(&request.body);
                text.extend(b"\r\n0\r\n\r\n");
            }
            false => text.extend(&request.body),
        }
    }
    let again = read(&[&text]);
    assert_eq!((again.requests.as_slice(), again.refused, again.is_midway), (requests, None, false));
}

fn head(request: &Request) -> Vec<u8> {
    let Request { method, path, query, headers, takes_chunks, .. } = request;
    let mut head = format!("{method} {path}").into_bytes();
    if !query.is_empty() {
        head.push(b'?');
        head.extend(query);
    }
    head.extend(format!(" HTTP/1.{}\r\n", u8::from(*takes_chunks)).bytes());
    for (name, value) in headers.iter() {
        head.extend(format!("{name}: {value}\r\n").bytes());
    }
    head.extend(b"\r\n");
    head
}

/// What we take at the beginning of the bytes, `httparse` takes as well, and says the same of it.
fn is_as_httparse_reads_it(bytes: &[u8], ours: &Request) {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut theirs = httparse::Request::new(&mut headers);
    match theirs.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        // It knows no HTTP/1.2, which is to be read as 1.1.
        Err(httparse::Error::Version) => return,
        other => panic!("httparse says {other:?} to {ours:?}"),
    }
    assert_eq!(theirs.method, Some(ours.method.as_str()));
    assert_eq!(theirs.version, Some(u8::from(ours.takes_chunks)));
    let target = theirs.path.expect("a target");
    if target.starts_with('/') {
        assert_eq!(target.split_once('?').unwrap_or((target, "")), (ours.path.as_str(), text(&ours.query).as_str()));
    }
    let trimmed = |value: &[u8]| text(value).trim_matches([' ', '\t']).to_string();
    let of_theirs = theirs.headers.iter().map(|header| (header.name.to_ascii_lowercase(), trimmed(header.value)));
    let of_ours = ours.headers.iter().map(|(name, value)| (name.to_string(), value.to_string()));
    assert!(of_theirs.eq(of_ours), "httparse reads other headers");
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
