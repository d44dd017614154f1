//! TLS between a connection and its socket: plain bytes above, sealed ones below. Also what is said to a client that speaks
//! plain http here: it is read and answered as it speaks.
//!
//! Not HTTP, no certificate's file, and not the choice of the connection whose handshake goes on; see `connections`.
//!
//! Invariants: until a first byte has come there is no session, so a silent connection costs no more than without TLS; no
//! more is taken from the socket while opened bytes wait to be read, and no more is sealed while sealed bytes wait to be
//! sent, so that a session holds a few records; nothing that waits in here is without an event or a caller who comes back:
//! `read` says `WouldBlock` only where socket and session are both empty.

use mio::net::TcpStream;
use rustls::{ServerConfig, ServerConnection};
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::sync::Arc;

/// The first byte of every connection by TLS: a record of its handshake. No request of HTTP begins with it.
const FIRST_BYTE: u8 = 0x16;

/// Plain bytes that are sealed at one time: one record.
const SEALED_BYTES_MAX: usize = 16 << 10;
/// What rustls may hold for the socket: a record, and what it says itself.
const SEND_BYTES_MAX: usize = 32 << 10;
/// What a client may send in its handshake. Its certificate is not asked for, so 2 KiB are usual.
const HANDSHAKE_BYTES_MAX: usize = 32 << 10;
/// Sealed bytes that are taken from the socket in one call without a plain one among them.
const EMPTY_BYTES_MAX: usize = 64 << 10;

/// How far a client has come in with the handshake.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Handshake {
    /// Nothing has come yet.
    Awaited,
    Begun,
    /// It is done, or there is none.
    Over,
}

pub struct Tls {
    socket: TcpStream,
    spoken: Spoken,
}

/// What the client speaks.
enum Spoken {
    /// It has said nothing yet.
    Nothing(Arc<ServerConfig>),
    /// Plain http, most likely.
    Plain,
    Tls(Box<Session>),
}

struct Session {
    tls: ServerConnection,
    /// Plain bytes of the caller's that are sealed, and that `write` has not answered for yet.
    sealed: usize,
    /// Plain bytes that wait to be read.
    opened: usize,
    /// Sealed bytes that have come since plain ones came last.
    unopened: usize,
    /// The writing side is to be shut down once all is sent.
    is_ending: bool,
}

impl Tls {
    pub fn new(socket: TcpStream, config: Arc<ServerConfig>) -> Tls {
        Tls { socket, spoken: Spoken::Nothing(config) }
    }

    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    pub fn socket_mut(&mut self) -> &mut TcpStream {
        &mut self.socket
    }

    pub fn handshake(&self) -> Handshake {
        match &self.spoken {
            Spoken::Nothing(_) => Handshake::Awaited,
            Spoken::Tls(session) if session.tls.is_handshaking() => Handshake::Begun,
            Spoken::Plain | Spoken::Tls(_) => Handshake::Over,
        }
    }

    pub fn is_plain(&self) -> bool {
        matches!(self.spoken, Spoken::Plain)
    }

    /// The bytes that have come and are not read yet.
    pub fn held(&self) -> usize {
        match &self.spoken {
            Spoken::Tls(session) => session.opened + session.unopened,
            Spoken::Nothing(_) | Spoken::Plain => 0,
        }
    }

    /// As `TcpStream::peek` for one byte. It may open records, but reads nothing.
    pub fn peek(&mut self) -> io::Result<usize> {
        match &mut self.spoken {
            Spoken::Tls(session) => session.open(&mut self.socket).map(|count| count.min(1)),
            Spoken::Nothing(_) | Spoken::Plain => self.socket.peek(&mut [0]),
        }
    }

    /// Says to the client that no more comes, and shuts down the socket's writing side: at once, or with the read that
    /// finds the way free.
    pub fn shutdown(&mut self, how: Shutdown) -> io::Result<()> {
        if let Spoken::Tls(session) = &mut self.spoken {
            session.tls.send_close_notify();
            session.is_ending = true;
            return session.send(&mut self.socket);
        }
        self.socket.shutdown(how)
    }

    /// Looks at what the client speaks.
    fn listen(&mut self) -> io::Result<()> {
        let Spoken::Nothing(config) = &self.spoken else { return Ok(()) };
        let mut first = [0];
        if self.socket.peek(&mut first)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        if first[0] != FIRST_BYTE {
            self.spoken = Spoken::Plain;
            return Err(ErrorKind::Unsupported.into());
        }
        let mut tls = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
        tls.set_buffer_limit(Some(SEND_BYTES_MAX));
        self.spoken = Spoken::Tls(Box::new(Session { tls, sealed: 0, opened: 0, unopened: 0, is_ending: false }));
        Ok(())
    }
}

impl Read for Tls {
    /// `Unsupported`, once: the client does not speak TLS. From then on its plain bytes are read. `Interrupted`: much has
    /// come, and nothing to read in it.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.listen()?;
        match &mut self.spoken {
            Spoken::Tls(session) => session.read(&mut self.socket, buffer),
            Spoken::Nothing(_) | Spoken::Plain => self.socket.read(buffer),
        }
    }
}

impl Write for Tls {
    /// Answers for bytes once they have gone to the socket, sealed. So after `WouldBlock` the same bytes have to be given
    /// again, first.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.spoken {
            Spoken::Nothing(_) => Err(ErrorKind::NotConnected.into()),
            Spoken::Plain => self.socket.write(bytes),
            Spoken::Tls(session) => session.write(&mut self.socket, bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Session {
    fn read(&mut self, socket: &mut TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
        if self.open(socket)? == 0 {
            return Ok(0);
        }
        let count = self.tls.reader().read(buffer)?;
        self.opened = self.opened.saturating_sub(count);
        Ok(count)
    }

    fn write(&mut self, socket: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
        if self.tls.is_handshaking() {
            return Err(ErrorKind::NotConnected.into());
        }
        if self.sealed == 0 {
            self.send(socket)?;
            self.sealed = self.tls.writer().write(&bytes[..bytes.len().min(SEALED_BYTES_MAX)])?;
        }
        self.send(socket)?;
        debug_assert!(self.sealed <= bytes.len(), "other bytes were given than before");
        Ok(std::mem::take(&mut self.sealed))
    }

    /// How many plain bytes wait. Takes from the socket where there is none. 0: the client has said that no more comes.
    fn open(&mut self, socket: &mut TcpStream) -> io::Result<usize> {
        let mut taken = 0;
        while self.opened == 0 {
            match self.send(socket) {
                Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
                _ => {}
            }
            if EMPTY_BYTES_MAX <= taken {
                return Err(ErrorKind::Interrupted.into());
            }
            let was_handshaking = self.tls.is_handshaking();
            let count = self.tls.read_tls(socket)?;
            taken += count;
            self.unopened += count;
            let state = match self.tls.process_new_packets() {
                Ok(state) => state,
                Err(error) => {
                    // rustls has an alert for the client. That goes out now or not at all.
                    let _ = self.send(socket);
                    log::debug!("TLS: {error}");
                    return Err(ErrorKind::InvalidData.into());
                }
            };
            self.opened = state.plaintext_bytes_to_read();
            if self.opened != 0 || was_handshaking != self.tls.is_handshaking() {
                self.unopened = 0;
            }
            if self.opened == 0 && state.peer_has_closed() {
                return Ok(0);
            }
            // An end that the client has not announced may be somebody else's doing.
            if count == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            if was_handshaking && HANDSHAKE_BYTES_MAX < self.unopened {
                log::debug!("TLS: the client's part of the handshake is larger than {HANDSHAKE_BYTES_MAX} bytes");
                return Err(ErrorKind::InvalidData.into());
            }
        }
        Ok(self.opened)
    }

    /// Sends all that is sealed.
    fn send(&mut self, socket: &mut TcpStream) -> io::Result<()> {
        while self.tls.wants_write() {
            match self.tls.write_tls(socket) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
        }
        if std::mem::take(&mut self.is_ending) {
            socket.shutdown(Shutdown::Write)?;
        }
        Ok(())
    }
}
