//! The socket of an HTTP client: TCP, TCP with TLS, or the Unix socket in data_dir.
//!
//! Invariant: whoever reads and writes need not know which of them it is.

use super::tls::{Handshake, Tls};
use crate::api::access::Arrival;
use mio::event::Source;
use mio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use mio::{Interest, Registry, Token};
use rustls::ServerConfig;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

/// The bytes that the kernel keeps of an answer (it doubles the number). More of them would hide from us whether the client
/// still takes any.
const SEND_BUFFER_BYTES: usize = 128 << 10;

pub enum Stream {
    Tcp(TcpStream),
    Tls(Tls),
    Unix(UnixStream),
}

pub enum Listener {
    Tcp(TcpListener),
    /// With the certificate for the connections to come.
    Tls(TcpListener, Arc<ServerConfig>),
    Unix(UnixListener),
}

/// How far a listener was asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Accepted {
    /// Nobody waits there any more.
    All,
    /// There may be more.
    More,
    /// The host has no descriptor or no memory for another connection. No event tells of those who wait.
    Stuck,
}

impl Listener {
    /// A connection that waits, and how it has come.
    pub fn accept(&self) -> io::Result<(Stream, Arrival)> {
        match self {
            Listener::Tcp(listener) => {
                let (stream, from, to) = accept(listener)?;
                Ok((Stream::Tcp(stream), Arrival::Tcp { from, to, is_tls: false }))
            }
            Listener::Tls(listener, config) => {
                let (stream, from, to) = accept(listener)?;
                Ok((Stream::Tls(Tls::new(stream, Arc::clone(config))), Arrival::Tcp { from, to, is_tls: true }))
            }
            Listener::Unix(listener) => {
                let (stream, _) = listener.accept()?;
                let _ = rustix::net::sockopt::set_socket_send_buffer_size(&stream, SEND_BUFFER_BYTES);
                let uid = rustix::net::sockopt::socket_peercred(&stream)?.uid.as_raw();
                Ok((Stream::Unix(stream), Arrival::Socket { uid }))
            }
        }
    }
}

/// A TCP connection that waits, the address that it comes from, and ours that it has come to.
fn accept(listener: &TcpListener) -> io::Result<(TcpStream, IpAddr, IpAddr)> {
    let (stream, from) = listener.accept()?;
    // Small answers must not wait for an acknowledgement; if this fails they are merely slower.
    let _ = stream.set_nodelay(true);
    let _ = rustix::net::sockopt::set_socket_send_buffer_size(&stream, SEND_BUFFER_BYTES);
    let to = stream.local_addr()?.ip();
    Ok((stream, from.ip(), to))
}

impl Stream {
    /// How far the handshake has come.
    pub fn handshake(&self) -> Handshake {
        match self {
            Stream::Tcp(_) | Stream::Unix(_) => Handshake::Over,
            Stream::Tls(stream) => stream.handshake(),
        }
    }

    /// Whether plain http has come where TLS is spoken.
    pub fn is_refused(&self) -> bool {
        matches!(self, Stream::Tls(stream) if stream.is_plain())
    }

    /// The bytes that have been taken from the socket and wait to be read.
    pub fn held(&self) -> usize {
        match self {
            Stream::Tcp(_) | Stream::Unix(_) => 0,
            Stream::Tls(stream) => stream.held(),
        }
    }

    /// Looks at the first byte that waits, without reading it. `Ok(0)`: the client has closed.
    pub fn peek(&mut self) -> io::Result<usize> {
        let mut byte = [0];
        match self {
            Stream::Tcp(stream) => stream.peek(&mut byte),
            Stream::Tls(stream) => stream.peek(),
            Stream::Unix(stream) => {
                Ok(rustix::net::recv(stream, &mut byte[..], rustix::net::RecvFlags::PEEK).map(|(count, _)| count)?)
            }
        }
    }

    pub fn shutdown(&mut self, how: Shutdown) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.shutdown(how),
            Stream::Tls(stream) => stream.shutdown(how),
            Stream::Unix(stream) => stream.shutdown(how),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.read(buffer),
            Stream::Tls(stream) => stream.read(buffer),
            Stream::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.write(bytes),
            Stream::Tls(stream) => stream.write(bytes),
            Stream::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Stream::Tcp(stream) => stream.as_raw_fd(),
            Stream::Tls(stream) => stream.socket().as_raw_fd(),
            Stream::Unix(stream) => stream.as_raw_fd(),
        }
    }
}

impl Source for Stream {
    fn register(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.register(registry, token, interests),
            Stream::Tls(stream) => stream.socket_mut().register(registry, token, interests),
            Stream::Unix(stream) => stream.register(registry, token, interests),
        }
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.reregister(registry, token, interests),
            Stream::Tls(stream) => stream.socket_mut().reregister(registry, token, interests),
            Stream::Unix(stream) => stream.reregister(registry, token, interests),
        }
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.deregister(registry),
            Stream::Tls(stream) => stream.socket_mut().deregister(registry),
            Stream::Unix(stream) => stream.deregister(registry),
        }
    }
}
