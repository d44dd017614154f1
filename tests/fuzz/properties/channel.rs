//! A sealed channel between two nodes, made once: its handshake costs more than everything else here.
//!
//! Invariant: both ends have sealed and opened the same frames whenever nobody uses them, so the next frame opens.

use std::cell::RefCell;
use wing_crontab::model::config::Secret;
use wing_crontab::model::message::Message;
use wing_crontab::wire::channel::Channel;
use wing_crontab::wire::frame::{BODY_BYTES_MAX, Frame, take};
use wing_crontab::wire::handshake::{self, Handshake, Key, Step};

/// The two ends.
pub struct Ends {
    pub from: Channel,
    pub to: Channel,
}

thread_local! {
    static ENDS: RefCell<Ends> = RefCell::new(joined());
}

/// Lets `work` have the channel.
pub fn with(work: impl FnOnce(&mut Ends)) {
    ENDS.with_borrow_mut(work);
}

/// The key of both ends.
pub fn key() -> Key {
    Key::of(&Secret("a secret of the fuzzed cluster".into()))
}

/// A message that goes through the channel comes out as it was.
pub fn carries(message: &Message) {
    with(|ends| {
        let Some(sealed) = ends.from.seal(message) else { return };
        let frames = frames(&sealed);
        let (last, others) = frames.split_last().expect("a message has a frame");
        others.iter().for_each(|part| assert_eq!(ends.to.open(part), Ok(None)));
        assert_eq!(ends.to.open(last).as_ref(), Ok(&Some(message.clone())));
    });
}

/// The frames in these bytes, which are whole frames.
pub fn frames(bytes: &[u8]) -> Vec<Frame> {
    let mut bytes = bytes.to_vec();
    let frames = std::iter::from_fn(|| take(&mut bytes, BODY_BYTES_MAX).expect("our own frames can be read"));
    frames.collect()
}

fn joined() -> Ends {
    let one = |bytes: &[u8]| take(&mut bytes.to_vec(), handshake::BODY_BYTES_MAX).unwrap().expect("a whole frame");
    let (mut dialler, first) = Handshake::dial(&key()).unwrap();
    let mut listener = Handshake::listen(&key()).unwrap();
    let Ok(Step::Send(answer)) = listener.on_frame(&one(&first)) else { panic!("the listener answers") };
    let Ok(Step::Done(confirm, from)) = dialler.on_frame(&one(&answer)) else { panic!("the dialler is done") };
    let Ok(Step::Done(_, to)) = listener.on_frame(&one(&confirm)) else { panic!("the listener is done") };
    Ends { from, to }
}
