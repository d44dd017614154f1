//! The door, a request a case.

use super::*;
use crate::model::JobId;
use crate::model::access::{Host, Networks};
use crate::wire::http::{Parsed, Parser};

const ADMIN: &str = "wct_admin_0123456789";
const READER: &str = "wct_reader_0123456789";

/// A door on 10.0.0.5 that lets 10.0.0.0/24 and loopback in, with a proxy on 10.0.0.9.
fn door() -> Door {
    let networks =
        |texts: &[&str]| Networks::parse(&texts.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
    let tokens = format!("boss admin {ADMIN}\neyes read {READER}\nhands operate wct_hands_0123456789");
    let config = AccessConfig {
        tokens: Tokens::parse(&tokens).unwrap(),
        tokens_file: None,
        allow: networks(&["127.0.0.0/8", "::1", "10.0.0.0/24"]),
        trusted_proxies: networks(&["10.0.0.9"]),
        hosts: [Host::without_port("wing.example.com").unwrap()].into(),
        tls: None,
    };
    Door::new(config, 1_000)
}

fn request(text: &str) -> Request {
    let mut parser = Parser::default();
    match parser.next(&mut format!("{}\r\n\r\n", text.replace('\n', "\r\n")).into_bytes()) {
        Ok(Parsed::Request(request)) => request,
        other => panic!("{text:?}: {other:?}"),
    }
}

fn tcp(from: &str) -> Arrival {
    Arrival::Tcp { from: from.parse().unwrap(), to: "10.0.0.5".parse().unwrap(), is_tls: false }
}

fn tls(from: &str) -> Arrival {
    Arrival::Tcp { from: from.parse().unwrap(), to: "10.0.0.5".parse().unwrap(), is_tls: true }
}

/// What the door says: the caller's name and how it was recognized, or the status.
fn ask(text: &str, arrival: Arrival) -> Result<(String, Proof), u16> {
    let caller = door().admit(&request(text), arrival, Mono(0));
    caller.map(|caller| (caller.name.to_string(), caller.by)).map_err(|denied| denied.status)
}

fn from_lan(headers: &str) -> Result<(String, Proof), u16> {
    ask(format!("POST /cron/add HTTP/1.1\nHost: 10.0.0.5:9990\n{headers}").trim_end(), tcp("10.0.0.7"))
}

#[test]
fn an_address_that_is_allowed_needs_no_token_and_another_one_does() {
    assert_eq!(from_lan(""), Ok(("10.0.0.7".into(), Proof::Address)));
    let far = tcp("192.0.2.1");
    assert_eq!(ask("GET /run/list HTTP/1.1\nHost: 10.0.0.5", far), Err(403));
    let with =
        |authorization: &str| ask(&format!("GET / HTTP/1.1\nHost: 10.0.0.5\nAuthorization: {authorization}"), far);
    assert_eq!(with(&format!("Bearer {ADMIN}")), Ok(("boss".into(), Proof::Token)));
    assert_eq!(with(&format!("bearer   {READER}")), Ok(("eyes".into(), Proof::Token)));
    let basic = STANDARD.encode(format!("anybody:{ADMIN}"));
    assert_eq!(with(&format!("Basic {basic}")), Ok(("boss".into(), Proof::Password)));
    for wrong in ["Bearer no", "Bearer", "Basic ???", "Digest a=b", &format!("Bearer {ADMIN}x"), "Bearer "] {
        assert_eq!(with(wrong), Err(401), "{wrong}");
    }
    assert_eq!(from_lan("Authorization: Bearer wrong"), Err(401), "a wrong token is not made good by the address");
}

#[test]
fn the_messages_name_the_ways_in() {
    let denied = door().admit(&request("GET / HTTP/1.1\nHost: 10.0.0.5"), tcp("192.0.2.1"), Mono(0)).unwrap_err();
    assert!(denied.message.contains("http_tokens_file") && denied.message.contains("http_allow = [\"192.0.2.1\"]"));
    let forwarded = "GET / HTTP/1.1\nHost: localhost\nX-Forwarded-For: 192.0.2.1";
    let arrival = Arrival::Tcp { from: [127, 0, 0, 1].into(), to: [127, 0, 0, 1].into(), is_tls: false };
    let denied = door().admit(&request(forwarded), arrival, Mono(0)).unwrap_err();
    assert!(denied.status == 403 && denied.message.contains("http_trusted_proxies"));
}

#[test]
fn behind_a_trusted_proxy_its_client_counts() {
    let through = |client: &str| {
        ask(&format!("GET / HTTP/1.1\nHost: wing.example.com\nX-Forwarded-For: {client}"), tcp("10.0.0.9"))
    };
    assert_eq!(through("10.0.0.77"), Ok(("10.0.0.77".into(), Proof::Address)));
    assert_eq!(through("192.0.2.1"), Err(403));
    assert_eq!(through("127.0.0.1, 192.0.2.1"), Err(403), "the client lies");
    assert_eq!(through("nobody"), Err(400));
}

#[test]
fn the_socket_is_for_root_and_the_daemons_user() {
    for uid in [0, 1_000] {
        assert_eq!(ask("GET / HTTP/1.1\nHost: x", Arrival::Socket { uid }), Ok((format!("uid:{uid}"), Proof::Socket)));
    }
    assert_eq!(ask("GET / HTTP/1.1\nHost: x", Arrival::Socket { uid: 1_001 }), Err(403));
}

#[test]
fn no_other_site_makes_a_browser_ask() {
    for own in [
        "Origin: http://10.0.0.5:9990",
        "Sec-Fetch-Site: same-origin",
        "Sec-Fetch-Site: none",
        "Referer: http://10.0.0.5:9990/a?b",
    ] {
        assert!(from_lan(own).is_ok(), "{own}");
    }
    for other in [
        "Origin: null",
        "Origin: http://10.0.0.5",
        "Origin: http://10.0.0.5:9991",
        "Origin: https://10.0.0.5:9990.evil.com",
        "Origin: http://evil.com",
        "Origin: 10.0.0.5:9990",
        "Origin: http://10.0.0.5:9990/",
        "Origin:",
        "Sec-Fetch-Site: cross-site",
        "Sec-Fetch-Site: same-site",
        "Referer: http://evil.com/10.0.0.5:9990",
        "Origin: http://10.0.0.5:9990\nOrigin: http://evil.com",
    ] {
        assert_eq!(from_lan(other), Err(403), "{other}");
        assert!(
            from_lan(&format!("{other}\nAuthorization: Bearer {ADMIN}")).is_ok(),
            "a browser sends no Bearer by itself"
        );
    }
}

#[test]
fn a_page_that_came_by_http_is_another_site_than_ours_by_https() {
    let post = |headers: &str, arrival| ask(&format!("POST /cron/add HTTP/1.1\nHost: 10.0.0.5\n{headers}"), arrival);
    for header in ["Origin", "Referer"] {
        let by = |scheme: &str, arrival| post(&format!("{header}: {scheme}://10.0.0.5"), arrival).is_ok();
        assert!(by("https", tls("10.0.0.7")), "{header}");
        assert!(!by("http", tls("10.0.0.7")), "{header}");
        assert!(by("http", tcp("10.0.0.7")) && by("https", tcp("10.0.0.7")), "a proxy may speak https for us");
    }
    assert!(post("Origin: https://10.0.0.5:443", tls("10.0.0.7")).is_ok(), "the port of https is 443");
    assert!(post("Origin: https://10.0.0.5:80", tls("10.0.0.7")).is_err());
    // What the client speaks to a proxy of ours, nobody tells.
    let through = "Origin: http://10.0.0.5\nX-Forwarded-For: 10.0.0.7";
    assert!(post(through, tls("10.0.0.9")).is_ok());
    assert!(post(through, tls("10.0.0.7")).is_err(), "no proxy of ours");
}

#[test]
fn one_of_several_headers_that_names_another_site_is_enough() {
    let with = |headers: &str| ask(&format!("GET /run/list HTTP/1.1\nHost: 10.0.0.5\n{headers}"), tcp("10.0.0.7"));
    assert!(with("Sec-Fetch-Site: same-origin\nSec-Fetch-Site: none").is_ok());
    assert_eq!(with("Sec-Fetch-Site: same-origin\nSec-Fetch-Site: cross-site"), Err(403));
    assert_eq!(with("Origin: http://10.0.0.5\nOrigin: http://evil.com"), Err(403));
}

#[test]
fn no_name_leads_here_but_ours() {
    let by = |host: &str| ask(&format!("GET /run/list HTTP/1.1\nHost: {host}"), tcp("10.0.0.7"));
    for own in ["10.0.0.5", "10.0.0.5:1", "localhost:9990", "LOCALHOST", "Wing.Example.com:80"] {
        assert!(by(own).is_ok(), "{own}");
    }
    for other in [
        "127.0.0.1.evil.com",
        "localhost.evil.com",
        "10.0.0.5.evil.com",
        "10.0.0.6",
        "127.0.0.1",
        "0x7f.1",
        "wing.example.com.",
        "awing.example.com",
        "evil.com:9990",
        "localhost.",
        "[::1]",
    ] {
        assert_eq!(by(other), Err(403), "{other}");
    }
}

#[test]
fn each_level_may_do_its_own() {
    let stop = Command::StopJob(JobId(1));
    let delete = Command::DeleteJob(JobId(1));
    let permits = |secret: &str, command: &Command| {
        let request = request(&format!("POST / HTTP/1.1\nHost: 10.0.0.5\nAuthorization: Bearer {secret}"));
        let caller = door().admit(&request, tcp("192.0.2.1"), Mono(0)).unwrap();
        permit(&caller, command, &request).is_ok()
    };
    assert!(permits(READER, &Command::ShowCluster) && !permits(READER, &stop) && !permits(READER, &delete));
    assert!(permits("wct_hands_0123456789", &stop) && !permits("wct_hands_0123456789", &delete));
    assert!(permits(ADMIN, &stop) && permits(ADMIN, &delete));
}

#[test]
fn a_browser_may_not_change_by_get() {
    let get = |headers: &str| {
        let text = format!("GET /cron/stop/1 HTTP/1.1\nHost: 10.0.0.5\n{headers}");
        let request = request(text.trim_end());
        let caller = door().admit(&request, tcp("10.0.0.7"), Mono(0)).map_err(|denied| denied.status)?;
        permit(&caller, &Command::StopJob(JobId(1)), &request).map_err(|denied| denied.status)
    };
    for plain in ["", "Accept: */*\nUser-Agent: curl/8.0", "User-Agent: Wget/1.21", "User-Agent: Go-http-client/1.1"] {
        assert_eq!(get(plain), Ok(()), "{plain}");
    }
    assert_eq!(get(&format!("Accept: text/html\nAuthorization: Bearer {ADMIN}")), Ok(()));
    for browser in [
        "Accept: text/html,*/*",
        "Accept: */*, image/avif",
        "User-Agent: Mozilla/5.0 (X11)",
        "Referer: http://10.0.0.5/",
        "Purpose: prefetch",
        "Sec-Purpose: prefetch",
        "Sec-Fetch-Site: none",
        "Sec-CH-UA: x",
        "Cookie: a=b",
    ] {
        assert_eq!(get(browser), Err(403), "{browser}");
    }
    let basic = STANDARD.encode(format!(":{ADMIN}"));
    assert_eq!(get(&format!("Authorization: Basic {basic}")), Err(403), "Basic only reads");
}

#[test]
fn who_guesses_is_slowed_even_with_the_right_token() {
    let mut door = door();
    let mut try_with = |secret: &str, from: &str| {
        let request = request(&format!("GET / HTTP/1.1\nHost: 10.0.0.5\nAuthorization: Bearer {secret}"));
        door.admit(&request, tcp(from), Mono(0)).map(|_| ()).map_err(|denied| denied.status)
    };
    (0..6).for_each(|_| assert_eq!(try_with("wrong", "192.0.2.1"), Err(401)));
    assert_eq!(try_with(ADMIN, "192.0.2.1"), Err(429));
    assert_eq!(try_with(ADMIN, "192.0.2.2"), Ok(()));
    assert_eq!(door.failed_tries(), 6);
}

#[test]
fn a_token_that_is_taken_out_lets_nobody_in_any_more() {
    let mut door = door();
    let request = request(&format!("GET / HTTP/1.1\nHost: 10.0.0.5\nAuthorization: Bearer {READER}"));
    let caller = door.admit(&request, tcp("192.0.2.1"), Mono(0)).unwrap();
    assert!(door.is_known(&caller));
    door.set_tokens(Tokens::parse(&format!("eyes admin {READER}")).unwrap());
    assert!(!door.is_known(&caller), "its level has changed");
    door.set_tokens(Tokens::default());
    assert!(!door.is_known(&caller) && door.admit(&request, tcp("192.0.2.1"), Mono(0)).is_err());
}
