//! HTTP/1.1: requests taken out of a growing buffer, responses written.
//!
//! `httparse` takes the head apart; framing, limits and keep-alive are decided here. Bodies come by Content-Length
//! only: a chunked request is answered with 411.
//!
//! Not the meaning of a request: that is `api`. Not a socket: that is the reactor's.
//!
//! Invariant: the requests that are found do not depend on how the bytes were split on their way.

use super::headers::Headers;

/// The most bytes of the request line and the headers together.
pub const HEAD_BYTES_MAX: usize = 8 << 10;
/// The most bytes of the request line's target.
const TARGET_BYTES_MAX: usize = 4 << 10;
pub const BODY_BYTES_MAX: usize = 1 << 20;
const HEADERS_MAX: usize = 64;

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Request {
    pub method: String,
    /// As sent: percent signs are not decoded.
    pub path: String,
    /// What follows the question mark, as sent.
    pub query: Vec<u8>,
    pub body: Vec<u8>,
    /// Whether there was a Content-Length; without one there is no body.
    pub has_length: bool,
    pub headers: Headers,
    /// The header Content-Type, as sent.
    pub content_type: Option<String>,
    /// The header Idempotency-Key, as sent.
    pub request_key: Option<String>,
    /// Whether the connection may carry another request after this one.
    pub keep_alive: bool,
    /// Whether the answer may come in chunks, as from HTTP/1.1 on.
    pub takes_chunks: bool,
}

/// What the parser has found in the buffer.
#[derive(Debug, Eq, PartialEq)]
pub enum Parsed {
    /// No whole request yet.
    Partial,
    /// The client waits for `CONTINUE` before it sends the body; answered once for each request.
    ExpectsContinue,
    /// A whole request, which is taken out of the buffer.
    Request(Request),
}

pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The bytes are not a request that we take. The connection cannot go on: nobody knows where the next request begins.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BadRequest {
    pub status: u16,
    pub reason: &'static str,
}

/// Takes requests out of a buffer, one after the other.
#[derive(Debug, Default)]
pub struct Parser {
    head: Option<Head>,
    /// How many bytes of the buffer have been searched for the end of a head, in vain.
    searched: usize,
}

#[derive(Debug)]
struct Head {
    request: Request,
    body_bytes: usize,
    expects_continue: bool,
}

impl Parser {
    /// Whether a request has begun and is not whole yet.
    pub fn is_midway(&self, buffer: &[u8]) -> bool {
        self.head.is_some() || !buffer.is_empty()
    }

    /// Looks for the next request. Call it whenever the buffer has grown, and again after each request.
    pub fn next(&mut self, buffer: &mut Vec<u8>) -> Result<Parsed, BadRequest> {
        if self.head.is_none() {
            let Some(head_bytes) = self.find_head_end(buffer)? else { return Ok(Parsed::Partial) };
            self.head = Some(parse_head(&buffer[..head_bytes])?);
            buffer.drain(..head_bytes);
            self.searched = 0;
        }
        let Some(mut head) = self.head.take() else { return Ok(Parsed::Partial) };
        if buffer.len() < head.body_bytes {
            let parsed =
                if std::mem::take(&mut head.expects_continue) { Parsed::ExpectsContinue } else { Parsed::Partial };
            self.head = Some(head);
            return Ok(parsed);
        }
        head.request.body = buffer.drain(..head.body_bytes).collect();
        Ok(Parsed::Request(head.request))
    }

    fn find_head_end(&mut self, buffer: &mut Vec<u8>) -> Result<Option<usize>, BadRequest> {
        if self.searched == 0 {
            // An empty line before a request is allowed, and old clients send one after a body.
            let blank = buffer.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
            buffer.drain(..blank);
        }
        let from = self.searched.saturating_sub(3);
        let end = find(&buffer[from..], b"\r\n\r\n").map(|at| from + at + 4);
        self.searched = buffer.len();
        let line_bytes = find(buffer, b"\r\n").unwrap_or(buffer.len());
        if TARGET_BYTES_MAX + 32 < line_bytes {
            return Err(TARGET_TOO_LONG);
        }
        if HEAD_BYTES_MAX < end.unwrap_or(buffer.len()) {
            return Err(HEAD_TOO_LARGE);
        }
        Ok(end)
    }
}

const TARGET_TOO_LONG: BadRequest =
    BadRequest { status: 414, reason: "the URL is longer than 4096 bytes; send long parameters in the body of a POST" };
const HEAD_TOO_LARGE: BadRequest =
    BadRequest { status: 431, reason: "the headers are larger than 8192 bytes or more than 64" };
const MALFORMED: BadRequest = BadRequest { status: 400, reason: "this is not an HTTP/1.1 request" };

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

fn parse_head(bytes: &[u8]) -> Result<Head, BadRequest> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut headers);
    match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        Err(httparse::Error::TooManyHeaders) => return Err(HEAD_TOO_LARGE),
        Ok(httparse::Status::Partial) | Err(_) => return Err(MALFORMED),
    }
    let (method, target, version) =
        (parsed.method.unwrap_or(""), parsed.path.unwrap_or(""), parsed.version.unwrap_or(1));
    if TARGET_BYTES_MAX < target.len() {
        return Err(TARGET_TOO_LONG);
    }
    let (path, query) = origin_form(target).split_once('?').unwrap_or((origin_form(target), ""));
    let mut request = Request {
        method: method.into(),
        path: path.into(),
        query: query.as_bytes().to_vec(),
        body: Vec::new(),
        has_length: false,
        headers: Headers::default(),
        content_type: None,
        request_key: None,
        keep_alive: version == 1,
        takes_chunks: version == 1,
    };
    let text = |value: &[u8]| String::from_utf8_lossy(value).trim().to_string();
    let (mut length, mut is_chunked, mut expects_continue) = (None, false, false);
    for header in parsed.headers.iter() {
        request.headers.add(header.name, header.value);
        let has = |word: &str| {
            header.value.split(|byte| *byte == b',').any(|item| item.trim_ascii().eq_ignore_ascii_case(word.as_bytes()))
        };
        match header.name.to_ascii_lowercase().as_str() {
            "content-length" if length.is_some() => {
                return Err(BadRequest { status: 400, reason: "Content-Length is given twice" });
            }
            "content-length" => length = Some(content_length(header.value)?),
            "transfer-encoding" => is_chunked = true,
            "content-type" => request.content_type = Some(text(header.value)),
            "idempotency-key" => request.request_key = Some(text(header.value)),
            "expect" => expects_continue = has("100-continue"),
            "connection" if has("close") => request.keep_alive = false,
            "connection" if has("keep-alive") => request.keep_alive = true,
            _ => {}
        }
    }
    let body_bytes = match (length, is_chunked) {
        (Some(_), true) => {
            return Err(BadRequest { status: 400, reason: "both Content-Length and Transfer-Encoding are given" });
        }
        (None, true) => return Err(LENGTH_REQUIRED),
        (length, false) => length.unwrap_or(0),
    };
    request.has_length = length.is_some();
    if BODY_BYTES_MAX < body_bytes {
        return Err(BadRequest { status: 413, reason: "the body is larger than 1 MiB" });
    }
    Ok(Head { request, body_bytes, expects_continue: expects_continue && version == 1 })
}

/// The target from its path on: a proxy may send the whole URL.
fn origin_form(target: &str) -> &str {
    let Some(rest) = target.strip_prefix("http://").or_else(|| target.strip_prefix("https://")) else { return target };
    rest.find('/').map_or("/", |at| &rest[at..])
}

const LENGTH_REQUIRED: BadRequest = BadRequest { status: 411, reason: "a body needs a Content-Length" };

fn content_length(value: &[u8]) -> Result<usize, BadRequest> {
    let wrong = BadRequest { status: 400, reason: "Content-Length is not a number" };
    let text = std::str::from_utf8(value).map_err(|_| wrong)?.trim();
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong);
    }
    // A number too large to read is a body too large to take.
    Ok(text.parse().unwrap_or(usize::MAX))
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Response {
    pub status: u16,
    pub content_type: &'static str,
    /// The methods that a 405 names.
    pub allow: Option<&'static str>,
    /// One more header.
    pub header: Option<(&'static str, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn json(status: u16, body: Vec<u8>) -> Response {
        Response { status, content_type: "application/json; charset=utf-8", allow: None, header: None, body }
    }

    /// The bytes to send. `keep_alive`: the connection stays open after it.
    pub fn into_bytes(self, keep_alive: bool) -> Vec<u8> {
        let connection = if keep_alive { "keep-alive" } else { "close" };
        let allow = self.allow.map(|methods| format!("Allow: {methods}\r\n")).unwrap_or_default();
        let more = self.header.map(|(name, value)| format!("{name}: {value}\r\n")).unwrap_or_default();
        let head = format!(
            "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\n{allow}{more}Connection: {connection}\r\n\r\n",
            self.status,
            reason_phrase(self.status),
            self.content_type,
            self.body.len()
        );
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// The head of a text whose length is not known when it begins: in chunks, or until the connection is closed.
pub fn text_head(headers: &[(&str, String)], is_chunked: bool, keep_alive: bool) -> Vec<u8> {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let chunked = if is_chunked { "Transfer-Encoding: chunked\r\n" } else { "" };
    let connection = if keep_alive { "keep-alive" } else { "close" };
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\n{headers}{chunked}Connection: {connection}\r\n\r\n"
    )
    .into_bytes()
}

/// One chunk; no bytes at all for an empty one, which would end the body.
pub fn chunk(bytes: &[u8]) -> Vec<u8> {
    match bytes.is_empty() {
        true => Vec::new(),
        false => [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat(),
    }
}

pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

fn reason_phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        411 => "Length Required",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "Status",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds the bytes in pieces of `step` and lists what comes out, until an error.
    fn feed(bytes: &[u8], step: usize) -> (Vec<Request>, Option<u16>) {
        let (mut parser, mut buffer, mut requests) = (Parser::default(), Vec::new(), Vec::new());
        for piece in bytes.chunks(step) {
            buffer.extend_from_slice(piece);
            loop {
                match parser.next(&mut buffer) {
                    Ok(Parsed::Request(request)) => requests.push(request),
                    Ok(Parsed::Partial) => break,
                    Ok(Parsed::ExpectsContinue) => {}
                    Err(bad) => return (requests, Some(bad.status)),
                }
            }
        }
        (requests, None)
    }

    #[track_caller]
    fn refuse(text: &str, status: u16) {
        for step in [1, 7, text.len()] {
            assert_eq!(feed(text.as_bytes(), step).1, Some(status), "{:?}", &text[..text.len().min(80)]);
        }
    }

    #[test]
    fn requests_come_out_however_the_bytes_are_split() {
        let text = "GET /cron/list?a=1&b HTTP/1.1\r\nHost: x\r\n\r\nPOST /cron/add HTTP/1.1\r\nContent-Length: 5\r\n\r\nabcde\r\nGET / HTTP/1.0\r\n\r\n";
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
    fn what_is_not_a_request_is_refused_with_the_right_status() {
        refuse("rubbish\r\n\r\n", 400);
        refuse("\0\0\0\0 \r\n\r\n", 400);
        refuse("GET / HTTP/9.9\r\n\r\n", 400);
        refuse("GET / HTTP/1.1\r\nno colon\r\n\r\n", 400);
        refuse("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 411);
        refuse("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n", 400);
        refuse("POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n", 400);
        refuse("POST / HTTP/1.1\r\nContent-Length: +3\r\n\r\n", 400);
        refuse("POST / HTTP/1.1\r\nContent-Length: -3\r\n\r\n", 400);
        refuse("POST / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n", 413);
    }

    #[test]
    fn a_text_of_unknown_length_comes_in_chunks_or_ends_with_the_connection() {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let head = text(text_head(&[("X-A", "1".into())], true, true));
        assert!(head.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nX-A: 1\r\n"), "{head}");
        assert!(head.ends_with("Transfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n"), "{head}");
        let head = text(text_head(&[], false, false));
        assert!(!head.contains("Transfer-Encoding") && head.ends_with("Connection: close\r\n\r\n"), "{head}");
        assert_eq!(text(chunk(&[b'x'; 26])), format!("1a\r\n{}\r\n", "x".repeat(26)));
        assert_eq!(chunk(b"\xff\r\n"), b"3\r\n\xff\r\n\r\n");
        assert_eq!(chunk(b""), b"", "it would end the text");
        let takes_chunks =
            |version: &str| feed(format!("GET / HTTP/{version}\r\n\r\n").as_bytes(), 5).0[0].takes_chunks;
        assert!(takes_chunks("1.1") && !takes_chunks("1.0"));
    }

    #[test]
    fn each_limit_has_its_edge() {
        let get = |target: usize, header: usize| {
            format!("GET /{} HTTP/1.1\r\nA: {}\r\n\r\n", "x".repeat(target - 1), "y".repeat(header))
        };
        let head_rest = get(1, 0).len() - 1;
        assert_eq!(feed(get(TARGET_BYTES_MAX, 1).as_bytes(), 1_000).0.len(), 1);
        refuse(&get(TARGET_BYTES_MAX + 1, 1), 414);
        refuse(&"G".repeat(TARGET_BYTES_MAX + 100), 414);
        assert_eq!(feed(get(1, HEAD_BYTES_MAX - head_rest - 1).as_bytes(), 1_000).0.len(), 1);
        refuse(&get(1, HEAD_BYTES_MAX - head_rest), 431);
        let many = |headers: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(headers));
        assert_eq!(feed(many(HEADERS_MAX).as_bytes(), 1_000).0.len(), 1);
        refuse(&many(HEADERS_MAX + 1), 431);
        let post = |body: usize| format!("POST / HTTP/1.1\r\nContent-Length: {body}\r\n\r\n");
        let whole = post(BODY_BYTES_MAX) + &"z".repeat(BODY_BYTES_MAX);
        assert_eq!(feed(whole.as_bytes(), 65_536).0[0].body.len(), BODY_BYTES_MAX);
        refuse(&post(BODY_BYTES_MAX + 1), 413);
    }

    #[test]
    fn a_request_may_have_a_key() {
        let (requests, _) = feed(b"GET / HTTP/1.1\r\nidempotency-KEY:  a b \r\n\r\n", 5);
        assert_eq!(requests[0].request_key.as_deref(), Some("a b"));
    }

    #[test]
    fn a_client_that_waits_for_leave_is_told_once() {
        let (mut parser, mut buffer) =
            (Parser::default(), b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n".to_vec());
        assert_eq!(parser.next(&mut buffer), Ok(Parsed::ExpectsContinue));
        assert_eq!(parser.next(&mut buffer), Ok(Parsed::Partial));
        buffer.extend_from_slice(b"ok");
        assert!(matches!(parser.next(&mut buffer), Ok(Parsed::Request(_))));
    }

    #[test]
    fn utf_8_in_the_target_is_taken_as_it_is() {
        let (requests, _) = feed("GET /log/list?search=中文 HTTP/1.1\r\n\r\n".as_bytes(), 3);
        assert_eq!(requests[0].query, "search=中文".as_bytes());
    }

    #[test]
    fn mutated_requests_never_panic_and_do_not_depend_on_the_split() {
        let seed_text = b"POST /cron/add?x=%41 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabcGET / HTTP/1.1\r\n\r\n";
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % below as u64) as usize
        };
        for round in 0..5_000 {
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
}
