//! A web site with one page, which tries every call that changes something in every way that a page has.
//!
//! Where `hands_on_to` is given, all but the page goes to that address: so a name looks that has got another address.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub struct Site {
    pub address: String,
    attempts: Arc<AtomicU64>,
}

impl Site {
    /// `target` is the authority that the page sends to, with `https://` before it where that is spoken there; the page's own where `hands_on_to` is given.
    pub fn new(listen: &str, target: &str, calls: &[String], hands_on_to: Option<&str>) -> Site {
        let listener = TcpListener::bind(listen).expect("a port is free");
        let address = listener.local_addr().expect("it is bound").to_string();
        let origin = match hands_on_to {
            Some(_) => String::new(),
            None if target.starts_with("https://") => target.into(),
            None => format!("http://{target}"),
        };
        let calls = calls.iter().map(|call| format!("{call:?}")).collect::<Vec<_>>().join(",");
        let page = include_str!("evil.html").replace("TARGET", &origin).replace("CALLS", &calls);
        let attempts = Arc::new(AtomicU64::new(0));
        let (count, hands_on_to) = (Arc::clone(&attempts), hands_on_to.map(String::from));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (page, count, to) = (page.clone(), Arc::clone(&count), hands_on_to.clone());
                std::thread::spawn(move || serve(stream, &page, &count, to.as_deref()));
            }
        });
        Site { address, attempts }
    }

    /// How many requests the page has certainly sent, once it has tried everything.
    pub fn attempts(&self) -> Option<u64> {
        Some(self.attempts.load(Ordering::Relaxed)).filter(|count| *count != 0)
    }
}

fn serve(stream: TcpStream, page: &str, attempts: &AtomicU64, hands_on_to: Option<&str>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        // One request a connection, so that nothing has to be told apart.
        if !line.to_ascii_lowercase().starts_with("connection:") {
            head.push_str(if line == "\r\n" { "Connection: close\r\n\r\n" } else { &line });
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let path = head.split(' ').nth(1)?;
    let mut stream = stream;
    match (path.strip_prefix("/done/"), hands_on_to) {
        (Some(count), _) => {
            attempts.store(count.parse().ok()?, Ordering::Relaxed);
            answer(&mut stream, "text/plain", "")
        }
        (None, Some(to)) if path != "/" => {
            let mut daemon = TcpStream::connect(to).ok()?;
            daemon.write_all(head.as_bytes()).and_then(|()| daemon.write_all(&body)).ok()?;
            std::io::copy(&mut daemon, &mut stream).map(drop).ok()
        }
        _ if path == "/" => answer(&mut stream, "text/html", page),
        _ => answer(&mut stream, "text/plain", ""),
    }
}

fn answer(stream: &mut TcpStream, content_type: &str, body: &str) -> Option<()> {
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
    .ok()
}
