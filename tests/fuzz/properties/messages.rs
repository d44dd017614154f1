//! Messages between nodes, once their frames are opened: JSON to a `Message` and back, and through a sealed channel.

use super::channel;
use wing_crontab::model::message::Message;

/// A message that is taken is written, read and carried as the same one.
pub fn check(bytes: &[u8]) {
    let Ok(message) = serde_json::from_slice::<Message>(bytes) else { return };
    let text = serde_json::to_vec(&message).expect("a message that was read can be written");
    let again: Message = serde_json::from_slice(&text).expect("a message that was written can be read");
    assert_eq!(again, message);
    assert_eq!(serde_json::to_vec(&again).unwrap(), text);
    channel::carries(&message);
}
