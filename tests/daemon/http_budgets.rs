//! What clients may cost: memory of all connections together and of each, and time.

use crate::http::{connect, read_all};
use crate::support::daemon::{Node, counters};
use crate::support::process::resident_kb;
use crate::support::{free_port, wait_to_see};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The largest body, and how many of them there may be.
const BODY_BYTES: usize = 256 << 10;
const BODIES: usize = 64;
const MIB: usize = 1 << 20;

/// A node that shows its counters, and their address.
fn started() -> (Node, String) {
    let debug = format!("127.0.0.1:{}", free_port());
    let mut node = Node::new(&format!("pprof_listen = \"{debug}\"\n"));
    node.start();
    (node, debug)
}

fn held(debug: &str, what: &str) -> u64 {
    counters(debug)[&format!("http_{what}_bytes_held")]
}

/// A client that has begun a body of this length.
fn poster(node: &Node, bytes: usize) -> TcpStream {
    let mut stream = connect(node);
    write!(stream, "POST /cron/add HTTP/1.1\r\nHost: localhost\r\nContent-Length: {bytes}\r\n\r\n").unwrap();
    stream
}

/// Sends without an end, and reads what the server says meanwhile.
fn answer_to(mut stream: TcpStream, bytes: &[u8]) -> String {
    let _ = stream.write_all(bytes);
    read_all(&mut stream)
}

#[test]
fn a_body_has_its_largest_size() {
    let node = Node::started("");
    let exact = answer_to(
        poster(&node, BODY_BYTES),
        &[&b"x=y&Connection="[..], &vec![b'z'; BODY_BYTES - 15]].concat()[..BODY_BYTES - 1],
    );
    assert!(exact.starts_with("HTTP/1.1 408 "), "all but one byte is a body that is waited for: {exact}");
    let mut whole = poster(&node, BODY_BYTES);
    whole.write_all(&[b'z'; BODY_BYTES]).unwrap();
    let mut status = [0; 12];
    whole.read_exact(&mut status).unwrap();
    assert_eq!(&status, b"HTTP/1.1 400", "it is read, and is no form of ours");
    assert!(answer_to(poster(&node, BODY_BYTES + 1), b"").starts_with("HTTP/1.1 413 Content Too Large\r\n"));
}

#[test]
fn bodies_have_one_budget_and_the_newcomer_waits() {
    let (node, debug) = started();
    let mut posters: Vec<TcpStream> = (0..BODIES).map(|_| poster(&node, BODY_BYTES)).collect();
    // So much that none of them is slow.
    posters.iter_mut().for_each(|stream| stream.write_all(&[b'x'; 20 << 10]).unwrap());
    let full = (BODIES * BODY_BYTES) as u64;
    wait_to_see("all bodies have begun", || held(&debug, "request"), |held| *held == full);
    let refused = answer_to(poster(&node, BODY_BYTES), &[b'x'; BODY_BYTES]);
    assert!(refused.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{refused}");
    assert!(refused.contains("\r\nRetry-After: 1\r\n") && refused.contains("no memory"), "{refused}");
    assert!(answer_to(poster(&node, 1), b"").starts_with("HTTP/1.1 503 "), "also a body of one byte");
    drop(posters.pop());
    wait_to_see("the place of one is free", || held(&debug, "request"), |held| *held == full - BODY_BYTES as u64);
    let form = "cronSet=@yearly&command=true";
    node.api.post("/cron/add", form).ok();
    posters.push(poster(&node, BODY_BYTES));
    wait_to_see("the next one has begun", || held(&debug, "request"), |held| *held == full);
    posters[0].write_all(&[b'x'; BODY_BYTES - (20 << 10)]).unwrap();
    let mut status = [0; 12];
    posters[0].read_exact(&mut status).unwrap();
    assert_eq!(&status, b"HTTP/1.1 400", "the first of them is not harmed");
    drop(posters);
    wait_to_see("nothing is held", || held(&debug, "request"), |held| *held == 0);
}

#[test]
fn unfinished_bodies_of_300_clients_cost_a_bounded_memory() {
    let node = Node::started("");
    let before_kb = resident_kb(node.daemon_pid());
    let mut posters: Vec<TcpStream> = (0..300).map(|_| poster(&node, BODY_BYTES)).collect();
    posters.iter_mut().for_each(|stream| drop(stream.write_all(&[b'x'; BODY_BYTES - 1])));
    assert!(node.api.is_up());
    let kb = resident_kb(node.daemon_pid()) - before_kb;
    assert!(kb < 60_000, "{kb} kB more");
}

/// A node with so many log rows of 1 MB, whose list is 8 MiB.
fn with_large_rows(rows: usize) -> (Node, String) {
    let (node, debug) = started();
    let database = node.database();
    let sql = "INSERT INTO log (cron_id, time, output, use_time) VALUES (7, ?, ?, 0)";
    for at in 0..rows {
        database.execute(sql, rusqlite::params![at, "x".repeat(1_000_000)]).unwrap();
    }
    (node, debug)
}

/// A client that asks for the large list and reads none of it.
fn deaf(node: &Node) -> TcpStream {
    let mut stream = connect(node);
    stream.write_all(b"GET /log/list?limit=10000 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    stream
}

/// How many bytes of its answer still come, until its end or the connection's.
fn bytes_left(stream: &mut TcpStream) -> usize {
    let (mut count, mut buffer) = (0, vec![0; 64 << 10]);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return count,
            Ok(more) => count += more,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return count,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_page_of_large_rows_ends_early_and_says_so() {
    let (node, _) = with_large_rows(20);
    let page = node.api.get("/log/list?limit=10000").ok();
    let rows = page["list"].as_array().unwrap();
    assert_eq!((rows.len(), &page["total"], &page["truncated"]), (8, &20.into(), &true.into()));
    assert_eq!(rows[0]["time"], 19, "the newest first");
    let page = node.api.get("/log/list?limit=8").ok();
    assert_eq!((page["list"].as_array().unwrap().len(), page.get("truncated")), (8, None));
    let last = node.api.get("/log/list?limit=5&page=4").ok();
    assert_eq!((last["list"].as_array().unwrap().len(), last.get("truncated")), (5, None));
    let kb = resident_kb(node.daemon_pid());
    assert!(kb < 150_000, "{kb} kB");
}

/// Says that it is over once it is dropped: when a check fails as well.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn those_who_read_slowest_are_cut_when_unread_answers_come_to_too_much() {
    let (node, debug) = with_large_rows(20);
    let mut first = deaf(&node);
    let bytes = bytes_left(&mut first);
    // One client that reads each of its answers, and many that do not read theirs.
    let is_over = AtomicBool::new(false);
    let ends = Ends(&is_over);
    let (read, mut others) = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut read = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                read.push(bytes_left(&mut deaf(&node)));
            }
            read
        });
        let others: Vec<TcpStream> = (0..15).map(|_| deaf(&node)).collect();
        let cut = || counters(&debug).get("http_slow_readers_cut").copied().unwrap_or(0);
        wait_to_see("some are cut", cut, |cut| 1 <= *cut);
        drop(ends);
        (reader.join().unwrap(), others)
    });
    assert!(held(&debug, "answer") <= 96 * MIB as u64);
    let kb = resident_kb(node.daemon_pid());
    assert!(kb < 250_000, "{kb} kB");
    assert!(
        !read.is_empty() && read.iter().all(|read| *read == bytes),
        "who reads gets all of it: {read:?} of {bytes}"
    );
    assert!(bytes_left(&mut others[0]) < bytes, "the oldest of those who did not read is cut");
}

#[test]
fn an_answer_that_nobody_takes_is_given_up() {
    let (node, debug) = with_large_rows(10);
    let mut deaf = deaf(&node);
    wait_to_see("the answer waits", || held(&debug, "answer"), |held| MIB as u64 <= *held);
    wait_to_see("the answer is given up", || held(&debug, "answer"), |held| *held == 0);
    assert!(bytes_left(&mut deaf) < 4 * MIB);
}

/// Sends byte after byte, each a tenth of a second after the one before, until there is an answer.
fn drip(mut stream: TcpStream) -> String {
    stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let (start, mut first) = (Instant::now(), [0]);
    while stream.read(&mut first).is_err_and(|error| error.kind() == ErrorKind::WouldBlock) {
        let _ = stream.write_all(b"x");
        assert!(start.elapsed() < Duration::from_secs(60), "it is never cut");
    }
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    format!("{}{}", first[0] as char, read_all(&mut stream))
}

#[test]
fn who_sends_drop_by_drop_is_cut() {
    let node = Node::started("");
    let body = poster(&node, BODY_BYTES);
    let mut chunked = connect(&node);
    chunked
        .write_all(b"POST /cron/add HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n40000\r\n")
        .unwrap();
    let mut head = connect(&node);
    head.write_all(b"GET /").unwrap();
    let threads = [(body, "the body"), (chunked, "the body"), (head, "the head")]
        .map(|(stream, part)| (std::thread::spawn(move || drip(stream)), part));
    for (thread, part) in threads {
        let answer = thread.join().unwrap();
        assert!(answer.starts_with("HTTP/1.1 408 Request Timeout\r\n") && answer.contains(part), "{answer}");
    }
}
