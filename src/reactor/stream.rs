//! The socket of an HTTP client: TCP, or the Unix socket in data_dir.
//!
//! Invariant: whoever reads and writes need not know which of the two it is.

use crate::api::access::Arrival;
use mio::event::Source;
use mio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use mio::{Interest, Registry, Token};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, RawFd};

/// The bytes that the kernel keeps of an answer (it doubles the number). More of them would hide from us whether the client
/// still takes any.
const SEND_BUFFER_BYTES: usize = 128 << 10;

pub enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

pub enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// A connection that waits, and how it has come.
    pub fn accept(&self) -> io::Result<(Stream, Arrival)> {
        match self {
            Listener::Tcp(listener) => {
                let (stream, from) = listener.accept()?;
                // Small answers must not wait for an acknowledgement; if this fails they are merely slower.
                let _ = stream.set_nodelay(true);
                let _ = rustix::net::sockopt::set_socket_send_buffer_size(&stream, SEND_BUFFER_BYTES);
                let to = stream.local_addr()?.ip();
                Ok((Stream::Tcp(stream), Arrival::Tcp { from: from.ip(), to }))
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

impl Stream {
    /// Looks at the first byte that waits, without reading it. `Ok(0)`: the client has closed.
    pub fn peek(&self) -> io::Result<usize> {
        let mut byte = [0];
        match self {
            Stream::Tcp(stream) => stream.peek(&mut byte),
            Stream::Unix(stream) => {
                Ok(rustix::net::recv(stream, &mut byte[..], rustix::net::RecvFlags::PEEK).map(|(count, _)| count)?)
            }
        }
    }

    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.shutdown(how),
            Stream::Unix(stream) => stream.shutdown(how),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.read(buffer),
            Stream::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.write(bytes),
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
            Stream::Unix(stream) => stream.as_raw_fd(),
        }
    }
}

impl Source for Stream {
    fn register(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.register(registry, token, interests),
            Stream::Unix(stream) => stream.register(registry, token, interests),
        }
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.reregister(registry, token, interests),
            Stream::Unix(stream) => stream.reregister(registry, token, interests),
        }
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.deregister(registry),
            Stream::Unix(stream) => stream.deregister(registry),
        }
    }
}
