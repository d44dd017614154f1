//! The name or address in a `Host` header, an `Origin`, or the key `http_hosts`.
//!
//! Not the check whether it is one of ours: `api::access` does that.
//!
//! Invariant: two hosts are equal only where a browser takes them for the same one. Nothing is compared by its beginning or
//! its end.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// The longest name that DNS knows.
const NAME_BYTES_MAX: usize = 253;

/// A host as a URL or a `Host` header names it.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Host {
    Address(IpAddr),
    /// In lower case.
    Name(String),
}

impl Host {
    /// The host of `host` or `host:port`, and the port. None where the text is neither.
    pub fn of_authority(text: &str) -> Option<(Host, Option<u16>)> {
        let (host, rest) = match text.strip_prefix('[') {
            Some(bracketed) => {
                let (address, rest) = bracketed.split_once(']')?;
                (Host::Address(IpAddr::V6(address.parse::<Ipv6Addr>().ok()?)), rest)
            }
            None => {
                let end = text.find(':').unwrap_or(text.len());
                (Host::without_port(&text[..end])?, &text[end..])
            }
        };
        match rest.strip_prefix(':') {
            None if rest.is_empty() => Some((host, None)),
            None => None,
            Some(port) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some((host, Some(port.parse().ok()?)))
            }
            Some(_) => None,
        }
    }

    /// A name or an address without a port. An IPv6 address may have brackets.
    pub fn without_port(text: &str) -> Option<Host> {
        let unbracketed = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        if let Ok(address) = unbracketed.parse() {
            return Some(Host::Address(address));
        }
        let is_name = !text.is_empty()
            && text.len() <= NAME_BYTES_MAX
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
        is_name.then(|| Host::Name(text.to_ascii_lowercase()))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Host::Address(address) => write!(f, "{address}"),
            Host::Name(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_read_whole_or_not_at_all() {
        let read = |text: &str| Host::of_authority(text).map(|(host, port)| (host.to_string(), port));
        let host = |text: &str, port| Some((text.to_string(), port));
        assert_eq!(read("127.0.0.1:9990"), host("127.0.0.1", Some(9990)));
        assert_eq!(read("[::1]:80"), host("[::1]", Some(80)));
        assert_eq!(read("[::1]"), host("[::1]", None));
        assert_eq!(read("LocalHost"), host("localhost", None));
        assert_eq!(read("127.0.0.1.evil.com"), host("127.0.0.1.evil.com", None));
        assert_eq!(read("0x7f.1"), host("0x7f.1", None));
        let not_hosts =
            ["", ":80", "[::1].evil", "[::1", "::1", "a b", "a/b", "a@b", "a:", "a:x", "a:+1", "a:99999", "a,b", "[a]"];
        for text in not_hosts {
            assert_eq!(read(text), None, "{text:?}");
        }
    }
}
