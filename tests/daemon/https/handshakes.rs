//! Handshakes: slow ones, unfinished ones, and very many. None of them costs a second or much memory.

use crate::http::connect;
use crate::support::certificates::{Authority, ECDSA, RSA};
use crate::support::https::{Https, counted};
use crate::support::process::{main_thread_ticks, resident_kb};
use crate::support::time::{now_ns, second};
use crate::support::witness::Witness;
use crate::support::{free_port, wait_to_see, wait_until};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Instant;

/// How long a handshake may take from its first byte to its end.
const HANDSHAKE_SECS: u64 = 10;

fn config(authority: &Authority) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority.certificate()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Arc::new(config.with_root_certificates(roots).with_no_client_auth())
}

fn connection(config: &Arc<ClientConfig>) -> ClientConnection {
    ClientConnection::new(Arc::clone(config), ServerName::try_from("localhost").unwrap()).unwrap()
}

/// A client with one connection, byte for byte in the hand of the test.
pub struct Client(StreamOwned<ClientConnection, TcpStream>);

impl Client {
    pub fn new(authority: &Authority, stream: TcpStream) -> Client {
        Client(StreamOwned::new(connection(&config(authority)), stream))
    }

    /// Sends a request, and reads its answer with the length that the answer says.
    pub fn ask(&mut self, request: &str) -> String {
        self.send(request);
        let mut answer = String::new();
        loop {
            if let Some((head, body)) = answer.split_once("\r\n\r\n") {
                let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
                if length.and_then(|length| length.parse().ok()) == Some(body.len()) {
                    return answer;
                }
            }
            let mut bytes = [0; 1_024];
            let count = self.0.read(&mut bytes).unwrap();
            assert!(count != 0, "it ends in the middle: {answer}");
            answer.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
        }
    }

    pub fn send(&mut self, request: &str) {
        self.0.write_all(request.as_bytes()).unwrap();
    }

    /// What comes until the server says, by TLS, that no more comes.
    pub fn read_to_announced_end(&mut self) -> String {
        let mut text = String::new();
        self.0.read_to_string(&mut text).unwrap();
        text
    }

    /// Whether the server says, by TLS, that no more comes.
    pub fn is_announced_end(&mut self) -> bool {
        self.0.read(&mut [0]).is_ok_and(|count| count == 0)
    }
}

/// The first message of a handshake.
fn hello(config: &Arc<ClientConfig>) -> Vec<u8> {
    let mut bytes = Vec::new();
    connection(config).write_tls(&mut bytes).unwrap();
    bytes
}

/// A job that nobody asks about writes down each of its seconds.
fn witness(https: &Https) -> (Witness, i64) {
    let witness = https.node.witness("seen");
    https.add_every_second(&witness.write("x"));
    witness.wait_count("x", 2);
    let first = witness.seconds("x")[0];
    (witness, first)
}

/// Checks that each second from the first to now has its one run, and says how late the latest one was, in ms.
#[track_caller]
fn check_seconds(witness: &Witness, first: i64) -> i128 {
    let last = second() + 1;
    witness.wait_for_second(last + 1);
    let seconds: Vec<i64> = witness.sorted_seconds("x").into_iter().filter(|at| *at <= last).collect();
    assert_eq!(seconds, (first..=last).collect::<Vec<_>>());
    let late =
        |seen: &crate::support::witness::Seen| (seen.at_ns - i128::from(seen.scheduled_at) * 1_000_000_000) / 1_000_000;
    witness.read().iter().map(late).max().unwrap()
}

#[track_caller]
fn wait_for_end(stream: &mut TcpStream) {
    let mut bytes = [0; 4_096];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return,
            Err(error) => panic!("it is not cut: {error}"),
        }
    }
}

#[test]
fn a_slow_handshake_is_cut() {
    let Some(https) = Https::started("") else { return };
    let hello = hello(&config(&https.authority));
    // One byte and no more; drop by drop; all but one byte; all, but no answer to the answer.
    let starts: [&[u8]; 4] = [&hello[..1], &hello[..2], &hello[..hello.len() - 1], &hello];
    let begin = Instant::now();
    let mut streams: Vec<TcpStream> = starts.iter().map(|_| connect(&https.node)).collect();
    for (stream, start) in streams.iter_mut().zip(starts) {
        stream.write_all(start).unwrap();
    }
    let mut dripping = streams[1].try_clone().unwrap();
    let drops = hello[2..].to_vec();
    let dripper = std::thread::spawn(move || {
        for drop in drops {
            if dripping.write_all(&[drop]).is_err() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    });
    for stream in &mut streams {
        wait_for_end(stream);
        let secs = begin.elapsed().as_secs();
        assert!((HANDSHAKE_SECS..HANDSHAKE_SECS + 5).contains(&secs), "after {secs} s");
    }
    dripper.join().unwrap();
    https.get("/whoami").ok();
}

#[test]
fn a_handshake_without_end_is_cut() {
    let Some(https) = Https::started("") else { return };
    let begin = Instant::now();
    let mut stream = connect(&https.node);
    // A first message of 60 kB, in records of 16 kB.
    let _ = stream.write_all(&[0x16, 3, 1, 0x40, 0, 1, 0, 0xf0, 0]);
    let _ = stream.write_all(&[0; (16 << 10) - 4]);
    for _ in 0..2 {
        let _ = stream.write_all(&[0x16, 3, 1, 0x40, 0]);
        let _ = stream.write_all(&[0; 16 << 10]);
    }
    wait_for_end(&mut stream);
    assert!(begin.elapsed().as_secs() < HANDSHAKE_SECS, "it is not waited for");
    https.get("/whoami").ok();
}

#[test]
fn unfinished_handshakes_cost_bounded_memory_and_no_second() {
    let debug = format!("127.0.0.1:{}", free_port());
    let Some(https) = Https::started(&format!("pprof_listen = \"{debug}\"\n")) else { return };
    let (witness, first) = witness(&https);
    let (pid, hello) = (https.node.daemon_pid(), hello(&config(&https.authority)));
    let open = || counted(&debug, "http_connections_open");
    let (before, before_kb) = (open(), resident_kb(pid));
    let mut all = Vec::new();
    for (said, kb_max) in [(&[][..], 2), (&hello[..1], 12), (&hello[..hello.len() - 1], 12), (&hello, 32)] {
        let kb = resident_kb(pid);
        let mut streams: Vec<TcpStream> = (0..300).map(|_| connect(&https.node)).collect();
        streams.iter_mut().for_each(|stream| stream.write_all(said).unwrap());
        all.extend(streams);
        let count = before + all.len() as u64;
        wait_to_see("they are taken", open, |open| *open == count);
        https.get("/whoami").ok();
        let kb = resident_kb(pid).saturating_sub(kb);
        println!("300 connections that have sent {} bytes: {kb} kB", said.len());
        assert!(kb <= 300 * kb_max + 1_000, "{kb} kB for {} bytes each", said.len());
    }
    let held = counted(&debug, "http_request_bytes_held");
    assert!(300 * 2 * hello.len() as u64 <= held, "{held} bytes");
    println!("{} kB in all", resident_kb(pid) - before_kb);
    let latest_ms = check_seconds(&witness, first);
    println!("the latest run wrote {latest_ms} ms after its second");
    assert!(latest_ms < 1_000, "{latest_ms} ms late");
    assert_eq!(counted(&debug, "http_tls_handshakes_failed"), 0);
    drop(all);
    wait_until("they are gone", || open() <= before);
}

/// How late a run may be beside a flood. All its handshakes in one turn of the loop would take twice as long, by RSA.
const LATE_MS_MAX: i128 = 400;

/// So many clients shake hands at the same moment.
fn flood(kind: &[&str], handshakes: usize) {
    let debug = format!("127.0.0.1:{}", free_port());
    let Some(https) = Https::with(kind, &format!("pprof_listen = \"{debug}\"\n")) else { return };
    let (witness, first) = witness(&https);
    let (pid, config) = (https.node.daemon_pid(), config(&https.authority));
    let before = counted(&debug, "http_tls_handshakes");
    let ticks = main_thread_ticks(pid);
    let mut streams: Vec<TcpStream> = (0..handshakes).map(|_| connect(&https.node)).collect();
    let hellos: Vec<Vec<u8>> = streams.iter().map(|_| hello(&config)).collect();
    // All of them are there when the daemon goes on, right before a second begins.
    https.node.standing_still(|| {
        streams.iter_mut().zip(&hellos).for_each(|(stream, hello)| stream.write_all(hello).unwrap());
        wait_until("a second begins soon", || (940..970).contains(&(now_ns() / 1_000_000 % 1_000)));
    });
    let begin = Instant::now();
    for stream in &mut streams {
        stream.read_exact(&mut [0]).unwrap();
    }
    let (ms, ticks) = (begin.elapsed().as_millis(), main_thread_ticks(pid) - ticks);
    println!("{handshakes} handshakes: {ms} ms, of the loop's time {} us each", ticks as usize * 10_000 / handshakes);
    let latest_ms = check_seconds(&witness, first);
    println!("the latest run wrote {latest_ms} ms after its second");
    assert!(latest_ms < LATE_MS_MAX, "{latest_ms} ms late");
    assert_eq!(counted(&debug, "http_tls_handshakes"), before, "none of them is whole");
    drop(streams);
    https.get("/whoami").ok();
    assert_eq!(counted(&debug, "http_tls_handshakes"), before + 1);
    let failed = || counted(&debug, "http_tls_handshakes_failed");
    wait_to_see("the others have failed", failed, |failed| *failed == handshakes as u64);
}

#[test]
fn a_thousand_handshakes_at_once_cost_no_second() {
    flood(ECDSA, 1_000);
}

#[test]
fn the_same_with_an_rsa_key() {
    flood(RSA, 1_000);
}
