//! A daemon that nobody speaks to: no call, no probe, no signal. Each thing that waits in it for its time happens in
//! time, and delays nothing else.
//!
//! Each kind of waiting has a daemon of its own, which also has a job of every second (`steady`). All of these daemons
//! run at once. The checks only read what the jobs write.

use crate::misfire::stop_for;
use crate::support::daemon::Node;
use crate::support::outcomes::Outcomes;
use crate::support::time::{now_ns, second};
use crate::support::witness::{Seen, Witness};
use crate::support::{mariadb, wait_until};
use rustix::process::Signal;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::Builder;
use std::time::Instant;

/// For how long nobody speaks to a daemon.
const QUIET_SECS: i64 = 20;
/// The special job is due so long after it is added.
const DUE_SECS: i64 = 3;
/// How late a run that was started in time may write: all daemons share the host's few cores.
const SLACK_NS: i128 = 1_500_000_000;
/// A retry, and the next run of a mutex job, start with the first whole second after their time.
const NEXT_SECOND_NS: i128 = SECOND_NS;
/// How long a daemon may need to use its database when that answers again.
const BACK_SECS: i64 = 5;
const SECOND_NS: i128 = 1_000_000_000;

/// The longest time for which the host let this process stand still. The daemons stood still as long.
static STOOD_STILL_MS: AtomicU64 = AtomicU64::new(0);

/// A daemon, and its job of every second.
struct Quiet {
    node: Node,
    steady: Witness,
    special: Witness,
    from: i64,
}

fn ns(second: i64) -> i128 {
    i128::from(second) * SECOND_NS
}

fn slack_ns() -> i128 {
    SLACK_NS + i128::from(STOOD_STILL_MS.load(Ordering::Relaxed)) * 1_000_000
}

/// Lets the time go by until this second has begun.
fn pass_until(at: i64) {
    let mut last = Instant::now();
    wait_until("the time goes by", || {
        STOOD_STILL_MS.fetch_max(last.elapsed().as_millis() as u64, Ordering::Relaxed);
        last = Instant::now();
        at <= second()
    });
}

impl Quiet {
    fn started(extra: &str) -> Quiet {
        let node = Node::started(extra);
        let [steady, special] = ["steady", "special"].map(|name| node.witness(name));
        node.api.add_every_second(&steady.write("steady"), "");
        Quiet { node, steady, special, from: second() }
    }

    /// Adds a job that is due in `DUE_SECS`, for so many seconds; gives its id and the first of these seconds.
    fn add(&self, command: &str, seconds: i64, rest: &str) -> (u64, i64) {
        let at = second() + DUE_SECS;
        let window = format!("start_time={at}&end_time={}", at + seconds);
        (self.node.api.add_every_second(command, &format!("{window}&{rest}")), at)
    }

    /// A job whose every attempt fails.
    fn add_failing(&self, rest: &str) {
        self.add(&format!("{}; exit 1", self.special.around("true")), 1, rest);
    }

    /// Lets the quiet time pass, and waits until even a late run has written; gives the last second to check.
    fn quiet(&self) -> i64 {
        let last = self.from + QUIET_SECS;
        pass_until(last);
        self.settled(last)
    }

    fn settled(&self, last: i64) -> i64 {
        pass_until(last + 2 + (slack_ns() / SECOND_NS) as i64);
        last
    }

    /// Checks that the steady job ran once in every second up to `last`, neither early nor later than `latest_ns`
    /// allows.
    #[track_caller]
    fn check_steady(&self, last: i64, latest_ns: impl Fn(i64) -> i128) {
        let seen = self.steady.read();
        let first = seen.iter().map(|seen| seen.scheduled_at).min().expect("the steady job ran");
        assert!(first <= self.from + 2, "the job was added at {}, and its first run is that of {first}", self.from);
        for at in first..=last {
            let runs: Vec<&Seen> = seen.iter().filter(|seen| seen.scheduled_at == at).collect();
            assert_eq!(runs.len(), 1, "second {at} of {first} to {last}: {runs:?}");
            let at_ns = runs[0].at_ns;
            assert!(ns(at) <= at_ns, "early: {:?}", runs[0]);
            assert!(at_ns <= latest_ns(at) + slack_ns(), "{} ms late: {:?}", (at_ns - ns(at)) / 1_000_000, runs[0]);
        }
    }

    /// Checks that each further attempt came so many seconds after the end of the one before.
    #[track_caller]
    fn check_delays(&self, delays: &[i64]) {
        let seen = self.special.read();
        let at = |word: &str, attempt: usize| -> i128 {
            let of_attempt = |seen: &&Seen| seen.word == word && seen.attempt.ends_with(&format!("#{attempt}"));
            let times: Vec<i128> = seen.iter().filter(of_attempt).map(|seen| seen.at_ns).collect();
            assert_eq!(times.len(), 1, "{word} of attempt {attempt}: {seen:?}");
            times[0]
        };
        assert_eq!(seen.len(), 2 * (delays.len() + 1), "{seen:?}");
        for (attempt, delay) in (2..).zip(delays) {
            let waited_ns = at("begin", attempt) - at("end", attempt - 1);
            let told = format!("attempt {attempt} came after {} ms, not {delay} s", waited_ns / 1_000_000);
            assert!(ns(*delay) <= waited_ns, "early: {told}");
            assert!(waited_ns <= ns(*delay) + NEXT_SECOND_NS + slack_ns(), "late: {told}");
        }
    }
}

/// The latest start of a run that has to be on time.
fn in_time(second: i64) -> i128 {
    ns(second)
}

fn retry() {
    let quiet = Quiet::started("");
    quiet.add_failing("retry_times=1&retry_delay=1");
    quiet.check_steady(quiet.quiet(), in_time);
    quiet.check_delays(&[1]);
}

fn retries_that_double() {
    let quiet = Quiet::started("");
    quiet.add_failing("retry_times=3&retry_delay=1");
    quiet.check_steady(quiet.quiet(), in_time);
    quiet.check_delays(&[1, 2, 4]);
}

fn retention() {
    let quiet = Quiet::started("log_retention_days = 1\n");
    quiet.add_failing("retry_times=1&retry_delay=1");
    quiet.check_steady(quiet.quiet(), in_time);
    quiet.check_delays(&[1]);
}

/// A command that goes on until it gets TERM, and writes that down.
fn until_told(witness: &Witness) -> String {
    format!("trap '{}; exit 0' TERM; {}; while :; do sleep 0.05; done", witness.write("told"), witness.write("begin"))
}

fn timeout() {
    const LIMIT: i64 = 2;
    let quiet = Quiet::started("");
    let (_, at) = quiet.add(&until_told(&quiet.special), 1, "timeout=2");
    quiet.check_steady(quiet.quiet(), in_time);
    let seen = quiet.special.read();
    let [begin, told] = &seen[..] else { panic!("{seen:?}") };
    assert_eq!((begin.word.as_str(), told.word.as_str(), begin.scheduled_at), ("begin", "told", at), "{seen:?}");
    assert!(ns(at + LIMIT) <= told.at_ns, "ended before its time: {seen:?}");
    assert!(told.at_ns <= begin.at_ns + ns(LIMIT) + slack_ns(), "ended after its time: {seen:?}");
}

fn lock_limit() {
    const LIMIT: i64 = 2;
    let quiet = Quiet::started("");
    let (_, at) = quiet.add(&until_told(&quiet.special), 3, "is_mutex=1&lock_limit=2");
    quiet.check_steady(quiet.quiet(), in_time);
    let seen = quiet.special.read();
    let words: Vec<(&str, i64)> = seen.iter().map(|seen| (seen.word.as_str(), seen.scheduled_at)).collect();
    let expect: Vec<(&str, i64)> = (at..at + 3).flat_map(|at| [("begin", at), ("told", at)]).collect();
    assert_eq!(words, expect, "they did not run one after the other: {seen:?}");
    let mut free_ns = ns(at);
    for pair in seen.chunks(2) {
        let (begin_ns, told_ns) = (pair[0].at_ns, pair[1].at_ns);
        assert!(
            begin_ns <= free_ns + NEXT_SECOND_NS + slack_ns(),
            "it began late, though the mutex was free: {seen:?}"
        );
        assert!(free_ns + ns(LIMIT) <= told_ns, "ended before its time: {seen:?}");
        assert!(told_ns <= begin_ns + ns(LIMIT) + slack_ns(), "ended after its time: {seen:?}");
        free_ns = told_ns;
    }
}

fn jitter() {
    const EVERY: i64 = 10;
    const JITTER: i64 = 4;
    let quiet = Quiet::started("");
    for job in 0..3 {
        quiet.node.api.add("*/10 * * * * *", &quiet.special.write(&format!("job{job}")), "jitter=4");
    }
    let added = second();
    let last = quiet.quiet();
    quiet.check_steady(last, in_time);
    for job in 0..3 {
        let mut seen = quiet.special.read();
        seen.retain(|seen| seen.word == format!("job{job}"));
        let first = seen.first().unwrap_or_else(|| panic!("job {job} never ran")).scheduled_at;
        assert!((0..=JITTER).contains(&(first % EVERY)), "job {job}: {seen:?}");
        assert!(first <= added + EVERY + 1, "job {job} was added at {added}: {seen:?}");
        let due: Vec<i64> = (first..=last).step_by(EVERY as usize).collect();
        seen.retain(|seen| seen.scheduled_at <= last);
        assert_eq!(seen.iter().map(|seen| seen.scheduled_at).collect::<Vec<_>>(), due, "job {job}");
        let is_in_time = |seen: &Seen| (0..=slack_ns()).contains(&(seen.at_ns - ns(seen.scheduled_at)));
        assert!(seen.iter().all(is_in_time), "job {job}: {seen:?}");
    }
}

fn misfire() {
    let quiet = Quiet::started("");
    let once = &quiet.special;
    quiet.node.api.add_every_second(&once.write("once"), "misfire=once");
    pass_until(quiet.from + 5);
    let away = stop_for(&quiet.node, 5, || ());
    let back = away.last + 1;
    let last = quiet.quiet();
    // The runs of the seconds around the stop may have been stopped on their way, and be late.
    let late = |at: i64| if (away.first - 2..=back).contains(&at) { ns(back + 1) } else { ns(at) };
    quiet.check_steady(last, late);
    let gap = away.first..=away.last;
    let is_late = |seen: &Seen| !gap.contains(&seen.scheduled_at) || ns(back) <= seen.at_ns;
    assert!(
        quiet.steady.read().iter().all(is_late),
        "a run was started while the daemon stood still: {:?}",
        quiet.steady.read()
    );
    let mut ran: Vec<i64> = once.read().iter().map(|seen| seen.scheduled_at).filter(|at| *at <= last).collect();
    ran.sort();
    let of_gap: Vec<i64> = ran.iter().copied().filter(|at| gap.contains(at)).collect();
    assert!(of_gap.is_empty() || of_gap == [away.last], "only the last of {gap:?} may run: {ran:?}");
    let first = *ran.iter().find(|at| away.first <= **at).expect("it runs again");
    assert!(first <= back, "one runs for the gap {gap:?}: {ran:?}");
    assert_eq!(ran.into_iter().filter(|at| first <= *at).collect::<Vec<_>>(), (first..=last).collect::<Vec<_>>());
}

fn drain() {
    /// TERM comes after `drain_timeout` of 2 s, KILL 5 s later.
    const TIME: i64 = 2 + 5;
    let mut quiet = Quiet::started("drain_timeout = 2\n");
    let command = format!("trap '' TERM; while :; do {}; sleep 0.2; done", quiet.special.write("on"));
    quiet.add(&command, 1, "");
    let asked = quiet.from + 8;
    pass_until(asked);
    let asked_ns = now_ns();
    quiet.node.signal(Signal::TERM);
    let status = quiet.node.wait();
    let over_ns = now_ns();
    assert_eq!(status.code(), Some(0), "{}", quiet.node.said());
    let took = format!("it took {} ms", (over_ns - asked_ns) / 1_000_000);
    assert!(over_ns <= asked_ns + ns(TIME + 3) + slack_ns(), "{took}");
    let written = quiet.special.read();
    let last = written.last().expect("it ran");
    assert!(asked_ns + ns(TIME) <= last.at_ns + slack_ns(), "the run was ended early: {took}, {last:?}");
    pass_until(second() + 3);
    assert_eq!(quiet.special.read().last(), Some(last), "the run goes on");
    quiet.check_steady(asked - 1, in_time);
    // The run of the second in which the signal came may have been on its way.
    assert!(quiet.steady.read().iter().all(|seen| seen.scheduled_at <= asked), "{:?}", quiet.steady.read());
}

fn pause() {
    let quiet = Quiet::started("");
    quiet.add_failing("retry_times=1&retry_delay=3");
    quiet.special.wait_count("end", 1);
    quiet.node.api.post("/cluster/pause", "").ok();
    let paused = second();
    pass_until(paused + 9);
    let meanwhile = quiet.steady.read();
    assert!(meanwhile.iter().all(|seen| seen.scheduled_at <= paused), "paused at {paused}: {meanwhile:?}");
    quiet.check_delays(&[3]);
    let resumed = second();
    quiet.node.api.post("/cluster/resume", "").ok();
    pass_until(resumed + 10);
    let last = quiet.settled(resumed + 10);
    // The seconds of the two calls may count as paused or not.
    quiet.check_steady(last, |at| if (paused..=resumed).contains(&at) { ns(resumed + 1) } else { ns(at) });
}

fn coalesced_refusals() {
    let quiet = Quiet::started("max_pending_per_job = 1\n");
    let api = &quiet.node.api;
    let command = format!("{}; sleep 60", quiet.special.write("begin"));
    let id = api.add_every_second(&command, "is_mutex=1");
    let last = quiet.quiet();
    quiet.check_steady(last, in_time);
    let seen = quiet.special.read();
    assert_eq!(seen.len(), 1, "one run holds the mutex: {seen:?}");
    // The run that waits gets its row only when it is cancelled.
    api.stop_job(id);
    let key = seen[0].attempt.trim_end_matches("#1");
    api.kill_run(key);
    let first = seen[0].scheduled_at;
    let mut outcomes = Outcomes::default();
    wait_until("every second has an outcome, or has had its time", || {
        outcomes = Outcomes::of(id, &api.rows(id), &seen, "begin", first..=last);
        outcomes.without.is_empty() || second() > last + 40
    });
    assert!(outcomes.without.is_empty() && outcomes.doubled.is_empty(), "{outcomes:#?}");
    assert_eq!(outcomes.at(first), ["ran"]);
    assert!(outcomes.at(first + 1)[0].starts_with("cancelled"), "{outcomes:#?}");
    assert!((first + 2..=last).all(|at| outcomes.at(at)[0].starts_with("skipped")), "{outcomes:#?}");
    assert!(api.rows_with(id, "skipped").len() as i64 <= QUIET_SECS / 4, "refusals of one job share a row");
}

fn spool() {
    const AWAY_SECS: i64 = 6;
    let Some(mut server) = mariadb::server() else { return };
    let quiet = Quiet::started(&server.database("utf8mb4").toml());
    quiet.add_failing("retry_times=1&retry_delay=3");
    quiet.special.wait_count("end", 1);
    // After two seconds the end of the attempt is in the store.
    pass_until(second() + 2);
    let gone = second();
    server.stop(false);
    pass_until(gone + AWAY_SECS);
    server.start();
    let back = second() + BACK_SECS;
    pass_until(back);
    let last = quiet.settled(back.max(quiet.from + QUIET_SECS));
    quiet.check_steady(last, |at| if (gone - 1..=back).contains(&at) { ns(back) } else { ns(at) });
    let seen = quiet.special.read();
    let at = |word: &str, attempt: &str| {
        let mut of_it = seen.iter().filter(|seen| seen.word == word && seen.attempt.ends_with(attempt));
        of_it.next().unwrap_or_else(|| panic!("{word} {attempt}: {seen:?}")).at_ns
    };
    let (ended_ns, begun_ns) = (at("end", "#1"), at("begin", "#2"));
    assert_eq!(seen.len(), 4, "{seen:?}");
    assert!(
        ended_ns + ns(3) <= begun_ns && begun_ns <= ns(back) + slack_ns(),
        "{seen:?}, the store was back at {back}"
    );
}

/// Makes all of these checks at once, and names the ones that failed.
fn all_at_once(kinds: &[(&str, fn())]) {
    let failed: Vec<&str> = std::thread::scope(|scope| {
        let begin = |check: fn(), name: &str| Builder::new().name(name.into()).spawn_scoped(scope, check);
        let begun: Vec<_> = kinds.iter().map(|(name, check)| begin(*check, name).expect("a thread")).collect();
        let ended = begun.into_iter().map(|thread| thread.join());
        kinds.iter().zip(ended).filter(|(_, end)| end.is_err()).map(|((name, _), _)| *name).collect()
    });
    assert!(failed.is_empty(), "these checks failed: {failed:?}");
}

#[test]
fn a_daemon_that_nobody_speaks_to_is_in_time_with_retries_limits_and_jitter() {
    all_at_once(&[
        ("retry", retry),
        ("retries_that_double", retries_that_double),
        ("retention", retention),
        ("timeout", timeout),
        ("lock_limit", lock_limit),
        ("jitter", jitter),
    ]);
}

#[test]
fn a_daemon_that_nobody_speaks_to_gets_over_stops_pauses_and_outages() {
    all_at_once(&[
        ("misfire", misfire),
        ("drain", drain),
        ("pause", pause),
        ("coalesced_refusals", coalesced_refusals),
        ("spool", spool),
    ]);
}
