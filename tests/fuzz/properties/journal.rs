//! What is read back from the store: journal bodies, environments and outputs of log rows.

use wing_crontab::model::RunState;
use wing_crontab::model::job::parse_env;
use wing_crontab::model::journal::Body;
use wing_crontab::model::output::OutputPart;

pub fn check(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(body) = serde_json::from_str::<Body>(&text) {
        let written = serde_json::to_string(&body).expect("a body that was read can be written");
        assert_eq!(serde_json::from_str::<Body>(&written).expect("a body that was written can be read"), body);
    }
    if let Ok(variables) = parse_env(&text) {
        let written = serde_json::to_string(&variables).unwrap();
        assert_eq!(parse_env(&written).expect("an environment that was written can be read"), variables);
    }
    is_read_whole(&text);
}

/// The parts of an output, one after the other, are the text of its row.
fn is_read_whole(text: &str) {
    let (mut read, mut from) = (Vec::new(), 0);
    loop {
        let part = OutputPart::of_row(RunState::Ok, text, from);
        assert_eq!(part.from, from);
        read.extend(part.bytes);
        if part.is_over {
            break;
        }
        assert!(from < part.next, "a part moves on");
        from = part.next;
    }
    assert_eq!(String::from_utf8_lossy(&read), text);
    // Any position may be asked for.
    for from in [1, text.len() as u64 / 2, u64::MAX] {
        assert!(from <= OutputPart::of_row(RunState::Ok, text, from).next);
    }
}
