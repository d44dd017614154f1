//! Frames between nodes: `u32 length, u8 version, u8 kind, body`. The length is in network order, and counts the bytes
//! that follow it.
//!
//! Not the proof that the other end is a node: that is `handshake`. Not the messages: those are in the sealed frames of
//! a `channel`.
//!
//! Invariants: the network may split the bytes anywhere, the frames are the same; a frame beyond the limit is refused
//! as soon as its length is there.

use std::fmt;

/// The largest body of a frame: a message of the Noise protocol.
pub const BODY_BYTES_MAX: usize = 65_535;
/// The protocol's version: nodes with another one are refused.
pub const VERSION: u8 = 5;
/// The bytes of a frame before its body. They stand so in every version, so that each end can name the other's.
const HEAD_BYTES: usize = 6;

/// What a frame carries.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// A message of the Noise handshake.
    Handshake,
    /// The listener's last word to a dialler that has another secret or version.
    Rejected,
    /// Encrypted and authenticated.
    Sealed,
}

/// A frame as it came: its kind and its bytes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Frame {
    pub kind: Kind,
    pub body: Vec<u8>,
}

/// The bytes are not a frame, or the frame is not one that may come now. The connection must be closed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum BadFrame {
    /// Of another version of the protocol, or of no node at all.
    OtherVersion(u8),
    /// The reason, for people.
    Malformed(String),
}

impl fmt::Display for BadFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadFrame::OtherVersion(theirs) => write!(
                f,
                "it speaks version {theirs} of the protocol (or is no node), this node version {VERSION}; update the older one"
            ),
            BadFrame::Malformed(reason) => f.write_str(reason),
        }
    }
}

/// The bytes of a frame.
pub fn frame(kind: Kind, body: &[u8]) -> Vec<u8> {
    let length = (body.len() + HEAD_BYTES - 4) as u32;
    let mut bytes = Vec::with_capacity(HEAD_BYTES + body.len());
    bytes.extend(length.to_be_bytes());
    bytes.extend([VERSION, kind as u8]);
    bytes.extend(body);
    bytes
}

/// Takes the first frame out of the buffer; none where it is not complete yet. A frame whose body is longer than
/// `body_bytes_max` is an error.
pub fn take(buffer: &mut Vec<u8>, body_bytes_max: usize) -> Result<Option<Frame>, BadFrame> {
    let Some(head) = buffer.first_chunk::<HEAD_BYTES>() else { return Ok(None) };
    let [a, b, c, d, version, kind] = *head;
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if version != VERSION {
        return Err(BadFrame::OtherVersion(version));
    }
    let kind = match kind {
        0 => Kind::Handshake,
        1 => Kind::Rejected,
        2 => Kind::Sealed,
        other => return Err(BadFrame::Malformed(format!("a frame of unknown kind {other}"))),
    };
    let bytes_max = body_bytes_max + HEAD_BYTES - 4;
    if !(HEAD_BYTES - 4..=bytes_max).contains(&length) {
        return Err(BadFrame::Malformed(format!("a frame of {length} bytes, at most {bytes_max} are taken")));
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
        let bytes =
            [frame(Kind::Handshake, b"abc"), frame(Kind::Sealed, b""), frame(Kind::Rejected, &[7; 300])].concat();
        for step in [1, 2, 5, 100, bytes.len()] {
            let (mut buffer, mut found) = (Vec::new(), Vec::new());
            for piece in bytes.chunks(step) {
                buffer.extend_from_slice(piece);
                while let Some(frame) = take(&mut buffer, 1_000).unwrap() {
                    found.push((frame.kind, frame.body.len()));
                }
            }
            assert_eq!(found, [(Kind::Handshake, 3), (Kind::Sealed, 0), (Kind::Rejected, 300)]);
            assert!(buffer.is_empty());
        }
    }

    #[track_caller]
    fn refuse(bytes: &[u8], words: &str) {
        let reason = take(&mut bytes.to_vec(), 98).unwrap_err().to_string();
        assert!(reason.contains(words), "{reason}");
    }

    #[test]
    fn a_wrong_frame_is_refused_by_its_head() {
        refuse(b"GET / HTTP/1.1\r\n", "speaks version");
        refuse(&[0, 0, 0, 101, VERSION, 0], "101 bytes");
        refuse(&[255, 255, 255, 255, VERSION, 0], "4294967295 bytes");
        refuse(&[0, 0, 0, 1, VERSION, 0], "1 bytes");
        refuse(&[0, 0, 0, 9, VERSION, 9], "kind 9");
        assert_eq!(take(&mut vec![0, 0, 0, 100, VERSION, 0], 98), Ok(None), "at the limit");
    }
}
