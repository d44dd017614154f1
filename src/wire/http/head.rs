//! The head of a request: its line and its headers.
//!
//! `httparse` takes the headers apart. What a line is (`line`), the limits, the request line, and what the headers mean
//! for the connection and the body's framing are decided here.
//!
//! Invariant: a head that could be understood in two ways is refused.

use super::body::{self, Framing};
use super::gzip;
use super::line::Lines;
use super::request::{BadRequest, Request};
use crate::wire::headers::Headers;

/// The most bytes of the request line and the headers together.
pub const HEAD_BYTES_MAX: usize = 8 << 10;
/// The most bytes of the request line's target.
pub(super) const TARGET_BYTES_MAX: usize = 4 << 10;
pub(super) const HEADERS_MAX: usize = 64;
/// Empty lines that are allowed before a request: old clients send one after a body.
pub(super) const BLANK_LINES_MAX: usize = 4;
/// The bytes of a request line beside its target: method, version, spaces, end.
const LINE_BYTES_BESIDE: usize = 32;

const TARGET_TOO_LONG: BadRequest =
    BadRequest::new(414, "the URL is longer than 4096 bytes; send long parameters in the body of a POST");
const TOO_LARGE: BadRequest = BadRequest::new(431, "the headers are larger than 8192 bytes or more than 64");
const MALFORMED: BadRequest =
    BadRequest::new(400, "this is not an HTTP/1.1 request: METHOD /path HTTP/1.1 is expected as its first line");
const HEADER_MALFORMED: BadRequest = BadRequest::new(
    400,
    "a header cannot be read: NAME: VALUE is expected, on one line, without a space before the colon or the name",
);
const HTTP_2: BadRequest = BadRequest::new(505, "HTTP/2 without an upgrade is not spoken here; use HTTP/1.1");
const OTHER_VERSION: BadRequest = BadRequest::new(505, "this version of HTTP is not spoken here; use HTTP/1.1");

/// A head as far as it has come.
#[derive(Debug, Default)]
pub struct Head {
    request: Option<Request>,
    /// The lines of the headers, with their ends.
    fields: Vec<u8>,
    line_bytes: usize,
    blank_lines: usize,
    /// Whether the method is HEAD, also where the request is refused.
    pub is_head: bool,
}

impl Head {
    pub fn is_empty(&self) -> bool {
        self.request.is_none()
    }

    /// How many bytes it has taken so far.
    pub fn bytes(&self) -> usize {
        self.line_bytes + self.fields.len()
    }

    /// Goes on with the head. When it is whole: the request, how its body comes, and whether the client waits for
    /// leave to send it.
    pub fn read(&mut self, lines: &mut Lines) -> Result<Option<(Request, Framing, bool)>, BadRequest> {
        while self.request.is_none() {
            let Some(request) = self.read_first_line(lines)? else { return Ok(None) };
            self.request = request;
        }
        loop {
            let Some(line) = lines.line(HEAD_BYTES_MAX - self.bytes(), TOO_LARGE)? else { return Ok(None) };
            self.fields.extend_from_slice(line);
            self.fields.extend_from_slice(b"\r\n");
            if line.is_empty() {
                break;
            }
        }
        read_headers(self.request.take().unwrap_or_default(), &self.fields).map(Some)
    }

    /// The request of the next line; `Some(None)` after an empty line.
    fn read_first_line(&mut self, lines: &mut Lines) -> Result<Option<Option<Request>>, BadRequest> {
        if lines.rest().first() == Some(&0x16) {
            return Err(BadRequest::TLS);
        }
        self.is_head = lines.rest().starts_with(b"HEAD ");
        let Some(line) = lines.line(TARGET_BYTES_MAX + LINE_BYTES_BESIDE, TARGET_TOO_LONG)? else { return Ok(None) };
        if line.is_empty() {
            self.blank_lines += 1;
            return if BLANK_LINES_MAX < self.blank_lines { Err(MALFORMED) } else { Ok(Some(None)) };
        }
        self.line_bytes = line.len() + 2;
        read_request_line(line).map(|request| Some(Some(request)))
    }
}

fn read_request_line(line: &[u8]) -> Result<Request, BadRequest> {
    let line = std::str::from_utf8(line).map_err(|_| MALFORMED)?;
    let mut parts = line.split(' ');
    let (Some(method), Some(target), Some(version), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(MALFORMED);
    };
    let is_old = match version.strip_prefix("HTTP/").map(str::as_bytes) {
        Some([b'1', b'.', minor @ b'0'..=b'9']) => *minor == b'0',
        Some(b"2.0") if method == "PRI" => return Err(HTTP_2),
        Some([b'0'..=b'9', b'.', b'0'..=b'9']) => return Err(OTHER_VERSION),
        _ => return Err(MALFORMED),
    };
    if method.is_empty() || !method.bytes().all(is_token) {
        return Err(MALFORMED);
    }
    if TARGET_BYTES_MAX < target.len() {
        return Err(TARGET_TOO_LONG);
    }
    let Target { authority, path, query } = read_target(method, target)?;
    let mut headers = Headers::default();
    authority.iter().for_each(|authority| headers.add("host".into(), authority.to_string()));
    Ok(Request {
        method: method.into(),
        path: path.into(),
        query: query.as_bytes().to_vec(),
        headers,
        keep_alive: !is_old,
        takes_chunks: !is_old,
        ..Request::default()
    })
}

struct Target<'a> {
    authority: Option<&'a str>,
    path: &'a str,
    query: &'a str,
}

/// The parts of the target: a proxy may send the whole URL.
fn read_target<'a>(method: &str, target: &'a str) -> Result<Target<'a>, BadRequest> {
    if target.bytes().any(|byte| byte.is_ascii_control()) {
        return Err(MALFORMED);
    }
    if target == "*" && method == "OPTIONS" {
        return Ok(Target { authority: None, path: "*", query: "" });
    }
    let (authority, from_path) = match target.split_once("://") {
        _ if target.starts_with('/') => (None, target),
        Some((scheme, rest)) if ["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) => {
            let (host, from_path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
            if host.is_empty() || !is_host(host) {
                return Err(BadRequest::new(400, "the URL of the request line names no host"));
            }
            (Some(host), from_path)
        }
        _ => return Err(MALFORMED),
    };
    let (path, query) = from_path.split_once('?').unwrap_or((from_path, ""));
    Ok(Target { authority, path: if path.is_empty() { "/" } else { path }, query })
}

/// What the headers say beside what is kept in the request.
#[derive(Default)]
struct Fields {
    host: Option<String>,
    length: Option<String>,
    codings: Vec<String>,
    connection: Vec<String>,
    accept_encoding: Vec<String>,
    expectations: Vec<String>,
}

fn read_headers(mut request: Request, bytes: &[u8]) -> Result<(Request, Framing, bool), BadRequest> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let headers = match httparse::parse_headers(bytes, &mut headers) {
        Ok(httparse::Status::Complete((_, headers))) => headers,
        Err(httparse::Error::TooManyHeaders) => return Err(TOO_LARGE),
        Ok(httparse::Status::Partial) | Err(_) => return Err(HEADER_MALFORMED),
    };
    let mut fields = Fields::default();
    // RFC 9112, 3.2.2: the host of a target that is a whole URL counts, whatever Host says.
    let has_host = request.headers.get("host").is_some();
    for header in headers {
        let name = header.name.to_ascii_lowercase();
        let value = trimmed(&String::from_utf8_lossy(header.value)).to_string();
        match name.as_str() {
            "host" => once(&mut fields.host, value.clone(), "Host is given twice")?,
            "content-length" => once(&mut fields.length, value.clone(), "Content-Length is given twice")?,
            "content-type" => once(&mut request.content_type, value.clone(), "Content-Type is given twice")?,
            "content-encoding" => {
                once(&mut request.content_encoding, value.clone(), "Content-Encoding is given twice")?
            }
            "idempotency-key" => once(&mut request.request_key, value.clone(), "Idempotency-Key is given twice")?,
            "transfer-encoding" => fields.codings.extend(items(&value)),
            "connection" => fields.connection.extend(items(&value)),
            "accept-encoding" => fields.accept_encoding.extend(items(&value)),
            "expect" => fields.expectations.extend(items(&value)),
            _ => {}
        }
        if !(has_host && name == "host") {
            request.headers.add(name, value);
        }
    }
    let is_old = !request.takes_chunks;
    check_host(fields.host.as_deref(), is_old)?;
    if fields.expectations.iter().any(|expectation| !["", "100-continue"].contains(&expectation.as_str())) {
        return Err(BadRequest::new(417, "no expectation but 100-continue is met here"));
    }
    let has = |word: &str| fields.connection.iter().any(|item| item == word);
    request.keep_alive = !has("close") && (request.keep_alive || has("keep-alive"));
    request.takes_gzip = request.takes_chunks && gzip::is_wanted(&fields.accept_encoding);
    request.has_body = fields.length.is_some() || !fields.codings.is_empty();
    let framing = body::framing(fields.length.as_deref(), &fields.codings, is_old)?;
    let expects_continue = !is_old && fields.expectations.iter().any(|expectation| expectation == "100-continue");
    Ok((request, framing, expects_continue))
}

/// Keeps the value of a header that may be given once.
fn once(kept: &mut Option<String>, value: String, reason: &'static str) -> Result<(), BadRequest> {
    match kept.replace(value) {
        None => Ok(()),
        Some(_) => Err(BadRequest::new(400, reason)),
    }
}

/// The items of a list, in small letters. An empty value has one empty item.
fn items(value: &str) -> Vec<String> {
    value.split(',').map(|item| trimmed(item).to_ascii_lowercase()).collect()
}

/// Without the spaces that HTTP allows around a value; others, such as a no-break space, are a part of it.
fn trimmed(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

fn check_host(host: Option<&str>, is_old: bool) -> Result<(), BadRequest> {
    match host {
        None if is_old => Ok(()),
        None => Err(BadRequest::new(400, "the header Host is missing")),
        Some(host) if is_host(host) => Ok(()),
        Some(_) => Err(BadRequest::new(400, "the header Host is no host with or without a port")),
    }
}

/// Whether it is a name or an address, with or without a port. It may be empty.
fn is_host(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[').map(|rest| rest.split_once(']')) {
        Some(None) => return false,
        Some(Some((address, rest))) => {
            let is_address = |byte: u8| byte.is_ascii_hexdigit() || b":.".contains(&byte);
            if address.is_empty() || !address.bytes().all(is_address) || !(rest.is_empty() || rest.starts_with(':')) {
                return false;
            }
            ("", rest.trim_start_matches(':'))
        }
        None => text.split_once(':').unwrap_or((text, "")),
    };
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(&byte);
    host.bytes().all(is_name) && port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether the byte may stand in a method.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
