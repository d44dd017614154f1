//! A listener on the way to a server: it passes on all that it hears, both ways, and keeps it.

use crate::support::free_port;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::spawn;

/// The first bytes of TLS: a handshake, of a version from 1.0 on.
const CLIENT_HELLO: &[u8] = &[0x16, 0x03, 0x01];

pub struct Listener {
    pub port: u16,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Listener {
    /// Listens before this port of the host, until the test's process ends.
    pub fn before(server: u16) -> Listener {
        Listener::that(server, false)
    }

    /// Closes each connection in which TLS begins, without a word, as old servers and firewalls do.
    pub fn that_cuts_tls(server: u16) -> Listener {
        Listener::that(server, true)
    }

    fn that(server: u16, cuts_tls: bool) -> Listener {
        let port = free_port();
        let socket = TcpListener::bind(("127.0.0.1", port)).expect("the port is free");
        let heard = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&heard);
        spawn(move || {
            for client in socket.incoming().flatten() {
                let Ok(server) = TcpStream::connect(("127.0.0.1", server)) else { continue };
                let back = (server.try_clone().expect("a socket"), client.try_clone().expect("a socket"));
                for (from, to) in [(client, server), back] {
                    let all = Arc::clone(&all);
                    spawn(move || pass_on(from, to, &all, cuts_tls));
                }
            }
        });
        Listener { port, heard }
    }

    pub fn has_heard(&self, words: &str) -> bool {
        self.heard.lock().expect("no thread panics").windows(words.len()).any(|window| window == words.as_bytes())
    }
}

fn pass_on(mut from: TcpStream, mut to: TcpStream, heard: &Mutex<Vec<u8>>, cuts_tls: bool) {
    let mut buffer = [0; 16_384];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        heard.lock().expect("no thread panics").extend_from_slice(&buffer[..count]);
        let is_cut = cuts_tls && buffer[..count].windows(CLIENT_HELLO.len()).any(|window| window == CLIENT_HELLO);
        if is_cut || to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = (to.shutdown(std::net::Shutdown::Both), from.shutdown(std::net::Shutdown::Both));
}
