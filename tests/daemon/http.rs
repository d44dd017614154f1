//! HTTP: bytes that are not a request, slow clients, many clients.

use crate::support::daemon::Node;
use crate::support::process::resident_kb;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

pub fn connect(node: &Node) -> TcpStream {
    let stream = TcpStream::connect(&node.api.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

/// Reads until the server closes the connection.
pub fn read_all(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) => panic!("{error}"),
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

pub fn ask(node: &Node, bytes: &[u8]) -> String {
    let mut stream = connect(node);
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    read_all(&mut stream)
}

#[track_caller]
fn check(node: &Node, bytes: &[u8], status: u16) {
    let answer = ask(node, bytes);
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    assert!(answer.contains(&format!("{{\"code\":{status},")), "{answer}");
}

#[test]
fn bytes_that_are_no_request_are_answered_and_the_daemon_lives_on() {
    let node = Node::started("");
    check(&node, b"rubbish\r\n\r\n", 400);
    check(&node, b"\x17\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400);
    check(&node, b"GET /cron/list HTTP/1.1\r\nHost: localhost\r\nBad Header\r\n\r\n", 400);
    check(&node, b"POST /cron/add HTTP/1.1\r\nHost: localhost\r\n\r\n", 411);
    check(&node, b"POST /cron/add HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2000000\r\n\r\n", 413);
    check(
        &node,
        b"POST /cron/add HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        400,
    );
    check(&node, b"POST /cron/add HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n", 400);
    let long_target = format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "a".repeat(9_000));
    check(&node, long_target.as_bytes(), 414);
    let long_header = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "a".repeat(9_000));
    check(&node, long_header.as_bytes(), 431);
    assert_eq!(ask(&node, b""), "");
    assert_eq!(
        ask(&node, b"GET /cron/list HTTP/1.1\r\nHost:"),
        "",
        "a client that goes away after half a request gets no answer"
    );
    assert!(node.api.is_up());
}

#[test]
fn requests_may_come_in_pieces_several_at_once_and_over_one_connection() {
    let node = Node::started("");
    let mut stream = connect(&node);
    let body = "cronSet=0 0 0 1 1 *&command=true";
    let request = format!("POST /cron/add HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    for byte in request.as_bytes() {
        stream.write_all(&[*byte]).unwrap();
    }
    let list = b"GET /cron/list HTTP/1.1\r\nHost: localhost\r\n\r\n";
    stream.write_all(&[&list[..], list, b"GET /cron/list HTTP/1.0\r\n\r\n"].concat()).unwrap();
    let answers = read_all(&mut stream);
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 4, "{answers}");
    assert_eq!(answers.matches("\"command\":\"true\"").count(), 4, "{answers}");
    let chunked = b"POST /cron/add HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    let answer = ask(&node, &[&chunked[..], format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len()).as_bytes()].concat());
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
}

#[test]
fn more_refused_requests_at_once_than_one_turn_takes_are_all_answered() {
    let node = Node::started("");
    // They come in one piece, so no event tells of those that the first turn leaves.
    let refused = b"GET /none HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(200);
    let answers = ask(&node, &refused);
    assert_eq!(answers.matches("HTTP/1.1 404 ").count(), 200);
}

#[test]
fn more_clients_at_once_than_one_turn_takes_are_all_answered() {
    let node = Node::started("");
    let list = b"GET /cron/list HTTP/1.0\r\n\r\n";
    let mut clients: Vec<TcpStream> = node.standing_still(|| (0..120).map(|_| connect(&node)).collect());
    clients.iter_mut().for_each(|client| client.write_all(list).unwrap());
    // Nobody else comes: a client that was left waiting at the listener would wait for ever.
    for client in &mut clients {
        let answer = read_all(client);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
}

#[test]
fn a_client_that_sends_slowly_is_told_so_and_cut_and_delays_no_other() {
    let node = Node::started("");
    let mut slow = connect(&node);
    slow.write_all(b"POST /cron/add HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nabc").unwrap();
    assert!(node.api.is_up());
    let answer = read_all(&mut slow);
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

#[test]
fn a_client_that_does_not_read_its_answer_costs_a_bounded_buffer() {
    let node = Node::started("");
    for _ in 0..50 {
        node.api.add_idle(&"x".repeat(2_000), "");
    }
    let mut deaf = connect(&node);
    let list = b"GET /cron/list HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(1_000);
    deaf.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    // The server stops reading long before it has all of the requests.
    let mut sent = 0;
    while let Ok(count) = deaf.write(&list) {
        sent += count;
        assert!(sent < 100 << 20, "the server reads without a limit");
    }
    assert!(node.api.is_up());
    let rss_kb = resident_kb(node.daemon_pid());
    assert!(rss_kb < 200_000, "{rss_kb} kB");
}

#[test]
fn many_idle_connections_keep_no_other_client_out() {
    let node = Node::started("");
    let idle: Vec<TcpStream> = (0..500).map(|_| connect(&node)).collect();
    assert!(node.api.is_up());
    drop(idle);
    node.wait_up_again();
}
