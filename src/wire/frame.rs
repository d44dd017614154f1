//! Frames between nodes: `u32 length, u8 version, u8 kind, body`. The length is in network order, and counts the bytes
//! that follow it.
//!
//! Not the proof that the other end is a node: that is `handshake`.
//!
//! Invariants: the network may split the bytes anywhere, the frames are the same; a frame beyond the limit is refused
//! as soon as its length is there.

use crate::model::message::Message;

/// The largest frame between nodes that have proved themselves.
pub const FRAME_BYTES_MAX: usize = 8 << 20;
/// The protocol's version: nodes with another one are refused.
pub const VERSION: u8 = 4;
/// The bytes of a frame before its body.
const HEAD_BYTES: usize = 6;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Of the handshake.
    Challenge,
    /// Of the handshake.
    Proof,
    /// A `Message` as JSON.
    Message,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Frame {
    pub kind: Kind,
    pub body: Vec<u8>,
}

/// The bytes are not a frame, or its body is not a message: the reason. The connection must be closed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BadFrame(pub String);

/// The bytes of a frame.
pub fn frame(kind: Kind, body: &[u8]) -> Vec<u8> {
    let length = (body.len() + HEAD_BYTES - 4) as u32;
    let mut bytes = Vec::with_capacity(HEAD_BYTES + body.len());
    bytes.extend(length.to_be_bytes());
    bytes.extend([VERSION, kind as u8]);
    bytes.extend(body);
    bytes
}

/// The bytes of a message in a frame; none where it would be larger than `FRAME_BYTES_MAX`.
pub fn message_frame(message: &Message) -> Option<Vec<u8>> {
    let body = serde_json::to_vec(message).ok()?;
    (body.len() + HEAD_BYTES - 4 <= FRAME_BYTES_MAX).then(|| frame(Kind::Message, &body))
}

/// The message in the body of a frame.
pub fn message(body: &[u8]) -> Result<Message, BadFrame> {
    serde_json::from_slice(body).map_err(|error| BadFrame(format!("a message cannot be read: {error}")))
}

/// Takes the first frame out of the buffer; none where it is not complete yet. A frame whose length is more than
/// `bytes_max` is an error.
pub fn take(buffer: &mut Vec<u8>, bytes_max: usize) -> Result<Option<Frame>, BadFrame> {
    let Some(head) = buffer.first_chunk::<HEAD_BYTES>() else { return Ok(None) };
    let [a, b, c, d, version, kind] = *head;
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if version != VERSION {
        return Err(BadFrame(format!(
            "it speaks version {version} of the protocol (or is no node), this node version {VERSION}; update the older one"
        )));
    }
    let kind = match kind {
        0 => Kind::Challenge,
        1 => Kind::Proof,
        2 => Kind::Message,
        other => return Err(BadFrame(format!("a frame of unknown kind {other}"))),
    };
    if !(HEAD_BYTES - 4..=bytes_max).contains(&length) {
        return Err(BadFrame(format!("a frame of {length} bytes, at most {bytes_max} are taken")));
    }
    if buffer.len() < 4 + length {
        return Ok(None);
    }
    let body = buffer[HEAD_BYTES..4 + length].to_vec();
    buffer.drain(..4 + length);
    Ok(Some(Frame { kind, body }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frames_are_the_same_wherever_the_bytes_were_split() {
        let bytes = [frame(Kind::Challenge, b"abc"), frame(Kind::Message, b""), frame(Kind::Proof, &[7; 300])].concat();
        for step in [1, 2, 5, 100, bytes.len()] {
            let (mut buffer, mut found) = (Vec::new(), Vec::new());
            for piece in bytes.chunks(step) {
                buffer.extend_from_slice(piece);
                while let Some(frame) = take(&mut buffer, 1_000).unwrap() {
                    found.push((frame.kind, frame.body.len()));
                }
            }
            assert_eq!(found, [(Kind::Challenge, 3), (Kind::Message, 0), (Kind::Proof, 300)]);
            assert!(buffer.is_empty());
        }
    }

    #[track_caller]
    fn refuse(bytes: &[u8], words: &str) {
        let BadFrame(reason) = take(&mut bytes.to_vec(), 100).unwrap_err();
        assert!(reason.contains(words), "{reason}");
    }

    #[test]
    fn a_wrong_frame_is_refused_by_its_head() {
        refuse(b"GET / HTTP/1.1\r\n", "speaks version");
        refuse(&[0, 0, 0, 101, VERSION, 0], "101 bytes");
        refuse(&[255, 255, 255, 255, VERSION, 0], "4294967295 bytes");
        refuse(&[0, 0, 0, 1, VERSION, 0], "1 bytes");
        refuse(&[0, 0, 0, 9, VERSION, 9], "kind 9");
        assert_eq!(take(&mut vec![0, 0, 0, 100, VERSION, 0], 100), Ok(None), "at the limit");
        assert!(message(b"rubbish").is_err());
    }
}
