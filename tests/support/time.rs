//! The time as the tests see it: by the host's clocks, not by the program's code.

use super::PATIENCE;
use std::time::{Duration, Instant, SystemTime};

/// The unix second that it is.
pub fn second() -> i64 {
    (now_ns() / 1_000_000_000) as i64
}

/// Nanoseconds since 1970.
pub fn now_ns() -> i128 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("it is after 1970").as_nanos() as i128
}

/// Lets so much time pass. This is how long a fault lasts; no test waits in this way for something to happen.
pub fn pass(secs: u64) {
    std::thread::sleep(Duration::from_secs(secs));
}

/// Lets time pass until this second has begun, by the wall clock.
#[track_caller]
pub fn pass_until(at: i64) {
    let left = at - second();
    assert!(left < PATIENCE.as_secs() as i64, "the second {at} is {left} s away");
    while second() < at {
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Does something and gives how long it took.
pub fn timed(act: impl FnOnce()) -> Duration {
    let start = Instant::now();
    act();
    start.elapsed()
}

/// Whether each of these seconds follows the one before it: none is missing, and none is there twice.
#[track_caller]
pub fn check_gapless(seconds: &[i64]) {
    assert!(seconds.windows(2).all(|pair| pair[1] == pair[0] + 1), "a second is missing or there twice: {seconds:?}");
}
