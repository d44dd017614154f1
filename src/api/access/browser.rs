//! What a web page may not make a browser do.
//!
//! A browser says who makes it ask, in headers that a page cannot change: `Origin`, and over https and to loopback
//! `Sec-Fetch-Site`. Over plain http on a network a GET carries neither, so the calls that change something by GET, which
//! the older system has, look for any other sign of a browser.
//!
//! Invariant: names are compared whole. See RFC 6454 (Origin) and the Fetch Metadata specification.

use super::Denied;
use crate::model::access::Host;
use crate::wire::headers::Headers;
use crate::wire::http::Request;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// What a client has connected to.
#[derive(Clone, Copy, Debug)]
pub struct Site {
    /// The address of ours.
    pub to: IpAddr,
    /// Its pages are those of `https://` only. Where this is not so, a proxy may speak https for us: both schemes will do.
    pub is_https: bool,
}

/// Refuses a request by which another site makes a browser ask.
pub fn refuse_other_sites(request: &Request, ours: Site, hosts: &BTreeSet<Host>) -> Result<(), Denied> {
    let headers = &request.headers;
    // A request of HTTP/1.0 may have no Host; no browser sends such.
    if let Some(authority) = headers.get("host") {
        let host = Host::of_authority(authority).map(|(host, _)| host);
        if !host.is_some_and(|host| is_ours(&host, ours.to, hosts)) {
            return Err(Denied::forbidden(format!(
                "Host: {authority:?} is not an address of this node, localhost, or a name in http_hosts; if clients reach this \
                 node by that name, put it there"
            )));
        }
    }
    if let Some(site) = headers.all("sec-fetch-site").find(|site| !["same-origin", "none"].contains(site)) {
        return Err(other_site("Sec-Fetch-Site", site));
    }
    let is_same = |origin: &str| is_same_origin(origin, headers.get("host"), ours.is_https);
    if let Some(origin) = headers.all("origin").find(|origin| !is_same(origin)) {
        return Err(other_site("Origin", origin));
    }
    // Old browsers leave Origin out where they send Referer.
    match headers.get("referer") {
        Some(referer) if request.method != "GET" && !is_same(origin_of(referer)) => {
            Err(other_site("Referer", origin_of(referer)))
        }
        _ => Ok(()),
    }
}

/// Refuses what a browser has sent, on whoever's behalf. For calls that change something by GET.
pub fn refuse_browsers(headers: &Headers) -> Result<(), Denied> {
    let accepts = |what: &str| headers.all("accept").any(|value| value.to_ascii_lowercase().contains(what));
    let is_browser = |agent: &str| ["Mozilla/", "Opera/"].iter().any(|name| agent.starts_with(name));
    let signs = [
        ("Sec-* headers", headers.has_prefix("sec-")),
        (
            "Purpose",
            headers.get("purpose").is_some() || headers.get("x-purpose").is_some() || headers.get("x-moz").is_some(),
        ),
        ("Origin", headers.get("origin").is_some()),
        ("Referer", headers.get("referer").is_some()),
        ("Cookie", headers.get("cookie").is_some()),
        ("Upgrade-Insecure-Requests", headers.get("upgrade-insecure-requests").is_some()),
        ("Accept: text/html", accepts("text/html")),
        ("Accept: image/", accepts("image/")),
        ("User-Agent", headers.all("user-agent").any(is_browser)),
    ];
    match signs.iter().find(|(_, is_there)| *is_there) {
        None => Ok(()),
        Some((sign, _)) => Err(Denied::forbidden(format!(
            "a browser seems to ask ({sign}), and any web page can make it: send this call as POST"
        ))),
    }
}

fn other_site(header: &str, value: &str) -> Denied {
    Denied::forbidden(format!(
        "another web site makes the browser ask ({header}: {value}): its pages may not use this API"
    ))
}

fn is_ours(host: &Host, to: IpAddr, hosts: &BTreeSet<Host>) -> bool {
    let is_built_in = match host {
        Host::Address(address) => *address == to || (address.is_loopback() && to.is_loopback()),
        Host::Name(name) => name == "localhost",
    };
    is_built_in || hosts.contains(host)
}

/// Whether the origin is the one of this very server, by the name that the client has used for it. A page that came by http
/// may be anybody's who is in between, so it is another site than ours by https.
fn is_same_origin(origin: &str, host: Option<&str>, is_https: bool) -> bool {
    let with_default_port =
        |rest: &str, default: u16| Host::of_authority(rest).map(|(host, port)| (host, port.unwrap_or(default)));
    let schemes = [("https://", 443), ("http://", 80)].into_iter().take(if is_https { 1 } else { 2 });
    let both = schemes.into_iter().find_map(|(scheme, port)| {
        Some((with_default_port(origin.strip_prefix(scheme)?, port)?, with_default_port(host?, port)?))
    });
    both.is_some_and(|(origin, own)| origin == own)
}

/// The scheme, host and port of a URL.
fn origin_of(url: &str) -> &str {
    let host_at = url.find("://").map_or(0, |at| at + 3);
    url[host_at..].find(['/', '?', '#']).map_or(url, |end| &url[..host_at + end])
}
