//! The marks file of a former daemon: no mark is believed that this program cannot have written, and what is believed
//! says what the words say.
//!
//! The bytes are a word of flags and the words of slots, each given in one byte or in nine (see `words`); the header and,
//! where the flags say so, the checksums are put in, which no fuzzer guesses.

use wing_crontab::worker::process::{Mark, Snapshot};

const SLOT_WORDS: usize = 16;
const HEADER_WORDS: usize = 16;
const BOOT: [u64; 2] = [7, 8];
/// The clock, in ticks since boot.
const NOW: u64 = 1_000_000;
/// The lease in the file.
const LEASE: u64 = 77;

pub fn check(bytes: &[u8]) {
    // As it is: most of it is no marks file at all.
    believes_nothing_wild(bytes);
    let Some((flags, rest)) = bytes.split_first() else { return };
    let (has_checksums, is_this_boot, is_sealed) = (flags & 1 == 0, flags & 2 == 0, flags & 4 == 0);
    let mut slots: Vec<[u64; SLOT_WORDS]> = words(rest).as_chunks::<SLOT_WORDS>().0.to_vec();
    if has_checksums && is_sealed {
        slots.iter_mut().for_each(seal);
    }
    let boot = if is_this_boot { BOOT } else { [0, 0] };
    let file = file(if has_checksums { 2 } else { 1 }, boot, &slots);
    let marks = believes_nothing_wild(&file).expect("its header is right");
    let mut words = slots.iter();
    for mark in &marks {
        // Every mark stands on the words of a slot of its own, in their order.
        assert!(words.any(|words| is_of(mark, words, is_this_boot)), "{mark:?} is in no slot of {slots:?}");
    }
    for end in (0..file.len()).step_by(61) {
        assert!(Snapshot::of(&file[..end], BOOT, NOW).is_err(), "a file of {} bytes cut to {end} is taken", file.len());
    }
}

/// The marks in the file, none of which can do harm.
fn believes_nothing_wild(file: &[u8]) -> Option<Vec<Mark>> {
    let snapshot = Snapshot::of(file, BOOT, NOW).ok()?;
    assert!([0, LEASE].contains(&snapshot.lease.0) || file.len() < HEADER_WORDS * 8);
    for mark in &snapshot.marks {
        let (run, is_number) = (mark.attempt.run, |number: i64| (0..=253_402_300_799).contains(&number));
        assert!(0 < run.cron_id.0 && run.cron_id.0 <= i32::MAX as u32 && is_number(run.scheduled_at.0), "{mark:?}");
        if mark.may_run() {
            assert!((50_001..50_001 + 131_072).contains(&mark.tag), "{mark:?}");
            assert!(mark.pid_start <= NOW + 1 && mark.pid <= 1 << 22, "{mark:?}");
            assert!(mark.is_starting() || 0 < mark.pid, "{mark:?}");
        }
    }
    Some(snapshot.marks)
}

fn is_of(mark: &Mark, words: &[u64; SLOT_WORDS], is_this_boot: bool) -> bool {
    let run = mark.attempt.run;
    let is_run = [run.cron_id.0.into(), run.scheduled_at.0 as u64] == words[1..3]
        && run.manual.map_or(0, |manual| manual.epoch + 1) == words[3]
        && run.manual.is_none_or(|manual| manual.count == words[4])
        && [mark.attempt.number.into(), mark.version.0, mark.is_mutex.into()] == words[5..8];
    let state = words[0] & 0xff;
    let is_process = match state {
        2 => mark.tag == words[8] && mark.pid == 0 && mark.is_starting(),
        3 => [mark.tag, mark.pid.into(), mark.pid_start] == words[8..11],
        _ => false,
    };
    is_run && mark.may_run() == (is_this_boot && [2, 3].contains(&state)) && (!mark.may_run() || is_process)
}

/// A word is one byte below 0xf0; 0xf0 to 0xff stand for numbers at the edges of what is allowed, or for the eight bytes
/// that follow.
fn words(bytes: &[u8]) -> Vec<u64> {
    let (mut bytes, mut words) = (bytes.iter(), Vec::new());
    while let Some(byte) = bytes.next() {
        words.push(match byte {
            0xf0 => 50_000,
            0xf1 => 50_001,
            0xf2 => 50_001 + 131_071,
            0xf3 => 50_001 + 131_072,
            0xf4 => i32::MAX as u64,
            0xf5 => i32::MAX as u64 + 1,
            0xf6 => 1 << 22,
            0xf7 => (1 << 22) + 1,
            0xf8 => NOW,
            0xf9 => NOW + 2,
            0xfa => 253_402_300_799,
            0xfb => u64::MAX,
            0xfc => u32::MAX.into(),
            0xfd => u64::from(u32::MAX) + 1,
            0xfe => 1_700_000_000,
            0xff => u64::from_le_bytes(std::array::from_fn(|_| bytes.next().copied().unwrap_or(0))),
            small => (*small).into(),
        });
    }
    words
}

fn seal(slot: &mut [u64; SLOT_WORDS]) {
    let state = slot[0] & 0xff;
    let further: &[usize] = match state {
        2 => &[8, 12],
        3 => &[8, 9, 10],
        4 => &[11],
        _ => &[],
    };
    let words = std::iter::once(state).chain(slot[1..=7].iter().copied()).chain(further.iter().map(|at| slot[*at]));
    let bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
    slot[0] = if state == 0 { 0 } else { u64::from(crc32fast::hash(&bytes)) << 8 | state };
}

fn file(layout: u64, boot: [u64; 2], slots: &[[u64; SLOT_WORDS]]) -> Vec<u8> {
    let mut header = [0; HEADER_WORDS];
    header[..6].copy_from_slice(&[
        u64::from_le_bytes(*b"wingmark"),
        layout,
        slots.len() as u64,
        boot[0],
        boot[1],
        LEASE,
    ]);
    header.iter().chain(slots.iter().flatten()).flat_map(|word| word.to_le_bytes()).collect()
}
