//! A channel: messages sealed into frames, and taken out of them again, once the handshake is complete.
//!
//! Each frame's body is one message of the Noise protocol: encrypted, authenticated, and numbered by both ends, so a
//! frame that was changed, left out, repeated or moved does not open. A message that is too long for one frame is cut
//! into parts. Whether a part is the last one stands inside, where nobody can change it.
//!
//! Not the proof of the secret: that is `handshake`, which makes the channel's keys.
//!
//! Invariants: nothing is given out that the other end has not sealed, in its order; a message in parts takes
//! `MESSAGE_BYTES_MAX` of memory at most.

use super::frame::{BODY_BYTES_MAX, BadFrame, Frame, Kind, frame};
use crate::model::message::Message;
use snow::TransportState;

/// The largest message between nodes.
pub const MESSAGE_BYTES_MAX: usize = 8 << 20;
/// The bytes by which a cipher text is longer than its plain text.
const TAG_BYTES: usize = 16;
/// The most bytes of a message in one frame, beside the byte that tells whether more follow.
const PART_BYTES_MAX: usize = BODY_BYTES_MAX - TAG_BYTES - 1;
/// The first byte of a part behind which others come.
const MORE: u8 = 0;
/// The first byte of a message's last part.
const LAST: u8 = 1;

/// One end of a channel.
#[derive(Debug)]
pub struct Channel {
    noise: Box<TransportState>,
    /// The parts of a message that is not whole yet.
    parts: Vec<u8>,
}

impl Channel {
    /// The channel of a handshake that is complete.
    pub(super) fn new(noise: TransportState) -> Channel {
        Channel { noise: Box::new(noise), parts: Vec::new() }
    }

    /// The frames of a message, to be sent in the order in which they were sealed; none where it would be larger than
    /// `MESSAGE_BYTES_MAX`.
    pub fn seal(&mut self, message: &Message) -> Option<Vec<u8>> {
        let body = serde_json::to_vec(message).ok()?;
        if MESSAGE_BYTES_MAX < body.len() {
            return None;
        }
        let mut parts = body.chunks(PART_BYTES_MAX).peekable();
        let mut frames = Vec::new();
        while let Some(part) = parts.next() {
            let first = if parts.peek().is_some() { MORE } else { LAST };
            frames.extend(self.seal_bytes(&[&[first], part].concat())?);
        }
        Some(frames)
    }

    /// Takes a frame; answers the message that it completes.
    pub fn open(&mut self, frame: &Frame) -> Result<Option<Message>, BadFrame> {
        let plain = self.open_bytes(frame)?;
        let Some((first, part)) = plain.split_first() else { return Err(malformed("a sealed frame without a part")) };
        if MESSAGE_BYTES_MAX < self.parts.len() + part.len() {
            return Err(BadFrame::Malformed(format!("a message of more than {MESSAGE_BYTES_MAX} bytes")));
        }
        self.parts.extend_from_slice(part);
        match *first {
            MORE => Ok(None),
            LAST => read(&std::mem::take(&mut self.parts)).map(Some),
            _ => Err(malformed("a sealed part of an unknown kind")),
        }
    }

    /// A frame without a message: by it the listener knows that the dialler has the keys, and is no recording of one.
    pub(super) fn confirm(&mut self) -> Option<Vec<u8>> {
        self.seal_bytes(&[])
    }

    /// Whether the frame is the other end's `confirm`.
    pub(super) fn is_confirmed_by(&mut self, frame: &Frame) -> bool {
        self.open_bytes(frame).is_ok_and(|plain| plain.is_empty())
    }

    fn seal_bytes(&mut self, plain: &[u8]) -> Option<Vec<u8>> {
        let mut sealed = vec![0; plain.len() + TAG_BYTES];
        let count = self.noise.write_message(plain, &mut sealed).ok()?;
        Some(frame(Kind::Sealed, sealed.get(..count)?))
    }

    fn open_bytes(&mut self, frame: &Frame) -> Result<Vec<u8>, BadFrame> {
        if frame.kind != Kind::Sealed {
            return Err(malformed("a frame that is not sealed, on an open link"));
        }
        let mut plain = vec![0; frame.body.len()];
        let count = self.noise.read_message(&frame.body, &mut plain);
        let count = count.map_err(|_| malformed("a frame was changed, left out, repeated or moved on its way"))?;
        plain.truncate(count);
        Ok(plain)
    }
}

fn malformed(reason: &str) -> BadFrame {
    BadFrame::Malformed(reason.into())
}

fn read(body: &[u8]) -> Result<Message, BadFrame> {
    serde_json::from_slice(body).map_err(|error| BadFrame::Malformed(format!("a message cannot be read: {error}")))
}

#[cfg(test)]
mod tests {
    use super::super::frame::take;
    use super::super::handshake::joined;
    use super::*;

    fn message(bytes: usize) -> Message {
        Message::Rejected { reason: "x".repeat(bytes) }
    }

    fn frames(bytes: &[u8]) -> Vec<Frame> {
        let mut bytes = bytes.to_vec();
        std::iter::from_fn(|| take(&mut bytes, BODY_BYTES_MAX).unwrap()).collect()
    }

    /// What the other end makes of the frames.
    fn opened(channel: &mut Channel, frames: &[Frame]) -> Result<Vec<Message>, BadFrame> {
        let mut messages = Vec::new();
        for frame in frames {
            messages.extend(channel.open(frame)?);
        }
        Ok(messages)
    }

    #[track_caller]
    fn is_refused(channel: &mut Channel, frames: &[Frame], what: &str) {
        let reason = opened(channel, frames).unwrap_err().to_string();
        assert!(reason.contains("was changed, left out, repeated or moved"), "{what}: {reason}");
    }

    #[test]
    fn messages_of_every_length_go_both_ways() {
        let (mut dialler, mut listener) = joined();
        let around = PART_BYTES_MAX - 26;
        for bytes in [0, 1, 1_000, around, around + 1, around + 2, 3 * PART_BYTES_MAX, 5 << 20] {
            for is_back in [false, true] {
                let (from, to) = if is_back { (&mut listener, &mut dialler) } else { (&mut dialler, &mut listener) };
                let sealed = frames(&from.seal(&message(bytes)).unwrap());
                assert_eq!(opened(to, &sealed), Ok(vec![message(bytes)]), "{bytes} bytes in {} frames", sealed.len());
            }
        }
    }

    #[test]
    fn a_message_beyond_the_limit_is_neither_sealed_nor_gathered() {
        let (mut dialler, mut listener) = joined();
        assert_eq!(dialler.seal(&message(MESSAGE_BYTES_MAX)), None);
        let part = [&[MORE][..], &[b'x'; PART_BYTES_MAX]].concat();
        let fitting = MESSAGE_BYTES_MAX / PART_BYTES_MAX;
        for _ in 0..fitting {
            let sealed = frames(&dialler.seal_bytes(&part).unwrap());
            assert_eq!(opened(&mut listener, &sealed), Ok(vec![]));
        }
        let sealed = frames(&dialler.seal_bytes(&part).unwrap());
        assert!(opened(&mut listener, &sealed).unwrap_err().to_string().contains("more than"));
    }

    #[test]
    fn a_frame_that_was_changed_or_cut_does_not_open() {
        let sealed = |dialler: &mut Channel| frames(&dialler.seal(&message(9)).unwrap()).remove(0);
        let length = sealed(&mut joined().0).body.len();
        for at in 0..length {
            let (mut dialler, mut listener) = joined();
            let mut frame = sealed(&mut dialler);
            frame.body[at] ^= 1;
            is_refused(&mut listener, &[frame], &format!("byte {at}"));
        }
        for kept in 0..length {
            let (mut dialler, mut listener) = joined();
            let mut frame = sealed(&mut dialler);
            frame.body.truncate(kept);
            is_refused(&mut listener, &[frame], &format!("{kept} bytes"));
        }
    }

    #[test]
    fn a_frame_that_was_repeated_moved_left_out_or_turned_back_does_not_open() {
        let three =
            |dialler: &mut Channel| [1, 2, 3].map(|bytes| frames(&dialler.seal(&message(bytes)).unwrap()).remove(0));
        let (mut dialler, mut listener) = joined();
        let [first, second, third] = three(&mut dialler);
        assert_eq!(opened(&mut listener, std::slice::from_ref(&first)), Ok(vec![message(1)]));
        is_refused(&mut listener, std::slice::from_ref(&first), "repeated");
        is_refused(&mut listener, std::slice::from_ref(&third), "the second was left out");
        is_refused(&mut dialler, &[second], "turned back");
        let (_, mut other) = joined();
        is_refused(&mut other, &[first], "over another link");
        is_refused(&mut other, &[third], "over another link");
    }

    #[test]
    fn what_is_sealed_and_no_message_is_an_error() {
        let (mut dialler, mut listener) = joined();
        for plain in [&b""[..], &[LAST], &[LAST, b'{'], &[9, b'{', b'}']] {
            let sealed = frames(&dialler.seal_bytes(plain).unwrap());
            assert!(opened(&mut listener, &sealed).is_err(), "{plain:?}");
        }
        let plain = Frame { kind: Kind::Handshake, body: vec![0; 48] };
        assert!(listener.open(&plain).unwrap_err().to_string().contains("not sealed"));
    }
}
