//! Requests as RFC 9110 and 9112 have them, and those that they have not, over bare sockets.

use crate::http::{ask, connect, read_all};
use crate::support::daemon::Node;
use serde_json::Value;
use std::io::{Read, Write};

/// The head of the one answer to these bytes, and its body.
fn exchange(node: &Node, bytes: &str) -> (String, String) {
    let answer = ask(node, bytes.as_bytes());
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer to {bytes:?}: {answer:?}"));
    (format!("{head}\r\n"), body.to_string())
}

/// A request with these headers, a line each.
fn request(line: &str, headers: &str, body: &str) -> String {
    format!("{line} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n{body}")
}

fn get(path: &str, headers: &str) -> String {
    request(&format!("GET {path}"), headers, "")
}

fn add(headers: &str, body: &str) -> String {
    request("POST /cron/add", headers, body)
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let value = |line: &'a str| line.split_once(": ").filter(|(own, _)| *own == name).map(|(_, value)| value);
    head.lines().find_map(value)
}

/// Each of these is refused with its status, and with words that help; nothing is changed.
#[track_caller]
fn refuse_all(node: &Node, cases: &[(String, u16, &str)]) {
    for (bytes, status, words) in cases {
        let (head, body) = exchange(node, bytes);
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{bytes:?}: {head}{body}");
        let reason = head.lines().next().unwrap().splitn(3, ' ').nth(2).unwrap();
        assert!(!reason.is_empty() && reason != "Status", "{head}");
        assert!(header(&head, "Date").is_some_and(|date| date.ends_with(" GMT") && date.len() == 29), "{head}");
        let body: Value = serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}"));
        let message = body["message"].as_str().unwrap();
        assert!(body["code"] == *status && message.contains(words), "{bytes:?}: {message}");
    }
    assert_eq!(node.api.jobs().len(), 0, "a request that is refused adds no job");
}

const FORM: &str = "cronSet=@yearly&command=true";

#[test]
fn a_request_that_can_be_understood_in_two_ways_is_refused() {
    let node = Node::started("");
    let hidden = format!("POST /cron/add?{FORM} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let case = |bytes: String, status: u16, words: &'static str| (bytes, status, words);
    refuse_all(
        &node,
        &[
            case(format!("GET /health HTTP/1.1\nHost: localhost\n\n{hidden}"), 400, "CR LF"),
            case(format!("GET /health HTTP/1.1\r\nHost: localhost\n\r\n{hidden}"), 400, "CR LF"),
            case(get("/health", "A: b\rc\r\n"), 400, "CR LF"),
            case(get("/health", "A: b\r\n c\r\n"), 400, "header"),
            case(get("/health", "A : b\r\n"), 400, "header"),
            case(get("/health", "Host: localhost\r\n"), 400, "Host is given twice"),
            case("GET /health HTTP/1.1\r\n\r\n".into(), 400, "Host is missing"),
            case("GET /health HTTP/1.1\r\nHost: a b\r\n\r\n".into(), 400, "Host"),
            case("GET /health HTTP/1.1\r\nHost: a/b\r\n\r\n".into(), 400, "Host"),
            case(
                add("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", &format!("0\r\n\r\n{hidden}")),
                400,
                "one framing",
            ),
            case(add("Content-Length: 4\r\nContent-Length: 5\r\n", "abcde"), 400, "Content-Length is given twice"),
            case(add("Content-Length: 4, 5\r\n", "abcde"), 400, "not a number"),
            case(add("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"), 501, "chunked"),
            case(add("Transfer-Encoding: identity\r\n", ""), 501, "chunked"),
            case(add("Transfer-Encoding: chunked\r\n", "1\na\r\n0\r\n\r\n"), 400, "CR LF"),
            case(add("Transfer-Encoding: chunked\r\n", "zz\r\n"), 400, "chunk"),
            case(
                format!("POST /cron/add HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"),
                400,
                "HTTP/1.0",
            ),
            case("\r\n".repeat(9) + &get("/health", ""), 400, "first line"),
        ],
    );
}

#[test]
fn what_is_beyond_us_is_told_apart() {
    let node = Node::started("");
    let case = |bytes: String, status: u16, words: &'static str| (bytes, status, words);
    let encoded = |coding: &str| add(&format!("Content-Encoding: {coding}\r\nContent-Length: 3\r\n"), "abc");
    refuse_all(
        &node,
        &[
            case("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(), 505, "HTTP/2"),
            case("GET / HTTP/2.0\r\nHost: localhost\r\n\r\n".into(), 505, "HTTP/1.1"),
            case("GET / HTTP/3.7\r\nHost: localhost\r\n\r\n".into(), 505, "HTTP/1.1"),
            case(add("Expect: the-moon\r\nContent-Length: 3\r\n", "abc"), 417, "100-continue"),
            case(encoded("gzip"), 415, "gzip"),
            case(encoded("br"), 415, "br"),
            case(add("Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 3\r\n", "--x"), 415, "curl -d"),
            case(add("Content-Type: text/plain\r\nContent-Length: 3\r\n", "abc"), 415, "application/json"),
            case(add("Content-Length: 262145\r\n", ""), 413, "256 KiB"),
            case(add("Transfer-Encoding: chunked\r\n", "40001\r\n"), 413, "256 KiB"),
            case(
                add("Transfer-Encoding: chunked\r\n", &format!("0\r\nA: {}\r\n\r\n", "b".repeat(5_000))),
                431,
                "trailers",
            ),
            case(add("Transfer-Encoding: chunked\r\n", &format!("1;{}\r\na", "b".repeat(5_000))), 400, "extensions"),
            case(get("/health", &format!("A: {}\r\n", "b".repeat(9_000))), 431, "8192"),
            case(get("/health", &"A: b\r\n".repeat(65)), 431, "64"),
            case(get("//cron/list", ""), 404, "there is no"),
            case(get("/cron/list/", ""), 404, "there is no"),
            case(request(&format!("POST //cron/add?{FORM}"), "", ""), 404, "there is no"),
            case(request(&format!("POST /cron/add/?{FORM}"), "", ""), 404, "there is no"),
        ],
    );
}

#[test]
fn what_is_not_utf_8_or_said_twice_is_refused_and_not_mended() {
    let node = Node::started("");
    let refuse = |content_type: &str, body: &[u8], words: &str| {
        let head = add(&format!("Content-Type: {content_type}\r\nContent-Length: {}\r\n", body.len()), "");
        let answer = ask(&node, &[head.as_bytes(), body].concat());
        assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n") && answer.contains(words), "{answer}");
    };
    let (json, form) = ("application/json", "application/x-www-form-urlencoded");
    refuse(json, br#"{"cronSet":"@yearly","command":"true","command":"false"}"#, "\\\"command\\\" is given twice");
    refuse(json, br#"{"cronSet":"@yearly","command":"true","env":{"A":"1","A":"2"}}"#, "\\\"A\\\" is given twice");
    refuse(form, br#"{"cronSet":"@yearly","command":"true","command":"true"}"#, "\\\"command\\\" is given twice");
    refuse(form, b"cronSet=@yearly&command=true&env={\"A\":\"1\",\"A\":\"2\"}", "\\\"A\\\" is given twice");
    refuse(json, b"{\"cronSet\":\"@yearly\",\"command\":\"a\xff\"}", "not JSON");
    refuse(json, br#"{"cronSet":"@yearly","command":"a\ud800"}"#, "not JSON");
    refuse(form, b"cronSet=@yearly&command=a%ff", "command");
    refuse(form, b"cronSet=@yearly&command=a\xff&remark=%EF%BF%BD", "command");
    refuse(form, b"cronSet=@yearly&command=a%EF%BF%BD%80", "command");
    assert_eq!(node.api.jobs().len(), 0);
    assert_eq!(node.api.post("/cron/add", "cronSet=@yearly&command=%EF%BF%BD100%").ok()["command"], "\u{fffd}100%");
}

#[test]
fn a_chunked_body_is_taken() {
    let node = Node::started("");
    let plain = format!("{:x}\r\n{FORM}\r\n0\r\n\r\n", FORM.len());
    let (first, second) = FORM.split_at(9);
    let split =
        format!("{:X};a=\"b\"\r\n{first}\r\n0{:x}\r\n{second}\r\n0\r\nX-Sum: 7\r\n\r\n", first.len(), second.len());
    for body in [plain, split] {
        let (head, answer) = exchange(&node, &add("Transfer-Encoding: chunked\r\n", &body));
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("\"command\":\"true\""), "{head}{answer}");
    }
    let json = r#"{"cronSet":"@yearly","command":"true"}"#;
    let headers = "Content-Type: application/json\r\nTransfer-Encoding: Chunked\r\n";
    let (head, _) = exchange(&node, &add(headers, &format!("{:x}\r\n{json}\r\n0\r\n\r\n", json.len())));
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert_eq!(node.api.jobs().len(), 3);
}

#[test]
fn head_answers_what_get_does_without_a_body_and_changes_nothing() {
    let node = Node::started("");
    let id = node.api.add_idle("true", "");
    for path in ["/cron/list", "/log/list", "/run/list", "/cluster", "/health"] {
        let (got, body) = exchange(&node, &get(path, ""));
        let (head, none) = exchange(&node, &request(&format!("HEAD {path}"), "", ""));
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && none.is_empty(), "{head}{none}");
        assert_eq!(header(&got, "Content-Length"), Some(body.len().to_string().as_str()), "{got}");
        assert_eq!(header(&head, "Content-Type"), header(&got, "Content-Type"));
        assert!(header(&head, "Content-Length").is_some() && header(&head, "Date").is_some(), "{head}");
    }
    let long = format!("A: {}\r\n", "b".repeat(9_000));
    let stop = format!("/cron/stop/{id}");
    for (path, headers, status) in [
        ("/none", "", 404),
        ("/cron/add", "", 405),
        (&stop, "", 405),
        ("/log/list?limit=0", "", 400),
        ("/cron/list", "Host: y\r\n", 400),
        ("/cron/list", &long, 431),
    ] {
        let (head, body) = exchange(&node, &request(&format!("HEAD {path}"), headers, ""));
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")) && body.is_empty(), "{path}: {head}{body}");
    }
    assert_eq!(node.api.jobs()[0]["stop"], false);
}

#[test]
fn head_of_a_stream_is_its_head() {
    let node = Node::started("");
    let id = node.api.add_idle("echo seen", "");
    let run = node.api.post(&format!("/cron/run/{id}"), "").ok();
    node.api.wait_for_first_row(id);
    let path = format!("/run/output/{}?follow=1", run["run_key"].as_str().unwrap());
    let (head, body) = exchange(&node, &get(&path, ""));
    assert!(body.contains("seen") && header(&head, "Transfer-Encoding") == Some("chunked"), "{head}{body}");
    let two = request(&format!("HEAD {path}"), "", "").repeat(2);
    let answers = ask(&node, two.as_bytes());
    assert_eq!(answers.matches("HTTP/1.1 200 OK\r\nContent-Type: text/plain").count(), 2, "{answers}");
    assert!(!answers.contains("seen") && answers.ends_with("\r\n\r\n"), "{answers}");
}

#[test]
fn every_path_says_which_methods_it_takes() {
    let node = Node::started("");
    for (path, allow) in [
        ("/cron/list", "GET, HEAD, OPTIONS"),
        ("/run/output/1-1", "GET, HEAD, OPTIONS"),
        ("/health", "GET, HEAD, OPTIONS"),
        ("/cron/stop/1", "GET, POST, OPTIONS"),
        ("/cron/add", "POST, OPTIONS"),
        ("/cluster/pause", "POST, OPTIONS"),
    ] {
        let (head, body) = exchange(&node, &request(&format!("OPTIONS {path}"), "", ""));
        assert!(head.starts_with("HTTP/1.1 204 No Content\r\n") && body.is_empty(), "{head}{body}");
        assert_eq!((header(&head, "Allow"), header(&head, "Content-Length")), (Some(allow), None));
        let (head, _) = exchange(&node, &request(&format!("PATCH {path}"), "", ""));
        assert!(head.starts_with("HTTP/1.1 405 Method Not Allowed\r\n"), "{head}");
        assert_eq!(header(&head, "Allow"), Some(allow), "{path}");
    }
    let (head, _) = exchange(&node, &request("OPTIONS *", "", ""));
    assert_eq!(header(&head, "Allow"), Some("GET, HEAD, POST, OPTIONS"), "{head}");
    assert!(exchange(&node, &request("OPTIONS /none", "", "")).0.starts_with("HTTP/1.1 404 "));
}

#[test]
fn a_target_may_be_a_whole_url_and_a_header_empty() {
    let node = Node::started("");
    for line in ["GET http://localhost/cron/list", "GET HTTP://localhost:80/cron/list", "GET /cron/list?_=1"] {
        let (head, body) = exchange(&node, &request(line, "Accept:\r\nX-Empty: \r\n", ""));
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && body.contains("\"data\":[]"), "{head}{body}");
    }
}

#[test]
fn a_connection_is_kept_when_both_sides_say_so() {
    let node = Node::started("");
    for (version, connection, is_kept) in [
        ("1.1", "", true),
        ("1.1", "Connection: close\r\n", false),
        ("1.1", "Connection: keep-alive, close\r\n", false),
        ("1.1", "Connection: close\r\nConnection: keep-alive\r\n", false),
        ("1.0", "", false),
        ("1.0", "Connection: keep-alive\r\n", true),
        ("1.0", "Connection: Keep-Alive, close\r\n", false),
    ] {
        let one = format!("GET /cron/list HTTP/{version}\r\nHost: localhost\r\n{connection}\r\n");
        let answers = ask(&node, one.repeat(2).as_bytes());
        let count = if is_kept { 2 } else { 1 };
        assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), count, "{version} {connection}: {answers}");
        let said = if is_kept { "\r\nConnection: keep-alive\r\n" } else { "\r\nConnection: close\r\n" };
        assert!(answers.contains(said), "{answers}");
    }
}

#[test]
fn answers_come_in_the_order_of_their_requests() {
    let node = Node::started("");
    let ids: Vec<u64> = (0..20).map(|at| node.api.add_idle(&format!("echo {at}"), "")).collect();
    let stop = |id: &u64| get(&format!("/cron/stop/{id}"), "");
    let requests: String =
        ids.iter().map(|id| stop(id) + &get("/cron/nothing", "") + &request("HEAD /cron/list", "", "")).collect();
    let answers = ask(&node, requests.as_bytes());
    let seen: Vec<&str> = answers.split("HTTP/1.1 ").skip(1).collect();
    assert_eq!(seen.len(), 60, "{answers}");
    for (id, three) in ids.iter().zip(seen.chunks(3)) {
        assert!(three[0].contains(&format!("\"id\":{id},")) && three[0].contains("\"stop\":true"), "{}", three[0]);
        assert!(three[1].starts_with("404 ") && three[2].starts_with("200 ") && three[2].ends_with("\r\n\r\n"));
    }
}

#[test]
fn a_client_that_waits_for_leave_is_told_to_go_on_or_why_not() {
    let node = Node::started("");
    let mut stream = connect(&node);
    let headers = format!("Expect: 100-continue\r\nConnection: close\r\nContent-Length: {}\r\n", FORM.len());
    stream.write_all(add(&headers, "").as_bytes()).unwrap();
    let mut leave = [0; 25];
    stream.read_exact(&mut leave).unwrap();
    assert_eq!(&leave, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(FORM.as_bytes()).unwrap();
    assert!(read_all(&mut stream).starts_with("HTTP/1.1 200 OK\r\n"));
    let mut stream = connect(&node);
    stream.write_all(add("Expect: 100-continue\r\nContent-Length: 300000\r\n", "").as_bytes()).unwrap();
    assert!(read_all(&mut stream).starts_with("HTTP/1.1 413 Content Too Large\r\n"));
}

#[test]
fn an_answer_is_compressed_for_those_who_ask_for_it() {
    let node = Node::started("");
    let coding = |path: &str, accepted: &str| {
        let (head, _) = exchange(&node, &get(path, &format!("Accept-Encoding: {accepted}\r\nConnection: close\r\n")));
        (header(&head, "Content-Encoding").map(String::from), header(&head, "Vary").is_some())
    };
    assert_eq!(coding("/cron/list", "gzip"), (None, false), "too short to be worth it");
    for _ in 0..10 {
        node.api.add_idle(&"x".repeat(2_000), "");
    }
    let gzip = (Some("gzip".to_string()), true);
    for accepted in ["gzip", "deflate, gzip;q=0.5", "*", "x-gzip"] {
        assert_eq!(coding("/cron/list", accepted), gzip, "{accepted}");
    }
    for accepted in ["", "identity", "gzip;q=0", "br", "identity;q=1, gzip;q=0.1"] {
        assert_eq!(coding("/cron/list", accepted), (None, true), "{accepted}");
    }
    let old = "GET /cron/list HTTP/1.0\r\nAccept-Encoding: gzip\r\n\r\n";
    assert_eq!(header(&exchange(&node, old).0, "Content-Encoding"), None, "it would come in chunks");
}
