//! The output of a run: it is read while the run goes on and afterwards, from any offset, part by part or as one
//! stream.

use crate::http::ask;
use crate::support::daemon::{Node, counters};
use crate::support::process::peak_kb;
use crate::support::time::second;
use crate::support::{free_port, wait_for, wait_to_see, wait_until};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread::JoinHandle;
use std::time::Duration;

/// Starts one run of the command and gives its key: a mutex job is added, and stopped when its first run has begun.
fn start_once(node: &Node, command: &str) -> String {
    let seen = node.path(&format!("seen-{}", node.api.jobs().len()));
    let command = format!("echo $WING_RUN_KEY >> {}; {command}", seen.display());
    let id = node.api.add_every_second(&command, "is_mutex=1");
    let key = wait_for("the key of a run that has begun", || {
        let text = std::fs::read_to_string(&seen).ok()?;
        Some(text.split_once('\n')?.0.to_string())
    });
    node.api.stop_job(id);
    key
}

/// The text of an answer.
fn output(part: &Value) -> &str {
    part["output"].as_str().unwrap()
}

fn part(node: &Node, key: &str, query: &str) -> Value {
    node.api.get(&format!("/run/output/{key}?{query}")).ok()
}

/// Asks again and again, as a client without `follow` does; gives the text and the last answer.
fn poll(node: &Node, key: &str, from: u64) -> (String, Value) {
    let (mut text, mut from) = (String::new(), from);
    let last = wait_for("the end of the output", || {
        let part = part(node, key, &format!("from={from}"));
        assert_eq!(part["from"], from);
        text.push_str(output(&part));
        from = part["next"].as_u64().unwrap();
        part["is_over"].as_bool().unwrap().then_some(part)
    });
    (text, last)
}

fn follow(address: &str, path: &str) -> Vec<u8> {
    let mut answer = ureq::get(format!("http://{address}{path}")).call().expect("the stream begins");
    assert_eq!(answer.headers()["Content-Type"], "text/plain; charset=utf-8");
    assert_eq!(answer.headers()["X-Run-Attempt"], "1");
    answer.body_mut().with_config().limit(1 << 30).read_to_vec().expect("the stream ends well")
}

fn following(node: &Node, key: &str, query: &str) -> JoinHandle<Vec<u8>> {
    let (address, path) = (node.api.address.clone(), format!("/run/output/{key}?follow=1{query}"));
    std::thread::spawn(move || follow(&address, &path))
}

/// Asks for a stream, and leaves the answer to be read by the caller.
fn request(node: &Node, key: &str) -> TcpStream {
    let mut stream = TcpStream::connect(&node.api.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    write!(stream, "GET /run/output/{key}?follow=1 HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    stream
}

/// The lines that `seq first last` writes.
fn seq(first: u32, last: u32) -> String {
    (first..=last).map(|number| format!("{number}\n")).collect()
}

#[track_caller]
fn check_same(seen: &[u8], expect: &str) {
    let at = seen.iter().zip(expect.as_bytes()).position(|(left, right)| left != right);
    assert!(seen == expect.as_bytes(), "{} of {} bytes, first difference at {at:?}", seen.len(), expect.len());
}

#[test]
fn output_is_read_while_it_comes_and_after_from_any_place() {
    let mut node = Node::started("");
    let gate = node.gate();
    let key = start_once(&node, &format!("echo first; {}; printf 'half\\344'; exit 3", gate.wait()));
    let first = wait_to_see("the first line", || part(&node, &key, ""), |part| part["next"] == 6);
    let expect = json!({"run_key": key, "attempt": 1, "server": node.server, "state": "running", "from": 0, "next": 6, "output": "first\n", "is_over": false});
    assert_eq!(first, expect);
    assert_eq!(part(&node, &key, "from=2&attempt=1")["output"], "rst\n");
    let nothing = part(&node, &key, "from=6");
    assert_eq!((&nothing["output"], &nothing["next"], &nothing["is_over"]), (&json!(""), &json!(6), &json!(false)));
    let follower = following(&node, &key, "&from=2");
    gate.open();
    let (rest, last) = poll(&node, &key, 6);
    assert_eq!(rest, "half\u{fffd}\n[exit code 3]\n");
    assert_eq!(last["state"], "failed");
    assert_eq!(follower.join().unwrap(), b"rst\nhalf\xe4\n[exit code 3]\n");
    let row = node.api.wait_for_row_of(&key);
    assert_eq!(row["output"], "first\nhalf\u{fffd}\n[exit code 3]\n");
    assert_eq!(poll(&node, &key, 0).0, row["output"]);
    node.stop();
    node.start();
    assert_eq!(poll(&node, &key, 0).0, row["output"], "after a restart the output is read from the row");
    assert_eq!(poll(&node, &key, 2).0, row.output()[2..]);
    assert_eq!(follow(&node.api.address, &format!("/run/output/{key}?follow=1")), row.output().as_bytes());
}

#[test]
fn an_output_that_is_unknown_or_not_begun_is_said_to_be_so() {
    let node = Node::started("");
    node.api.get("/run/output/7").refused(400, "a run key looks like");
    node.api.get("/run/output/7-1700000000?form=1").refused(400, "form");
    node.api.get("/run/output/7-1700000000").refused(404, "run_key 7-1700000000");
    node.api.get("/run/output/7-1700000000?follow=1").refused(404, "run_key 7-1700000000");
    let gate = node.gate();
    let id = node.api.add_every_second(&format!("echo $WING_RUN_KEY; {}", gate.wait()), "is_mutex=1");
    let waiting = |at: i64| {
        let reply = node.api.get(&format!("/run/output/{id}-{at}"));
        (reply.status == 200 && reply.body["data"]["state"] == "waiting").then(|| reply.body["data"].clone())
    };
    let start = second();
    let (at, answer) = wait_for("a run that waits", || (start..start + 60).find_map(|at| Some((at, waiting(at)?))));
    assert_eq!((&answer["output"], &answer["next"], &answer["is_over"]), (&json!(""), &json!(0), &json!(false)));
    let key = format!("{id}-{at}");
    let follower = following(&node, &key, "");
    gate.open();
    assert_eq!(follower.join().unwrap(), format!("{key}\n").as_bytes(), "a follower waits with the run");
    node.api.get(&format!("/run/output/{key}?attempt=2")).refused(404, &key);
}

#[test]
fn each_attempt_has_an_output_of_its_own() {
    let node = Node::started("");
    let id = node.api.add_idle("echo try $WING_ATTEMPT; exit 3", "retry_times=1&retry_delay=1");
    let key = node.api.run_job(id);
    assert_eq!(following(&node, &key, "&attempt=1").join().unwrap(), b"try 1\n[exit code 3]\n");
    wait_to_see("the output of the second attempt", || part(&node, &key, ""), |part| part["attempt"] == 2);
    let (text, last) = poll(&node, &key, 0);
    assert_eq!((text.as_str(), &last["attempt"]), ("try 2\n[exit code 3]\n", &json!(2)));
    assert_eq!(part(&node, &key, "attempt=1")["output"], "try 1\n[exit code 3]\n");
}

#[test]
fn beyond_the_cap_a_stream_leaves_out_the_same_bytes_as_the_row() {
    let node = Node::started("max_output_bytes = 1000\n");
    let gate = node.gate();
    let key = start_once(&node, &format!("seq 1 10000; {}; echo end", gate.wait()));
    let length = seq(1, 10_000).len() as u64;
    wait_to_see("the first part of the output", || part(&node, &key, "from=48000"), |part| part["next"] == length);
    let follower = following(&node, &key, "");
    let end = following(&node, &key, &format!("&from={length}"));
    wait_to_see("no more output yet", || part(&node, &key, ""), |part| part["next"] == length);
    gate.open();
    assert_eq!(end.join().unwrap(), b"end\n");
    let seen = String::from_utf8(follower.join().unwrap()).unwrap();
    let all = seq(1, 10_000) + "end\n";
    let (head, tail) = seen
        .split_once(&format!("\n[... {} bytes left out ...]\n", length - 1_000))
        .expect("the row says what it leaves out");
    assert!(all.starts_with(head) && all.ends_with(tail) && head.len() == 500, "{seen}");
}

#[test]
fn with_spool_output_all_is_there_beyond_the_cap_for_many_at_once_and_later() {
    let mut node = Node::started("max_output_bytes = 1000\nspool_output = true\n");
    let gate = node.gate();
    let key = start_once(&node, &format!("seq 1 200000; {}; seq 200001 400000; exit 3", gate.wait()));
    let half = seq(1, 200_000);
    let all = seq(1, 400_000) + "[exit code 3]\n";
    let followers: Vec<_> = (0..40).map(|_| following(&node, &key, "")).collect();
    let end_of_half = || part(&node, &key, &format!("from={}", half.len() - 2));
    wait_to_see("half of the output is written", end_of_half, |part| part["output"] == "0\n");
    assert_eq!(output(&part(&node, &key, "from=600000")), &half[600_000..][..256 << 10]);
    gate.open();
    followers.into_iter().for_each(|follower| check_same(&follower.join().unwrap(), &all));
    let row = node.api.wait_for_row_of(&key);
    assert!(row.output().contains("bytes left out ...]"), "{row}");
    check_same(poll(&node, &key, 0).0.as_bytes(), &all);
    assert_eq!(std::fs::read_to_string(node.path(&format!("data/output/{key}.1"))).unwrap().len(), all.len());
    node.stop();
    node.start();
    let (text, last) = poll(&node, &key, 0);
    check_same(text.as_bytes(), &all);
    assert_eq!((&last["state"], &last["server"]), (&json!("failed"), &json!(node.server)));
    check_same(&following(&node, &key, "&from=1000000").join().unwrap(), &all[1_000_000..]);
}

#[test]
fn a_small_output_makes_no_file_and_a_disk_that_takes_none_costs_no_run() {
    let node = Node::started("max_output_bytes = 1000\nspool_output = true\n");
    let key = start_once(&node, "echo small");
    assert_eq!(poll(&node, &key, 0).0, "small\n");
    assert!(!node.path("data/output").exists());
    std::fs::write(node.path("data/output"), "in the way").unwrap();
    let key = start_once(&node, "seq 1 100000");
    let (text, last) = poll(&node, &key, 0);
    assert_eq!(last["state"], "ok");
    assert!(text.contains("99999\n100000\n[its whole output is not kept: write "), "{text}");
    let row = node.api.wait_for_row_of(&key);
    // Parts that a client could read during the run may be left out in the log row.
    assert_eq!(row["output"], poll(&node, &key, 0).0);
}

#[test]
fn a_flood_of_output_waits_for_the_disk_and_is_kept_whole() {
    let node = Node::started("max_output_bytes = 100000\nspool_output = true\n");
    let key = start_once(&node, "head -c 100000000 /dev/zero | tr '\\0' x; echo end");
    let row = node.api.wait_for_row_of(&key);
    assert_eq!(row["state"], "ok");
    let peak = peak_kb(node.daemon_pid());
    assert!(peak < 150_000, "{peak} kB");
    let path = node.path(&format!("data/output/{key}.1"));
    let length = || std::fs::metadata(&path).map_or(0, |file| file.len());
    wait_to_see("the whole output in its file", length, |length| *length == 100_000_004);
    assert_eq!(part(&node, &key, "from=99999998")["output"], "xxend\n");
}

#[test]
fn an_old_client_gets_the_stream_without_chunks() {
    let node = Node::started("");
    let key = start_once(&node, "echo out; echo more");
    let request = format!("GET /run/output/{key}?follow=1&attempt=1 HTTP/1.0\r\n\r\n");
    let follow = || ask(&node, request.as_bytes());
    let answer = wait_to_see("the whole output", follow, |answer| answer.ends_with("out\nmore\n"));
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert_eq!(body, "out\nmore\n");
    assert!(head.contains("Connection: close") && !head.contains("chunked"), "{head}");
}

#[test]
fn a_connection_goes_on_after_a_stream() {
    let node = Node::started("");
    let key = start_once(&node, "echo out");
    let mut stream = request(&node, &key);
    stream.write_all(b"GET /cron/list HTTP/1.0\r\n\r\n").unwrap();
    let mut answers = String::new();
    stream.read_to_string(&mut answers).unwrap();
    assert!(answers.contains("\r\n4\r\nout\n\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n"), "{answers}");
}

#[test]
fn clients_that_go_away_or_do_not_read_delay_nothing() {
    let debug = format!("127.0.0.1:{}", free_port());
    let streams = || counters(&debug)["http_streams_open"];
    let node = Node::started(&format!("pprof_listen = \"{debug}\"\nmax_output_bytes = 4000000\n"));
    let gate = node.gate();
    let quiet = start_once(&node, &format!("echo out; {}", gate.wait()));
    let mut gone: Vec<TcpStream> = (0..256).map(|_| request(&node, &quiet)).collect();
    gone.iter_mut().for_each(|stream| assert_ne!(stream.read(&mut [0; 100]).unwrap(), 0));
    assert_eq!(streams(), 256);
    node.api.get(&format!("/run/output/{quiet}?follow=1")).refused(503, "256 followed");
    assert!(node.api.is_up());
    drop(gone);
    wait_to_see("no stream is left to clients that went away", streams, |open| *open == 0);
    let loud = start_once(&node, &gate.meanwhile("head -c 100000 /dev/zero"));
    let mut deaf = request(&node, &loud);
    wait_to_see("a stream to the client that does not read", streams, |open| *open == 1);
    wait_to_see("the client that does not read is cut", streams, |open| *open == 0);
    assert!(node.api.is_up());
    gate.open();
    let mut taken = Vec::new();
    let _ = deaf.read_to_end(&mut taken);
    assert!(!taken.ends_with(b"0\r\n\r\n"), "a client that was cut must not take what it got for the whole output");
}

#[test]
fn a_client_that_begins_to_read_late_gets_all_of_it() {
    let node = Node::started("max_output_bytes = 1000\nspool_output = true\n");
    let key = start_once(&node, "seq 1 1000000");
    let mut late = request(&node, &key);
    poll(&node, &key, 0);
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n0\r\n\r\n") {
        let mut buffer = [0; 4_096];
        let count = late.read(&mut buffer).unwrap();
        assert_ne!(count, 0, "the late client was cut");
        bytes.extend_from_slice(&buffer[..count]);
    }
    check_same(&body_of_chunks(&bytes), &seq(1, 1_000_000));
}

/// The body of an HTTP answer that came in chunks.
fn body_of_chunks(answer: &[u8]) -> Vec<u8> {
    let body = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    let (mut rest, mut text) = (&answer[body..], Vec::new());
    while let Some(line_end) = rest.windows(2).position(|window| window == b"\r\n") {
        let length = usize::from_str_radix(std::str::from_utf8(&rest[..line_end]).unwrap(), 16).unwrap();
        text.extend_from_slice(&rest[line_end + 2..][..length]);
        rest = &rest[line_end + 2 + length + 2..];
    }
    text
}

#[test]
fn files_of_old_output_are_removed_with_old_rows() {
    let mut node = Node::new("log_retention_days = 1\n");
    let path = node.path("data/output");
    std::fs::create_dir_all(&path).unwrap();
    for name in ["7-1.1", "7-2.1"] {
        std::fs::write(path.join(name), "x").unwrap();
    }
    let old = std::time::SystemTime::now() - Duration::from_secs(2 * 86_400);
    std::fs::File::options().write(true).open(path.join("7-1.1")).unwrap().set_modified(old).unwrap();
    node.start();
    wait_until("the old file is gone", || !path.join("7-1.1").exists());
    assert!(path.join("7-2.1").exists());
}
