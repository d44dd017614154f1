//! The address of the client behind a proxy.
//!
//! Invariant: what a client writes into X-Forwarded-For counts only where every hop to the right of it is a trusted proxy.

use super::Denied;
use crate::model::access::Networks;
use crate::wire::headers::Headers;
use std::net::IpAddr;

/// Headers by which a proxy says that it asks for somebody else.
const FORWARDED: [&str; 4] = ["x-forwarded-for", "forwarded", "x-real-ip", "via"];

/// Whether a proxy has passed the request on, and nothing tells for whom. Then its own address, such as loopback, says nothing
/// of the client.
pub fn is_hidden(headers: &Headers, is_trusted: bool) -> bool {
    let is_told = is_trusted && headers.get("x-forwarded-for").is_some();
    !is_told && FORWARDED.iter().any(|name| headers.get(name).is_some())
}

/// The client: the last address of X-Forwarded-For that is not a trusted proxy's, or the other end of the connection where
/// that is not one.
pub fn client(headers: &Headers, from: IpAddr, trusted: &Networks) -> Result<IpAddr, Denied> {
    if !trusted.contains(from) {
        return Ok(from);
    }
    let hops: Vec<&str> = headers.all("x-forwarded-for").flat_map(|value| value.split(',')).map(str::trim).collect();
    let mut client = from;
    for hop in hops.iter().rev() {
        client = address(hop).ok_or_else(|| Denied {
            status: 400,
            message: format!("X-Forwarded-For: {hop:?} is not an address"),
            header: None,
        })?;
        if !trusted.contains(client) {
            break;
        }
    }
    Ok(client)
}

/// Some proxies write a port behind the address.
fn address(hop: &str) -> Option<IpAddr> {
    let with_port = || hop.parse::<std::net::SocketAddr>().ok().map(|address| address.ip());
    hop.trim_matches(['[', ']']).parse().ok().or_else(with_port).map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_is_the_last_address_that_is_no_trusted_proxy() {
        let trusted = Networks::parse(&["10.0.0.0/8".into(), "::1".into()]).unwrap();
        let client_of = |from: &str, values: &[&str]| {
            let mut headers = Headers::default();
            values.iter().for_each(|value| headers.add("x-forwarded-for".into(), value.to_string()));
            client(&headers, from.parse().unwrap(), &trusted).map(|address| address.to_string()).unwrap_or_default()
        };
        assert_eq!(client_of("192.0.2.1", &["127.0.0.1"]), "192.0.2.1", "not a trusted proxy");
        assert_eq!(client_of("10.0.0.1", &["192.0.2.9"]), "192.0.2.9");
        assert_eq!(client_of("10.0.0.1", &["127.0.0.1, 192.0.2.9"]), "192.0.2.9", "the client's own words");
        assert_eq!(client_of("10.0.0.1", &["127.0.0.1", "192.0.2.9, 10.0.0.7"]), "192.0.2.9");
        assert_eq!(client_of("10.0.0.1", &["10.0.0.8, 10.0.0.7"]), "10.0.0.8", "a client on a proxy's network");
        assert_eq!(client_of("::1", &["192.0.2.9:4711"]), "192.0.2.9");
        assert_eq!(client_of("::1", &["[2001:db8::1]"]), "2001:db8::1");
        assert_eq!(client_of("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(client_of("10.0.0.1", &["unknown"]), "", "refused");
    }
}
