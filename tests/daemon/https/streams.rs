//! Answers that go on for long.

use super::handshakes::Client;
use crate::http::connect;
use crate::support::https::{Https, counted};
use crate::support::{wait_for, wait_to_see};
use std::io::{BufRead, BufReader};
use std::process::Stdio;

/// Starts one run that waits at the gate between its two words; gives its key.
fn start_run(https: &Https, command: &str) -> String {
    let form = crate::support::jobs::form(&[("cronSet", "@yearly"), ("command", command)]);
    let id = https.post("/cron/add", &form).ok()["id"].as_u64().unwrap();
    let run = https.post(&format!("/cron/run/{id}"), "").ok();
    run["run_key"].as_str().expect("it has a key").to_string()
}

#[test]
fn what_a_run_writes_comes_as_it_is_written() {
    let Some(https) = Https::started("") else { return };
    let gate = https.node.gate();
    let key = start_run(&https, &format!("echo first; {}; echo last", gate.wait()));
    let mut curl = https.curl(&["-N"], &format!("/run/output/{key}?follow=1"));
    let mut curl = curl.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(curl.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "first", "it comes while the run goes on");
    gate.open();
    assert_eq!(lines.map(Result::unwrap).collect::<Vec<_>>(), ["last"]);
    assert!(curl.wait().unwrap().success(), "the end of the answer is announced");
}

#[test]
fn a_follower_that_is_gone_holds_no_place() {
    let debug = format!("127.0.0.1:{}", crate::support::free_port());
    let Some(https) = Https::started(&format!("pprof_listen = \"{debug}\"\n")) else { return };
    let gate = https.node.gate();
    let key = start_run(&https, &format!("echo first; {}", gate.wait()));
    let mut curl = https.curl(&["-N"], &format!("/run/output/{key}?follow=1"));
    let mut curl = curl.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(curl.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "first");
    let streams = || counted(&debug, "http_streams_open");
    assert_eq!(streams(), 1);
    // Told to end, curl says so by TLS before it closes the socket: bytes that nobody wants to read.
    rustix::process::kill_process(rustix::process::Pid::from_child(&curl), rustix::process::Signal::TERM).unwrap();
    let _ = wait_for("curl ends", || curl.try_wait().unwrap());
    wait_to_see("the stream is over, though the run writes nothing", streams, |open| *open == 0);
    gate.open();
}

#[test]
fn who_waits_is_told_that_the_daemon_goes() {
    let Some(mut https) = Https::started("") else { return };
    let mut client = Client::new(&https.authority, connect(&https.node));
    assert!(client.ask("GET /whoami HTTP/1.1\r\nHost: localhost\r\n\r\n").contains("200 OK"));
    https.node.stop();
    assert!(client.is_announced_end(), "the connection ends by close_notify, and not as if it were cut");
}

#[test]
fn an_answer_that_waits_for_its_client_is_counted_and_arrives_whole() {
    let debug = format!("127.0.0.1:{}", crate::support::free_port());
    let Some(https) = Https::started(&format!("pprof_listen = \"{debug}\"\n")) else { return };
    super::clients::add_large_rows(&https, 5);
    let whole = https.say(&[], "/log/list?limit=5").len();
    let mut client = Client::new(&https.authority, connect(&https.node));
    client.send("GET /log/list?limit=5 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let held = || counted(&debug, "http_answer_bytes_held");
    wait_to_see("the answer waits", held, |held| 1 << 20 <= *held);
    let answer = client.read_to_announced_end();
    assert_eq!(answer.split_once("\r\n\r\n").map(|(_, body)| body.len()), Some(whole));
    wait_to_see("nothing is held", held, |held| *held == 0);
}
