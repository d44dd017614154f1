//! The handshake: two nodes prove to each other that they have the same `cluster_secret`, before they read any message.
//!
//! ```text
//! both       Challenge(nonce)
//! dialler    Proof = HMAC-SHA256(secret, "dialler" own nonce, peer's nonce)
//! listener   Proof = HMAC-SHA256(secret, "listener" own nonce, peer's nonce), only where the dialler's was right
//! ```
//!
//! Nonces are new for each connection, so an old proof is of no use. The two ends sign different texts, so a proof that
//! is sent back to its sender is of no use either.
//!
//! Not encryption: messages go over the network as they are.
//!
//! Invariant: a stranger who connects gets nothing that depends on the secret.

use super::frame::{Frame, Kind, frame};
use crate::model::config::Secret;
use hmac::{Hmac, Mac};
use sha2::Sha256;

pub const NONCE_BYTES: usize = 32;
/// The largest frame that is taken before the other end has proved itself.
pub const FRAME_BYTES_MAX: usize = 256;

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
pub struct Handshake {
    end: End,
    secret: Secret,
    nonce: [u8; NONCE_BYTES],
    peer_nonce: Option<Vec<u8>>,
}

/// What the caller must do next.
#[derive(Debug, Eq, PartialEq)]
pub enum Step {
    /// Wait for the next frame.
    Wait,
    /// Send these bytes, then wait.
    Send(Vec<u8>),
    /// The handshake is complete. Send these bytes first, where there are any.
    Done(Option<Vec<u8>>),
}

impl Handshake {
    pub fn new(end: End, secret: Secret, nonce: [u8; NONCE_BYTES]) -> Handshake {
        Handshake { end, secret, nonce, peer_nonce: None }
    }

    /// The first bytes to send.
    pub fn challenge(&self) -> Vec<u8> {
        frame(Kind::Challenge, &self.nonce)
    }

    /// Whether this end is the dialler and has sent its proof.
    pub fn has_proved(&self) -> bool {
        self.end == End::Dialler && self.peer_nonce.is_some()
    }

    /// Takes a frame of the other end. After an error, which is for people, the connection must be closed.
    pub fn on_frame(&mut self, frame: &Frame) -> Result<Step, &'static str> {
        match (frame.kind, &self.peer_nonce) {
            (Kind::Challenge, None) if frame.body.len() == NONCE_BYTES && frame.body != self.nonce => {
                self.peer_nonce = Some(frame.body.clone());
                Ok(match self.end {
                    End::Dialler => Step::Send(self.proof()),
                    End::Listener => Step::Wait,
                })
            }
            (Kind::Proof, Some(peer_nonce)) => {
                let other = if self.end == End::Dialler { End::Listener } else { End::Dialler };
                let is_right = self.mac(other, peer_nonce, &self.nonce).verify_slice(&frame.body).is_ok();
                match (is_right, self.end) {
                    (false, _) => Err("it has another cluster_secret; give all nodes of a cluster the same one"),
                    (true, End::Dialler) => Ok(Step::Done(None)),
                    (true, End::Listener) => Ok(Step::Done(Some(self.proof()))),
                }
            }
            _ => Err("it does not speak the handshake of nodes; is it a node of this version?"),
        }
    }

    fn proof(&self) -> Vec<u8> {
        let mac = self.mac(self.end, &self.nonce, self.peer_nonce.as_deref().unwrap_or_default());
        frame(Kind::Proof, &mac.finalize().into_bytes())
    }

    fn mac(&self, end: End, own_nonce: &[u8], peer_nonce: &[u8]) -> Hmac<Sha256> {
        // HMAC takes keys of any length, so this cannot fail.
        let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(self.secret.0.as_bytes())
            .unwrap_or_else(|_| <Hmac<Sha256> as Mac>::new(&Default::default()));
        mac.update(match end {
            End::Dialler => b"wing-crontab dialler",
            End::Listener => b"wing-crontab listener",
        });
        mac.update(own_nonce);
        mac.update(peer_nonce);
        mac
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::take;
    use super::*;

    fn pair(dialler: &str, listener: &str) -> (Handshake, Handshake) {
        let end = |end, secret: &str, nonce| Handshake::new(end, Secret(secret.into()), [nonce; NONCE_BYTES]);
        (end(End::Dialler, dialler, 1), end(End::Listener, listener, 2))
    }

    fn read(bytes: &[u8]) -> Frame {
        take(&mut bytes.to_vec(), FRAME_BYTES_MAX).unwrap().unwrap()
    }

    /// The listener's step after the dialler's proof.
    fn proved(dialler: &mut Handshake, listener: &mut Handshake) -> Result<Step, &'static str> {
        assert_eq!(listener.on_frame(&read(&dialler.challenge())), Ok(Step::Wait), "a stranger learns nothing");
        let Ok(Step::Send(proof)) = dialler.on_frame(&read(&listener.challenge())) else { panic!() };
        listener.on_frame(&read(&proof))
    }

    #[test]
    fn both_ends_are_sure_of_each_other_when_the_secret_is_the_same() {
        let (mut dialler, mut listener) = pair("secret", "secret");
        let Ok(Step::Done(Some(proof))) = proved(&mut dialler, &mut listener) else { panic!() };
        assert_eq!(dialler.on_frame(&read(&proof)), Ok(Step::Done(None)));
    }

    #[test]
    fn another_secret_is_refused_by_either_end() {
        let (mut dialler, mut listener) = pair("another", "secret");
        assert!(proved(&mut dialler, &mut listener).is_err());
        let (mut dialler, _) = pair("secret", "secret");
        let (_, mut impostor) = pair("secret", "another");
        let Ok(Step::Send(_)) = dialler.on_frame(&read(&impostor.challenge())) else { panic!() };
        impostor.peer_nonce = Some(dialler.nonce.to_vec());
        assert!(dialler.on_frame(&read(&impostor.proof())).is_err());
    }

    #[test]
    fn nothing_can_be_replayed_reflected_or_left_out() {
        let (mut dialler, mut listener) = pair("secret", "secret");
        let Ok(Step::Done(_)) = proved(&mut dialler, &mut listener) else { panic!() };
        let recorded = dialler.proof();
        let mut later = Handshake::new(End::Listener, Secret("secret".into()), [3; NONCE_BYTES]);
        assert_eq!(later.on_frame(&read(&dialler.challenge())), Ok(Step::Wait));
        assert!(later.on_frame(&read(&recorded)).is_err(), "replayed");
        let (mut dialler, _) = pair("secret", "secret");
        assert!(dialler.on_frame(&read(&dialler.challenge())).is_err(), "reflected");
        let (_, mut listener) = pair("secret", "secret");
        assert!(listener.on_frame(&Frame { kind: Kind::Message, body: b"{}".to_vec() }).is_err(), "left out");
        assert!(listener.on_frame(&Frame { kind: Kind::Proof, body: vec![0; 32] }).is_err(), "left out");
    }
}
