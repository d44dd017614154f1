//! The bounds of time: lengths of time that must be longer or shorter than another one. The compiler checks that.
//!
//! Not here: lengths that matter to one part alone; each is with its part.
//!
//! Invariant: a promise depends on each assertion; the comment above it says how.

// The lease: how long a node may start runs, and keep mutex runs, without hearing from its leader.

/// How long a leader's authority lasts, from the sending of its last statement that succeeded; and how long a lease
/// lasts.
pub const LEASE_MS: u64 = 10_000;
/// So long after the end of a node's lease the leader takes the node's mutex runs for over.
pub const LEASE_MARGIN_MS: u64 = 1_000;
/// How often the guardian looks at the lease while mutex runs may depend on it.
pub const GUARDIAN_LOOK_MS: u64 = 100;
/// So long after the lease's end a daemon may still be between its look at the lease and the start of a process.
pub const GUARDIAN_GRACE_MS: u64 = 500;

// A run that the guardian ends is over before another node may have its mutex.
const _: () = assert!(GUARDIAN_LOOK_MS + GUARDIAN_GRACE_MS < LEASE_MARGIN_MS);

// Links between a node and its leader.

pub const HEARTBEAT_MS: u64 = 200;
/// A node that has said nothing for so long is suspect: it gets no new runs.
pub const SUSPECT_MS: u64 = 1_000;
/// A leader that does not answer for so long is given up, and greeted anew over a new link.
pub const LEADER_SILENT_MS: u64 = 2_000;
/// How often the leader looks after its nodes.
pub const HOUSEKEEPING_MS: u64 = 250;

// A late heartbeat, or a single lost one, makes no node suspect.
const _: () = assert!(3 * HEARTBEAT_MS < SUSPECT_MS && HOUSEKEEPING_MS < SUSPECT_MS);
// A node notices a cut, and greets the leader anew, well within its lease.
const _: () = assert!(SUSPECT_MS < LEADER_SILENT_MS && 2 * LEADER_SILENT_MS < LEASE_MS);

// Whether the store answers: each node's health checks, and the leader's journal.

/// The longest pause of a back-off.
pub const BACKOFF_MS_MAX: u64 = 2_000;
/// How often a node asks its store whether it answers.
pub const HEALTH_CHECK_MS: u64 = 1_000;
/// A health check that the store has not answered for so long has failed.
pub const STORE_SILENT_MS: u64 = 1_500;
/// The leader relies on a node's store once it has answered for so long.
pub const STORE_FIRM_MS: u64 = 2_500;
/// A journal that takes longer to answer is reported in `/health`.
pub const JOURNAL_SLOW_MS: u64 = 2_000;
/// A journal that has failed for so long is away.
pub const JOURNAL_FAILING_MS: u64 = 2_000;
/// A journal that has not answered for so long is away.
pub const JOURNAL_SILENT_MS: u64 = 3_000;

// A leader that has lost the store does not give way to a node that has lost it, too, but has not noticed yet.
const _: () = assert!(HEALTH_CHECK_MS + STORE_SILENT_MS < JOURNAL_SILENT_MS);
// After an outage for all nodes, the leader has tried the store again (even after its longest pause) before it gives
// way to a node whose store answers.
const _: () = assert!(BACKOFF_MS_MAX < STORE_FIRM_MS);
const _: () = assert!(JOURNAL_SLOW_MS < JOURNAL_SILENT_MS && JOURNAL_SILENT_MS < LEASE_MS);

// The lock, by which other nodes see that a leader stands still.

/// How often the leader writes the lock's value.
pub const LOCK_VALUE_MS: u64 = 1_000;
/// A watch that sees no change answers after so long, so that a value that stands still is noticed.
pub const LOCK_WATCH_MS: u64 = 1_000;
/// A lock value that stands still for so long, while Consul answers, belongs to a leader that hangs.
pub const LOCK_STALE_MS: u64 = 3_000;
/// A node deposes a leader that stands still only when its own store has answered for so long: after an outage for all
/// nodes, the leader may be about to go on.
pub const DEPOSE_AFTER_MS: u64 = 4_000;
/// How long taking the lead may last.
pub const TAKE_LEAD_MS: u64 = 4_000;
/// A leader that has lost the store leaves the lead to others for so long.
pub const ABSTAIN_MS: u64 = 10_000;

// A lock value that is written in time is seen before it counts as standing still.
const _: () = assert!(LOCK_VALUE_MS + LOCK_WATCH_MS < LOCK_STALE_MS);
// Where another node has the store, a leader whose journal hangs gives way by itself before others take the lead from
// it.
const _: () = assert!(JOURNAL_SILENT_MS <= LOCK_STALE_MS);
// After an outage of the store for all nodes, the leader's next try comes before any node deposes it.
const _: () = assert!(BACKOFF_MS_MAX + HEALTH_CHECK_MS < DEPOSE_AFTER_MS);
// The node to which the lead was left has had time to take it.
const _: () = assert!(TAKE_LEAD_MS + DEPOSE_AFTER_MS < ABSTAIN_MS);

// Calls of clients.

/// How long a change waits for late ticks, once they can be journaled.
pub const CHANGE_PATIENCE_MS: u64 = 1_000;
/// A store that has not answered a change for so long is taken to be away: stops do not wait for it.
pub const CHANGE_SILENT_MS: u64 = 2_000;
/// How long a client waits for a store or a node that does not answer.
pub const ANSWER_MS: u64 = 3_000;
/// How long a call waits for a leader where there is none.
pub const NO_LEADER_MS: u64 = 3_000;
/// A forwarded call that is not answered after so long may have been carried out or not, and its client is told so.
pub const FORWARD_MS: u64 = 10_000;
/// How long a run may take to end, beyond `kill_grace`, before the client that ends it is told that it has not. A
/// forwarded call that ends a run is waited for as much longer.
pub const KILL_MS: u64 = 10_000;
/// A followed output is asked for again for so long: the leader may change, and a node may be slow.
pub const FOLLOW_MS: u64 = 15_000;

// A stop is in force before its client is told that the store does not answer.
const _: () = assert!(CHANGE_PATIENCE_MS < CHANGE_SILENT_MS && CHANGE_SILENT_MS < ANSWER_MS);
// The leader answers before a follower gives up, and the follower gives up before the stream of an output does.
const _: () = assert!(NO_LEADER_MS + ANSWER_MS < FORWARD_MS && FORWARD_MS < FOLLOW_MS);

// The journal.

/// While no run is due, one entry in so many seconds keeps the watermark near the present.
pub const QUIET_SECS: i64 = 5;
/// A journal without a new entry for so long is overdue: the leader stands still.
pub const OVERDUE_MS: u64 = 15_000;
/// Refusals of one job and reason within so many seconds share a log row; it has the key of the last one.
pub const COALESCE_SECS: i64 = 10;
/// Done entries are deleted after this long.
pub const KEEP_DONE_SECS: i64 = 3_600;
/// A replica that is older than this is read anew.
pub const REPLICA_STALE_MS: u64 = 1_800_000;

// A daemon without Consul sees by the age of the last entry that another daemon leads on its database.
const _: () = assert!((QUIET_SECS as u64 + 1) * 1_000 < LEASE_MS);
// A quiet journal is not overdue.
const _: () = assert!(2 * QUIET_SECS as u64 * 1_000 < OVERDUE_MS);
// The journal keeps the notes of changes for as long as a replica may need them.
const _: () = assert!(2 * REPLICA_STALE_MS <= KEEP_DONE_SECS as u64 * 1_000);
const _: () = assert!(COALESCE_SECS < KEEP_DONE_SECS);

// Log rows.

/// How long a first row waits for others. It is long enough for the rows of one second's runs to share a statement, and
/// not to take processor time from their starts; it is short enough for rows to be visible within a second.
pub const GATHER_MS: u64 = 150;
/// A store that has not answered for so long is taken to be away: the rows that it was given go to the spool as well.
pub const LOG_SILENT_MS: u64 = 2_000;

const _: () = assert!(GATHER_MS < 500 && GATHER_MS < LOG_SILENT_MS);

// Starts that the host has no resources for.

/// A host that has refused no process for so long has resources again.
pub const THROTTLE_QUIET_MS: u64 = 5_000;

// A throttled node has tried again before its throttle ends.
const _: () = assert!(2 * BACKOFF_MS_MAX < THROTTLE_QUIET_MS);
