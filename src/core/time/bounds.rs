//! Every length of time that must stand in an order with another, and the order itself, checked by the compiler.
//!
//! Not here: lengths that matter to one part alone; they stand with that part.
//!
//! Invariant: each assertion below is one that a promise rests on; its comment says which.

// A lease: how long a node may start runs, and keep mutex runs, without a further word of its leader.

/// The leader's authority, and with it the lease: from the sending of its last statement that succeeded.
pub const LEASE_MS: u64 = 10_000;
/// Between the end of a lease and the leader's reliance on it.
pub const LEASE_MARGIN_MS: u64 = 1_000;
/// How often the guardian looks at the lease while mutex runs may depend on it.
pub const GUARDIAN_LOOK_MS: u64 = 100;
/// After the lease's end a daemon may still be between its check and its spawn for so long.
pub const GUARDIAN_GRACE_MS: u64 = 500;

// What the guardian ends is over before another node may have the mutex.
const _: () = assert!(GUARDIAN_LOOK_MS + GUARDIAN_GRACE_MS < LEASE_MARGIN_MS);

// Links between a node and its leader.

pub const HEARTBEAT_MS: u64 = 200;
/// A node that has said nothing for so long gets nothing new.
pub const SUSPECT_MS: u64 = 1_000;
/// A leader that does not answer for so long is given up, and greeted anew over a new link.
pub const LEADER_SILENT_MS: u64 = 2_000;
/// How often the leader looks after its nodes.
pub const HOUSEKEEPING_MS: u64 = 250;

// Heartbeats that are late, or lost one by one, make nobody suspect.
const _: () = assert!(3 * HEARTBEAT_MS < SUSPECT_MS && HOUSEKEEPING_MS < SUSPECT_MS);
// A cut is noticed, and the leader greeted anew, well within the lease.
const _: () = assert!(SUSPECT_MS < LEADER_SILENT_MS && 2 * LEADER_SILENT_MS < LEASE_MS);

// Whether the store answers: by the word of each node, and by the leader's own journal.

/// The longest pause of a back-off.
pub const BACKOFF_MS_MAX: u64 = 2_000;
/// How often a node asks its store whether it answers.
pub const HEALTH_CHECK_MS: u64 = 1_000;
/// A question that the store has not answered for so long has no answer.
pub const STORE_SILENT_MS: u64 = 1_500;
/// A node's word that its store answers counts after so long.
pub const STORE_FIRM_MS: u64 = 2_500;
/// A journal that takes longer to answer is told in `/health`.
pub const JOURNAL_SLOW_MS: u64 = 2_000;
/// The journal has failed, and is failing for so long: it is away.
pub const JOURNAL_FAILING_MS: u64 = 2_000;
/// The journal has said nothing for so long: it is away.
pub const JOURNAL_SILENT_MS: u64 = 3_000;

// A leader that has lost the store does not rely on nodes that have lost it too and have yet to notice.
const _: () = assert!(HEALTH_CHECK_MS + STORE_SILENT_MS < JOURNAL_SILENT_MS);
// A store that was away for all is there again for all before one node's word sends the leader away, however long a pause
// the leader has to wait out.
const _: () = assert!(BACKOFF_MS_MAX < STORE_FIRM_MS);
const _: () = assert!(JOURNAL_SLOW_MS < JOURNAL_SILENT_MS && JOURNAL_SILENT_MS < LEASE_MS);

// The lock, by which others see a leader stand still.

/// How often the leader writes the lock's value.
pub const LOCK_VALUE_MS: u64 = 1_000;
/// A watch that sees no change answers after this, so that a value that stands still is noticed.
pub const LOCK_WATCH_MS: u64 = 1_000;
/// A lock value that stands still for so long, while Consul answers, belongs to a leader that hangs.
pub const LOCK_STALE_MS: u64 = 3_000;
/// A node that has had its store for less long does not depose a leader that stands still: the leader may be about to go on.
pub const DEPOSE_AFTER_MS: u64 = 4_000;
/// To take the lead may take so long with a store that answers nothing else meanwhile.
pub const TAKE_LEAD_MS: u64 = 4_000;
/// A leader that has lost the store leaves the lead to others for so long.
pub const ABSTAIN_MS: u64 = 10_000;

// A value that is written in time is seen in time.
const _: () = assert!(LOCK_VALUE_MS + LOCK_WATCH_MS < LOCK_STALE_MS);
// A leader whose journal hangs gives way by itself before others take the lead from it, where another node has the store.
const _: () = assert!(JOURNAL_SILENT_MS <= LOCK_STALE_MS);
// After an outage of the store for all, the leader's next try comes before anybody deposes it.
const _: () = assert!(BACKOFF_MS_MAX + HEALTH_CHECK_MS < DEPOSE_AFTER_MS);
// The one to whom the lead was left has had time to take it.
const _: () = assert!(TAKE_LEAD_MS + DEPOSE_AFTER_MS < ABSTAIN_MS);

// Calls of clients.

/// How long late ticks are waited for by a change, once they can be journaled.
pub const CHANGE_PATIENCE_MS: u64 = 1_000;
/// A store that has not answered a change for so long is taken to be away: stops do not wait for it.
pub const CHANGE_SILENT_MS: u64 = 2_000;
/// How long a client waits for a store, or a node, that does not answer.
pub const ANSWER_MS: u64 = 3_000;
/// A call waits so long for a leader to be there.
pub const NO_LEADER_MS: u64 = 3_000;
/// A forwarded call is answered by then, or its client is told that nobody knows.
pub const FORWARD_MS: u64 = 10_000;
/// An output that is followed is asked for again for so long: a leader may change and a node may be slow.
pub const FOLLOW_MS: u64 = 15_000;

// A stop is in force before its client is told that the store says nothing.
const _: () = assert!(CHANGE_PATIENCE_MS < CHANGE_SILENT_MS && CHANGE_SILENT_MS < ANSWER_MS);
// The leader's own answer comes before a follower gives up on it, and that before a stream does.
const _: () = assert!(NO_LEADER_MS + ANSWER_MS < FORWARD_MS && FORWARD_MS < FOLLOW_MS);

// The journal.

/// With nothing due, one entry in so many seconds keeps the watermark near.
pub const QUIET_SECS: i64 = 5;
/// With no entry for so long something stands still.
pub const OVERDUE_MS: u64 = 15_000;
/// Refusals of one job and reason share a log row, so many seconds of them at most: the row has the key of the last.
pub const COALESCE_SECS: i64 = 10;
/// Done entries are deleted after this long.
pub const KEEP_DONE_SECS: i64 = 3_600;
/// A replica of the jobs that is older is read anew.
pub const REPLICA_STALE_MS: u64 = 1_800_000;

// A daemon that stands alone sees by the journal's age that another one leads on its database.
const _: () = assert!((QUIET_SECS as u64 + 1) * 1_000 < LEASE_MS);
// A quiet journal is no overdue one.
const _: () = assert!(2 * QUIET_SECS as u64 * 1_000 < OVERDUE_MS);
// The notes of changes that a replica needs are there for as long as it may need them.
const _: () = assert!(2 * REPLICA_STALE_MS <= KEEP_DONE_SECS as u64 * 1_000);
const _: () = assert!(COALESCE_SECS < KEEP_DONE_SECS);

// Log rows.

/// How long a first row waits for others: long enough that the rows of one second's runs share a statement and do not
/// take processor time from their start, short enough for "visible within a second".
pub const GATHER_MS: u64 = 150;
/// A store that has not answered for so long is taken to be away: the rows that it was given go to the spool as well.
pub const LOG_SILENT_MS: u64 = 2_000;

const _: () = assert!(GATHER_MS < 500 && GATHER_MS < LOG_SILENT_MS);

// Starts that the system has no resources for.

/// Without a refusal for so long there are resources again.
pub const THROTTLE_QUIET_MS: u64 = 5_000;

// A throttled node has tried again before it counts as well.
const _: () = assert!(2 * BACKOFF_MS_MAX < THROTTLE_QUIET_MS);
