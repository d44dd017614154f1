//! The sources of events, and the tokens by which mio names them.
//!
//! Not the sources themselves: sockets and pipes are with those who read them.
//!
//! Invariant: every source has a token of its own.

use mio::Token;

/// What an event belongs to, packed into mio's token. Serial numbers are never used twice, so an event of a source that
/// is gone finds nothing.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Source {
    Answers,
    Timer,
    Signal(usize),
    Guardian,
    HttpListener,
    DebugListener,
    Connection(usize),
    PeerListener,
    Peer(usize),
    ChildExit(usize),
    ChildOutput(usize),
    SocketListener,
}

const KINDS: usize = 12;

impl Source {
    pub fn token(self) -> Token {
        let (serial, kind) = match self {
            Source::Answers => (0, 0),
            Source::Timer => (0, 1),
            Source::Signal(at) => (at, 2),
            Source::Guardian => (0, 3),
            Source::HttpListener => (0, 4),
            Source::DebugListener => (0, 5),
            Source::Connection(serial) => (serial, 6),
            Source::ChildExit(serial) => (serial, 7),
            Source::ChildOutput(serial) => (serial, 8),
            Source::PeerListener => (0, 9),
            Source::Peer(serial) => (serial, 10),
            Source::SocketListener => (0, 11),
        };
        Token(serial * KINDS + kind)
    }

    pub fn of(token: Token) -> Source {
        let serial = token.0 / KINDS;
        match token.0 % KINDS {
            0 => Source::Answers,
            1 => Source::Timer,
            2 => Source::Signal(serial),
            3 => Source::Guardian,
            4 => Source::HttpListener,
            5 => Source::DebugListener,
            6 => Source::Connection(serial),
            7 => Source::ChildExit(serial),
            8 => Source::ChildOutput(serial),
            9 => Source::PeerListener,
            10 => Source::Peer(serial),
            _ => Source::SocketListener,
        }
    }
}
