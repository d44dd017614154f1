//! The handshake: two nodes prove to each other that they have the same `cluster_secret`, and agree on keys that nobody
//! else can learn, before they read any message.
//!
//! ```text
//! dialler    Handshake   Noise: psk, e
//! listener   Handshake   Noise: e, ee
//! dialler    Sealed      nothing, under the new keys
//! ```
//!
//! It is the Noise protocol's pattern NN with the key of the secret mixed in first (psk0), so a stranger's first message
//! already fails, before the listener computes or says anything. There are no keys of single nodes to spread and to
//! renew: whoever has the secret is a node. Both ends' fresh keys give forward secrecy: a secret that becomes known later
//! opens no recorded link.
//!
//! A first message can be recorded and sent again. So to the listener a dialler is a stranger until its third frame,
//! which needs the fresh keys.
//!
//! The prologue binds the version, and which end is which. The random numbers are the system's, as `snow` takes them: a
//! number that is handed in twice would open the link.
//!
//! Invariant: a stranger who connects hears nothing that depends on the secret, only whether it has the right one.

use super::channel::Channel;
use super::frame::{BadFrame, Frame, Kind, VERSION, frame};
use crate::model::config::Secret;
use sha2::{Digest, Sha256};
use snow::{Builder, HandshakeState};
use std::fmt;

/// The largest body that is taken before the other end has proved itself.
pub const BODY_BYTES_MAX: usize = 64;
const PATTERN: &str = "Noise_NNpsk0_25519_ChaChaPoly_SHA256";
const PROLOGUE: [&[u8]; 2] = [b"wing-crontab: the dialler is the initiator; version ", &[VERSION]];
/// What the key is derived for, so that the same secret gives no other key.
const KEY_OF: &[u8] = b"wing-crontab: key of the links of cluster_secret ";

/// The key of a secret.
#[derive(Clone, Eq, PartialEq)]
pub struct Key([u8; 32]);

impl Key {
    /// The key that nodes with this secret share.
    pub fn of(secret: &Secret) -> Key {
        Key(Sha256::new().chain_update(KEY_OF).chain_update(&secret.0).finalize().into())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// An end of a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// It has connected.
    Dialler,
    /// It has accepted the connection.
    Listener,
}

/// One end's part of a handshake.
#[derive(Debug)]
pub struct Handshake(State);

#[derive(Debug)]
enum State {
    /// The dialler waits for the listener's message, or the listener for the dialler's.
    Fresh(Box<HandshakeState>),
    /// The listener waits for the dialler's third frame.
    Unconfirmed(Channel),
    Over,
}

/// What the caller must do next.
#[derive(Debug)]
pub enum Step {
    /// Send these bytes, then wait.
    Send(Vec<u8>),
    /// The handshake is complete. Send these bytes first; the listener has none.
    Done(Vec<u8>, Channel),
}

/// Why there is no handshake. The connection must be closed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Failed {
    /// The other end has another secret, or none.
    OtherSecret,
    /// The reason, for people.
    Other(&'static str),
}

impl From<Failed> for BadFrame {
    fn from(failed: Failed) -> BadFrame {
        BadFrame::Malformed(match failed {
            Failed::OtherSecret => "it has another cluster_secret, or none".into(),
            Failed::Other(reason) => reason.into(),
        })
    }
}

const NOT_A_NODE: Failed = Failed::Other("it does not speak the handshake of nodes; is it a node of this version?");
const NO_KEYS: Failed = Failed::Other("no keys can be made: the system gives no random numbers");

impl Handshake {
    /// The dialler's part, and the first bytes to send.
    pub fn dial(key: &Key) -> Result<(Handshake, Vec<u8>), Failed> {
        let mut noise = noise(End::Dialler, key)?;
        let bytes = say(&mut noise)?;
        Ok((Handshake(State::Fresh(Box::new(noise))), bytes))
    }

    /// The listener's part, which waits.
    pub fn listen(key: &Key) -> Result<Handshake, Failed> {
        Ok(Handshake(State::Fresh(Box::new(noise(End::Listener, key)?))))
    }

    /// Whether this end is the listener, and the dialler's first message was right.
    pub fn has_answered(&self) -> bool {
        matches!(self.0, State::Unconfirmed(_))
    }

    /// Takes a frame of the other end. After an error the handshake is over.
    pub fn on_frame(&mut self, frame: &Frame) -> Result<Step, Failed> {
        match (std::mem::replace(&mut self.0, State::Over), frame.kind) {
            (State::Fresh(noise), Kind::Rejected) if noise.is_initiator() => Err(Failed::OtherSecret),
            (State::Fresh(noise), Kind::Handshake) => self.on_noise(*noise, &frame.body),
            (State::Unconfirmed(mut channel), Kind::Sealed) => match channel.is_confirmed_by(frame) {
                true => Ok(Step::Done(Vec::new(), channel)),
                false => Err(NOT_A_NODE),
            },
            _ => Err(NOT_A_NODE),
        }
    }

    fn on_noise(&mut self, mut noise: HandshakeState, body: &[u8]) -> Result<Step, Failed> {
        match noise.read_message(body, &mut [0; BODY_BYTES_MAX]) {
            Ok(0) => {}
            Err(snow::Error::Decrypt) => return Err(Failed::OtherSecret),
            _ => return Err(NOT_A_NODE),
        }
        let answer = if noise.is_initiator() { Vec::new() } else { say(&mut noise)? };
        let is_dialler = noise.is_initiator();
        let mut channel = Channel::new(noise.into_transport_mode().map_err(|_| NOT_A_NODE)?);
        if is_dialler {
            let confirm = channel.confirm().ok_or(NOT_A_NODE)?;
            return Ok(Step::Done(confirm, channel));
        }
        self.0 = State::Unconfirmed(channel);
        Ok(Step::Send(answer))
    }
}

/// The listener's word to a dialler with another secret or version, before it closes the connection.
pub fn rejection() -> Vec<u8> {
    frame(Kind::Rejected, &[])
}

fn noise(end: End, key: &Key) -> Result<HandshakeState, Failed> {
    // The pattern is a constant that the tests parse, so only random numbers can be missing.
    let pattern = PATTERN.parse().map_err(|_| NO_KEYS)?;
    let prologue = PROLOGUE.concat();
    let builder = Builder::new(pattern).psk(0, &key.0).and_then(|builder| builder.prologue(&prologue));
    let built = builder.and_then(|builder| match end {
        End::Dialler => builder.build_initiator(),
        End::Listener => builder.build_responder(),
    });
    built.map_err(|_| NO_KEYS)
}

/// The frame of this end's own message.
fn say(noise: &mut HandshakeState) -> Result<Vec<u8>, Failed> {
    let mut message = [0; BODY_BYTES_MAX];
    let count = noise.write_message(&[], &mut message).map_err(|_| NO_KEYS)?;
    Ok(frame(Kind::Handshake, message.get(..count).ok_or(NO_KEYS)?))
}

#[cfg(test)]
pub(super) use tests::joined;

#[cfg(test)]
mod tests {
    use super::super::frame::take;
    use super::*;

    fn key(secret: &str) -> Key {
        Key::of(&Secret(secret.into()))
    }

    fn read(bytes: &[u8]) -> Frame {
        take(&mut bytes.to_vec(), BODY_BYTES_MAX).unwrap().unwrap()
    }

    fn failed(step: Result<Step, Failed>) -> Failed {
        step.map(|step| panic!("{step:?}")).unwrap_err()
    }

    /// A dialler with its first frame, and a listener.
    fn pair(dialler: &str, listener: &str) -> (Handshake, Frame, Handshake) {
        let (dialler, first) = Handshake::dial(&key(dialler)).unwrap();
        (dialler, read(&first), Handshake::listen(&key(listener)).unwrap())
    }

    fn sent(step: Result<Step, Failed>) -> Frame {
        let Ok(Step::Send(bytes)) = step else { panic!("{step:?}") };
        read(&bytes)
    }

    fn done(step: Result<Step, Failed>) -> (Vec<u8>, Channel) {
        let Ok(Step::Done(bytes, channel)) = step else { panic!("{step:?}") };
        (bytes, channel)
    }

    /// The two ends of a channel: the dialler's and the listener's.
    pub(in crate::wire) fn joined() -> (Channel, Channel) {
        let (mut dialler, first, mut listener) = pair("secret", "secret");
        let answer = sent(listener.on_frame(&first));
        let (confirm, dialler) = done(dialler.on_frame(&answer));
        let (nothing, listener) = done(listener.on_frame(&read(&confirm)));
        assert!(nothing.is_empty());
        (dialler, listener)
    }

    #[test]
    fn another_secret_is_refused_by_either_end() {
        let (mut dialler, first, mut listener) = pair("another", "secret");
        assert_eq!(failed(listener.on_frame(&first)), Failed::OtherSecret);
        assert_eq!(failed(dialler.on_frame(&read(&rejection()))), Failed::OtherSecret);
        // An impostor answers with what it has, or with what it has heard.
        let (mut dialler, first, _) = pair("secret", "secret");
        assert_eq!(failed(dialler.on_frame(&first)), Failed::OtherSecret, "reflected");
        let (mut dialler, _, _) = pair("secret", "secret");
        let (_, other_first, mut impostor) = pair("another", "another");
        let answer = sent(impostor.on_frame(&other_first));
        assert_eq!(failed(dialler.on_frame(&answer)), Failed::OtherSecret);
    }

    #[test]
    fn a_recorded_dialler_stays_a_stranger() {
        let (mut dialler, first, mut listener) = pair("secret", "secret");
        let answer = sent(listener.on_frame(&first));
        let (confirm, _) = done(dialler.on_frame(&answer));
        let mut later = Handshake::listen(&key("secret")).unwrap();
        assert_ne!(sent(later.on_frame(&first)), answer, "fresh keys");
        assert_eq!(failed(later.on_frame(&read(&confirm))), NOT_A_NODE);
    }

    #[test]
    fn nothing_may_be_left_out_changed_or_repeated() {
        for kind in [Kind::Sealed, Kind::Rejected, Kind::Handshake] {
            for bytes in [0, 16, 47, 48, 64] {
                let (_, _, mut listener) = pair("secret", "secret");
                failed(listener.on_frame(&Frame { kind, body: vec![7; bytes] }));
            }
        }
        for at in 0..48 {
            let (mut dialler, mut first, mut listener) = pair("secret", "secret");
            let answer = sent(listener.on_frame(&first));
            failed(listener.on_frame(&first));
            first.body[at] ^= 1;
            failed(Handshake::listen(&key("secret")).unwrap().on_frame(&first));
            let mut changed = answer;
            changed.body[at] ^= 1;
            failed(dialler.on_frame(&changed));
            failed(dialler.on_frame(&changed));
        }
    }

    #[test]
    fn keys_and_secrets_are_not_shown() {
        assert_eq!(format!("{:?}", key("secret")), "***");
        assert_ne!(key("secret"), key("secret "));
    }
}
