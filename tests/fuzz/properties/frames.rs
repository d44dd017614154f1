//! Frames between nodes: their bounds, handshakes with somebody who has no secret, and a channel on which frames are
//! forged.

use super::{channel, pieces};
use wing_crontab::model::message::Message;
use wing_crontab::wire::frame::{BODY_BYTES_MAX, BadFrame, Frame, Kind, frame, take};
use wing_crontab::wire::handshake::{self, Handshake, Step};

pub fn check(bytes: &[u8]) {
    for body_bytes_max in [handshake::BODY_BYTES_MAX, BODY_BYTES_MAX] {
        let mut ways = pieces::ways(bytes).into_iter().map(|pieces| read(&pieces, body_bytes_max));
        let (frames, error, rest) = ways.next().expect("the bytes as a whole");
        assert!(
            ways.all(|other| (&other.0, &other.1) == (&frames, &error)),
            "the frames depend on how bytes were split"
        );
        let mut written: Vec<u8> = frames.iter().flat_map(|one| frame(one.kind, &one.body)).collect();
        written.extend_from_slice(&rest);
        assert_eq!(written, bytes, "a frame took other bytes than its own");
        nothing_opens_that_was_not_sealed(&frames);
        if body_bytes_max == handshake::BODY_BYTES_MAX {
            nobody_is_a_node_without_the_secret(&frames);
        }
    }
    what_was_sealed_opens_unchanged_only(bytes);
}

/// The frames, the error behind them, and what is left.
fn read(pieces: &[&[u8]], body_bytes_max: usize) -> (Vec<Frame>, Option<BadFrame>, Vec<u8>) {
    let (mut buffer, mut frames, mut error) = (Vec::new(), Vec::new(), None);
    for piece in pieces {
        buffer.extend_from_slice(piece);
        while error.is_none() {
            match take(&mut buffer, body_bytes_max) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(bad) => error = Some(bad),
            }
        }
    }
    assert!(frames.iter().all(|frame| frame.body.len() <= body_bytes_max));
    (frames, error, buffer)
}

fn nobody_is_a_node_without_the_secret(frames: &[Frame]) {
    // A key exchange is dear, and only these frames come to one.
    if !frames.iter().any(|frame| frame.kind != Kind::Sealed) {
        return;
    }
    for mut handshake in [Handshake::listen(&channel::key()).unwrap(), Handshake::dial(&channel::key()).unwrap().0] {
        let was_done =
            frames.iter().any(|frame| matches!(handshake.on_frame(frame), Ok(Step::Done(..) | Step::Send(_))));
        assert!(!was_done && !handshake.has_answered());
    }
}

fn nothing_opens_that_was_not_sealed(frames: &[Frame]) {
    channel::with(|ends| frames.iter().for_each(|frame| assert!(ends.to.open(frame).is_err(), "{frame:?} opened")));
}

/// Seals a message, whose text and whose changes on the way are in the bytes.
fn what_was_sealed_opens_unchanged_only(bytes: &[u8]) {
    let [at, change, repeat, text @ ..] = bytes else { return };
    // Two frames long only for few bytes: it takes a hundred times as long.
    let chars = if *repeat == u8::MAX && text.len() < 4 { BODY_BYTES_MAX } else { (*repeat).into() };
    let reason: String = String::from_utf8_lossy(text).chars().cycle().take(chars).collect();
    let message = Message::Rejected { reason };
    channel::with(|ends| {
        let sealed = channel::frames(&ends.from.seal(&message).expect("it is not too long"));
        let mut opened = None;
        for frame in &sealed {
            let mut changed = frame.clone();
            let at = usize::from(*at) % changed.body.len();
            changed.body[at] ^= (*change).max(1);
            assert!(ends.to.open(&changed).is_err(), "a changed frame opened");
            opened = ends.to.open(frame).expect("a frame as it was sealed opens");
        }
        assert_eq!(opened, Some(message));
    });
}
