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

/// How long one look of the guardian kills mutex runs, at most, before the next look reads the marks anew.
pub const GUARDIAN_KILL_MS: u64 = 100;
/// How long the runs of a dead daemon, or the runs that the daemon ends, are killed at most.
pub const KILL_ALL_MS: u64 = 2_000;

/// A node that is gone for so long is not shown any more.
pub const FORGET_SECS: i64 = 3_600;

// A node is forgotten when its lease is surely over, not before.
const _: () = assert!(LEASE_MS + LEASE_MARGIN_MS < FORGET_SECS as u64 * 1_000);
// A run that the guardian ends is over before another node may have its mutex. In the worst case the daemon starts it
// at the end of the grace, while the guardian is busy with a run that cannot be killed: then come the rest of that
// killing, a pause, and the killing of both. The rest of the margin is for the last round, which may be long on a host
// with many processes. A process that sleeps uninterruptibly outlives every margin.
const _: () = assert!(GUARDIAN_GRACE_MS + GUARDIAN_KILL_MS + GUARDIAN_LOOK_MS + GUARDIAN_KILL_MS < LEASE_MARGIN_MS);

// Links between a node and its leader.

/// How often a node sends its leader a heartbeat.
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

// The lookup, by which a node without Consul finds its leader.

/// How long the need must last before the store is asked: a takeover without any other fault takes less, and Consul
/// then tells of it.
pub const LOOKUP_PATIENCE_MS: u64 = 1_000;
/// How often the store is asked who leads, while that is needed.
pub const LOOKUP_EVERY_MS: u64 = 1_000;

// Whether the store answers: each node's health checks, and the leader's journal.

/// The first pause of a back-off.
pub const BACKOFF_FIRST_MS: u64 = 100;
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

// A node without Consul that has lost its leader learns from the store who leads, and greets that node, within its lease.
const _: () = assert!(LEADER_SILENT_MS + LOOKUP_PATIENCE_MS + LOOKUP_EVERY_MS + BACKOFF_MS_MAX < LEASE_MS);
// A leader that has lost the store does not give way to a node that has lost it, too, but has not noticed yet.
const _: () = assert!(HEALTH_CHECK_MS + STORE_SILENT_MS < JOURNAL_SILENT_MS);
// After an outage for all nodes, the leader has tried the store again (even after its longest pause) before it gives
// way to a node whose store answers.
const _: () = assert!(BACKOFF_MS_MAX < STORE_FIRM_MS);
const _: () = assert!(JOURNAL_SLOW_MS < JOURNAL_SILENT_MS && JOURNAL_SILENT_MS < LEASE_MS);

// How long before its second a tick is taken.

/// A leader of other nodes takes a tick so long before its second: store and network lie between the plan of a run and
/// its node.
pub const PLAN_AHEAD_MS: u64 = 500;
/// A node that stands alone needs less: nothing but its own store lies between.
pub const PLAN_AHEAD_ALONE_MS: u64 = 100;

// Ticks are taken one a second, so a tick is taken after the second before it has begun, and under that second's clock.
const _: () = assert!(PLAN_AHEAD_ALONE_MS < PLAN_AHEAD_MS && PLAN_AHEAD_MS < 1_000);

// The clocks of the nodes, by which armed runs start.

/// The leader warns of a clock that is off by more.
pub const OFFSET_MS_MAX: i64 = 250;
/// A round trip that took longer says too little of the leader's clock to judge ours by it.
pub const QUICK_MS: u64 = 250;

// A measurement is wrong by half its round trip at most, so a good clock is not blamed for a slow network.
const _: () = assert!(QUICK_MS / 2 < OFFSET_MS_MAX as u64);

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
/// A link that is not proved after so long is cut.
pub const PROVE_MS: u64 = 2_000;
/// A node that cannot speak with the leader (another secret, another version) leaves the lead to others for so long.
pub const STAND_BACK_MS: u64 = 5_000;

// A lock value that is written in time is seen before it counts as standing still.
const _: () = assert!(LOCK_VALUE_MS + LOCK_WATCH_MS < LOCK_STALE_MS);
// Where another node has the store, a leader whose journal hangs gives way by itself before others take the lead from
// it.
const _: () = assert!(JOURNAL_SILENT_MS <= LOCK_STALE_MS);
// After an outage of the store for all nodes, the leader's next try comes before any node deposes it.
const _: () = assert!(BACKOFF_MS_MAX + HEALTH_CHECK_MS < DEPOSE_AFTER_MS);
// As long as the leader is well, the node has tried to speak with it again before it may take the lead.
const _: () = assert!(BACKOFF_MS_MAX + PROVE_MS < STAND_BACK_MS);
// The node to which the lead was left has had time to take it.
const _: () = assert!(TAKE_LEAD_MS + DEPOSE_AFTER_MS < ABSTAIN_MS);

// Calls of clients.

/// How long a change waits for late ticks, once they can be journaled.
pub const CHANGE_PATIENCE_MS: u64 = 1_000;
/// A store that has not answered a change for so long is taken to be away: stops do not wait for it.
pub const CHANGE_SILENT_MS: u64 = 2_000;
/// How long a client waits for a store or a node that does not answer.
pub const ANSWER_MS: u64 = 2_900;
/// How long the host's directories may take to tell of a user. The cancel of a job waits for its runs that are being started.
pub const USER_MS: u64 = 2_000;
/// A store that has said nothing for so long makes no client wait for a read.
pub const READ_SILENT_MS: u64 = 2_500;
/// How long a call waits for a leader where there is none.
pub const NO_LEADER_MS: u64 = 2_900;
/// A forwarded call that is not answered after so long may have been carried out or not, and its client is told so.
pub const FORWARD_MS: u64 = 10_000;
/// How long a run may take to end, beyond `kill_grace`, before the client that ends it is told that it has not. A
/// forwarded call that ends a run is waited for as much longer.
pub const KILL_MS: u64 = 10_000;
/// A followed output is asked for again for so long: the leader may change, and a node may be slow.
pub const FOLLOW_MS: u64 = 15_000;
/// A list of in-flight runs waits so long for the nodes' answers.
pub const RUN_LIST_MS: u64 = 1_000;
/// A list of jobs waits so long for the jobs, and as long again for their last runs. Many jobs make both waits longer.
pub const JOB_LIST_MS: u64 = 1_000;
/// nginx keeps a connection to us for so long where nobody uses it, unless it is configured otherwise
/// (`keepalive_timeout` of its `upstream`).
const NGINX_KEEPALIVE_MS: u64 = 60_000;
/// A client's connection is closed when it has been idle for so long.
pub const CONNECTION_IDLE_MS: u64 = 75_000;
/// An output is kept for so long once its row is committed: those who follow it read on from where they were.
pub const KEEP_OUTPUT_MS: u64 = 20_000;
/// The end of a run waits so long for a disk that does not take its output.
pub const FILE_WAIT_MS: u64 = 5_000;

// A stop is in force before its client is told that the store does not answer.
const _: () = assert!(CHANGE_PATIENCE_MS < CHANGE_SILENT_MS && CHANGE_SILENT_MS < ANSWER_MS);
// A directory of users that hangs does not keep a change of its job from being answered.
const _: () = assert!(USER_MS < ANSWER_MS);
// A client hears of a silent store within three seconds, and a store that is asked every second was asked before.
const _: () = assert!(HEALTH_CHECK_MS + STORE_SILENT_MS <= READ_SILENT_MS && READ_SILENT_MS < ANSWER_MS);
// The leader answers before a follower gives up, and the follower gives up before the stream of an output does.
const _: () = assert!(NO_LEADER_MS + ANSWER_MS < FORWARD_MS && FORWARD_MS < FOLLOW_MS);
// A list is answered, with what is known, before a client that asks for one thing would be.
const _: () = assert!(RUN_LIST_MS < ANSWER_MS && 2 * JOB_LIST_MS < ANSWER_MS);
// A client that follows an output and is put off for as long as it may be still finds every byte. The row has only what
// fits into it, and counts its bytes otherwise.
const _: () = assert!(FOLLOW_MS + ANSWER_MS < KEEP_OUTPUT_MS);
// nginx closes an idle connection before we do: it sends no request into one that we are closing.
const _: () = assert!(NGINX_KEEPALIVE_MS < CONNECTION_IDLE_MS);
// A disk that hangs does not make a run that was ended look as if it went on.
const _: () = assert!(FILE_WAIT_MS < KILL_MS);

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
/// How often a replica reads the changes.
pub const REPLICA_REFRESH_MS: u64 = 2_000;
/// The schedules of a replica stand at so many seconds ago.
pub const REPLICA_LAG_SECS: i64 = 30;

// A daemon without Consul sees by the age of the last entry that another daemon leads on its database.
const _: () = assert!((QUIET_SECS as u64 + 1) * 1_000 < LEASE_MS);
// A quiet journal is not overdue.
const _: () = assert!(2 * QUIET_SECS as u64 * 1_000 < OVERDUE_MS);
// The journal keeps the notes of changes for as long as a replica may need them.
const _: () = assert!(2 * REPLICA_STALE_MS <= KEEP_DONE_SECS as u64 * 1_000);
const _: () = assert!(COALESCE_SECS < KEEP_DONE_SECS);
// The last tick of a former leader is ahead of the replica's schedules, however quiet the journal was and however late
// the lead was taken: a new leader advances its wheel, instead of filling it anew.
const _: () =
    assert!(REPLICA_REFRESH_MS + QUIET_SECS as u64 * 1_000 + LEASE_MS + TAKE_LEAD_MS < REPLICA_LAG_SECS as u64 * 1_000);

// Log rows.

/// How long a first row waits for others. It is long enough for the rows of one second's runs to share a statement, and
/// not to take processor time from their starts; it is short enough for rows to be visible within a second.
pub const GATHER_MS: u64 = 150;
/// A store that has not answered for so long is taken to be away: the rows that it was given go to the spool as well.
pub const LOG_SILENT_MS: u64 = 2_000;
/// A row can be read so soon after the end of its run, where the store is well.
const ROW_VISIBLE_MS: u64 = 1_000;

// Gathering leaves at least as much time to the statement.
const _: () = assert!(2 * GATHER_MS < ROW_VISIBLE_MS && GATHER_MS < LOG_SILENT_MS);

// Starts that the host has no resources for.

/// A host that has refused no process for so long has resources again.
pub const THROTTLE_QUIET_MS: u64 = 5_000;

// A throttled node has tried again before its throttle ends.
const _: () = assert!(2 * BACKOFF_MS_MAX < THROTTLE_QUIET_MS);

// The waits of the threads that speak with a store. While one of them waits, the core judges by its own limits.

/// To make a connection to MySQL.
pub const MYSQL_CONNECT_MS: u64 = 3_000;
/// A server whose host has not acknowledged our bytes for so long is cut off. After the cut a new connection is made at
/// once, while this one would wait for as long again before it repeated the bytes.
pub const MYSQL_UNHEARD_MS: u32 = 3_000;
/// A statement that waits so long for a row that another one holds fails.
pub const MYSQL_LOCK_WAIT_SECS: u64 = 2;
/// A read that waits so long for a table that another program has locked fails. Those behind it wait as well.
pub const MYSQL_READ_LOCK_SECS: u64 = 1;
/// A server that answers nothing for so long is away. Migrations of large tables have connections of their own.
pub const MYSQL_ANSWER_MS: u64 = 10_000;
/// A read of a large log may take so long; then the server ends it.
pub const MYSQL_READ_SECS: u64 = 30;
/// Should the server fail to, we give up a little later. config/nginx.conf lets an answer take longer than this.
pub const MYSQL_READ_MS: u64 = 35_000;
/// How long a statement of SQLite waits for another program that holds the file. The leader's may have to wait for one
/// of this daemon's log rows before, which may wait as long.
pub const SQLITE_BUSY_MS: u64 = 1_400;

// Where only the connection is broken, or only its way through a firewall, the leader has written to the store over a
// new one before its authority ends.
const _: () = assert!(MYSQL_UNHEARD_MS as u64 + BACKOFF_MS_MAX + MYSQL_CONNECT_MS < LEASE_MS);
// A statement that waits for a locked row fails, and says so, before the store counts as away.
const _: () = assert!(MYSQL_LOCK_WAIT_SECS * 1_000 < JOURNAL_SILENT_MS);
// The core acts on a silent store long before the statement ends: a slow answer is not cut off and asked for again.
const _: () = assert!(
    STORE_SILENT_MS < MYSQL_ANSWER_MS
        && JOURNAL_SILENT_MS < MYSQL_ANSWER_MS
        && CHANGE_SILENT_MS < MYSQL_ANSWER_MS
        && LOG_SILENT_MS < MYSQL_ANSWER_MS
);
// A leader that gave way because of a statement has its connection back when it may lead again.
const _: () = assert!(MYSQL_ANSWER_MS <= ABSTAIN_MS);
// A search that takes too long is ended by the server, which knows what to say of it, and not by us.
const _: () = assert!(MYSQL_ANSWER_MS < MYSQL_READ_SECS * 1_000 && MYSQL_READ_SECS * 1_000 < MYSQL_READ_MS);
// Where another program holds the file, the statement fails, and names that reason, before any limit of a silent store:
// the journal's, that of a client's change, and that of log rows.
const _: () = assert!(2 * SQLITE_BUSY_MS < JOURNAL_SILENT_MS && 2 * SQLITE_BUSY_MS < ANSWER_MS);
const _: () = assert!(SQLITE_BUSY_MS < CHANGE_SILENT_MS && SQLITE_BUSY_MS < LOG_SILENT_MS);

// Consul: the check, by which it sees that a node is dead, and with it the node's session and lock.

/// The check fails when it was not passed for so long.
pub const CHECK_TTL_SECS: u64 = 3;
/// How often the check is passed.
pub const CHECK_PASS_MS: u64 = 1_000;
/// How long one call may take, beside the time that a watch is asked to wait.
pub const CONSUL_CALL_MS: u64 = 1_500;
/// To make a connection to the agent.
pub const CONSUL_CONNECT_MS: u64 = 1_000;

// One call that hangs, whichever it is, costs no leader its lock: calls are made one at a time, and the check is passed
// first after the shortest back-off.
const _: () = assert!(CHECK_PASS_MS + CONSUL_CALL_MS + BACKOFF_FIRST_MS < CHECK_TTL_SECS * 1_000);
const _: () = assert!(CONSUL_CONNECT_MS < CONSUL_CALL_MS);
// Another node sees by the lock, not only by the lock's value, that a leader is dead.
const _: () = assert!(CHECK_TTL_SECS * 1_000 <= LOCK_STALE_MS && LOCK_STALE_MS < LEASE_MS);

// The way out, and the next start.

/// Between asking the runs to end and forcing them, in a shutdown.
pub const SHUTDOWN_KILL_MS: u64 = 5_000;
/// How long a shutdown waits for a store that is away, once nothing runs any more.
pub const SHUTDOWN_STORE_MS: u64 = 10_000;
/// How long a guardian waits for a daemon whose own guardian is dead to end its runs and go.
pub const GUARDIAN_PATIENCE_MS: u64 = 30_000;
/// A daemon that lived so long starts its guardian's back-off anew.
pub const SOUND_LIFE_MS: u64 = 10_000;
/// The first pause of a guardian between two daemons that died early.
pub const GUARDIAN_BACKOFF_FIRST_MS: u64 = 100;
/// The longest pause of a guardian between two daemons.
pub const GUARDIAN_BACKOFF_MS_MAX: u64 = 1_000;

// A daemon without its guardian is gone before a new guardian gives up: also where a disk, the store and Consul hang.
// Leaving Consul takes three calls, behind one that may be under way.
const _: () = assert!(SHUTDOWN_KILL_MS + FILE_WAIT_MS + SHUTDOWN_STORE_MS + 4 * CONSUL_CALL_MS < GUARDIAN_PATIENCE_MS);
// A daemon that dies as soon as it leads does not count as sound. The pause after a sound daemon is shorter than its
// life was.
const _: () = assert!(TAKE_LEAD_MS < SOUND_LIFE_MS && GUARDIAN_BACKOFF_MS_MAX < SOUND_LIFE_MS);
// A node whose daemon was killed alone is back within its lease: the runs are killed, and the pause is over.
const _: () = assert!(GUARDIAN_BACKOFF_FIRST_MS < GUARDIAN_BACKOFF_MS_MAX);
const _: () = assert!(KILL_ALL_MS + GUARDIAN_BACKOFF_MS_MAX < LEASE_MS);
