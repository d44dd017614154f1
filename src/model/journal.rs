//! The journal: the cluster's one durable, ordered, fenced log of the leader's decisions.
//!
//! Not the writing of entries: that is the ledger's journaler, and the store.
//!
//! Invariant: no run is sent to a node before the entry that names it is in the store.

use super::command::RequestKey;
use super::{Attempt, Epoch, JobId, NodeId, RunState, Second, Version};
use serde::{Deserialize, Serialize};

/// `journal.id`, given by the store.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct EntryId(pub i64);

/// One row of table `journal`, before it has an id.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    /// The leader's: under any other the store does not take the entry.
    pub epoch: Epoch,
    /// Counts the entries of one epoch, so that a statement whose answer was lost can be repeated.
    pub request: u64,
    /// The tick that the entry handles; none for retries, manual runs, reassigned runs, and changes.
    pub tick: Option<Second>,
    /// The number of the part. A large tick has several; they are written from the highest number down, so the tick is
    /// whole once part 0 is in the journal.
    pub part: u32,
    /// What was decided.
    pub body: Body,
    /// The key of the client's request. When a request with the same key comes again, the first entry counts.
    pub request_key: Option<RequestKey>,
}

/// The decisions of one entry.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Body {
    /// The nodes that `runs` names, by index.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<NodeId>,
    /// Runs that are given to nodes, or wait for one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub runs: Vec<PlannedRun>,
    /// Further attempts that wait for the end of their delay.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub delayed: Vec<DelayedRun>,
    /// Due runs that are skipped or shed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<RefusedRun>,
    /// Due seconds that are not run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missed: Vec<MissedGap>,
    /// Due seconds before a change of their job, which are cancelled: no tick will handle them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub settled: Vec<MissedGap>,
    /// Jobs whose rows are about to be changed, or were found changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<ChangeNote>,
    /// For a reload: the seconds up to and with this one are decided for the jobs in `changes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided_to: Option<Second>,
}

/// A run, the version of its job, and its node, as an entry names them.
pub type NamedRun = (Attempt, Version, NodeId);

impl Body {
    /// The body of an entry that gives these runs to their nodes.
    pub fn naming(runs: &[NamedRun]) -> Body {
        let mut nodes: Vec<NodeId> = Vec::new();
        let mut index = |node: &NodeId| {
            let at = nodes.iter().position(|known| known == node).unwrap_or_else(|| {
                nodes.push(node.clone());
                nodes.len() - 1
            });
            at as u16
        };
        let runs = runs.iter().map(|(attempt, version, node)| PlannedRun {
            attempt: *attempt,
            version: *version,
            node: index(node),
        });
        let runs = runs.collect();
        Body { nodes, runs, ..Body::default() }
    }
}

/// A run given to a node, as the array `[run_key, attempt, version, node index]`.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(from = "(super::RunKey, u32, Version, u16)", into = "(super::RunKey, u32, Version, u16)")]
pub struct PlannedRun {
    pub attempt: Attempt,
    /// The definition that it runs.
    pub version: Version,
    /// Index into `Body::nodes`.
    pub node: u16,
}

impl From<(super::RunKey, u32, Version, u16)> for PlannedRun {
    fn from((run, number, version, node): (super::RunKey, u32, Version, u16)) -> PlannedRun {
        PlannedRun { attempt: Attempt { run, number }, version, node }
    }
}

impl From<PlannedRun> for (super::RunKey, u32, Version, u16) {
    fn from(planned: PlannedRun) -> Self {
        (planned.attempt.run, planned.attempt.number, planned.version, planned.node)
    }
}

/// A further attempt that is given to no node before `due`, a whole second at or after the end of its delay, as the
/// array `[run_key, attempt, version, due]`.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(from = "(super::RunKey, u32, Version, Second)", into = "(super::RunKey, u32, Version, Second)")]
pub struct DelayedRun {
    pub attempt: Attempt,
    /// The definition that it runs.
    pub version: Version,
    /// It is given to no node before.
    pub due: Second,
}

impl From<(super::RunKey, u32, Version, Second)> for DelayedRun {
    fn from((run, number, version, due): (super::RunKey, u32, Version, Second)) -> DelayedRun {
        DelayedRun { attempt: Attempt { run, number }, version, due }
    }
}

impl From<DelayedRun> for (super::RunKey, u32, Version, Second) {
    fn from(delayed: DelayedRun) -> Self {
        (delayed.attempt.run, delayed.attempt.number, delayed.version, delayed.due)
    }
}

/// A due run that was refused: `skipped` or `shed`.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct RefusedRun {
    pub run: super::RunKey,
    /// The definition by which it was due.
    pub version: Version,
    /// `Skipped` or `Shed`.
    pub state: RunState,
}

/// Due seconds of one job that are not run: they lie beyond the grace, or the job's `misfire` says so.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct MissedGap {
    pub cron_id: JobId,
    /// The definition by which the seconds were due.
    pub version: Version,
    /// The first due second.
    pub first: Second,
    /// The last due second.
    pub last: Second,
    /// How many due seconds there are, from `first` to `last`.
    pub count: u64,
    /// The counting stopped at a limit: there were at least `count`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub at_least: bool,
    /// Why they are not run.
    #[serde(default, skip_serializing_if = "MissedWhy::is_grace")]
    pub why: MissedWhy,
}

/// Why seconds were missed.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MissedWhy {
    /// The grace was over.
    #[default]
    Grace,
    /// One later second is run for all late ones (`misfire` is `once`).
    Once,
    /// The job is never run late (`misfire` is `skip`).
    Skip,
}

impl MissedWhy {
    fn is_grace(&self) -> bool {
        *self == MissedWhy::Grace
    }
}

/// The note that a job's row is about to be changed or deleted.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ChangeNote {
    pub cron_id: JobId,
    /// The version that the row will have; none: the row will be deleted.
    pub version: Option<Version>,
}

/// An entry as it is read back from the store.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StoredEntry {
    /// Later entries have larger ids.
    pub id: EntryId,
    /// As it was written.
    pub entry: Entry,
}

#[cfg(test)]
mod tests {
    use super::super::RunKey;
    use super::*;

    #[test]
    fn a_body_is_short_readable_json_and_reads_back() {
        let run = RunKey::scheduled(JobId(7), Second(1_700_000_000));
        let body = Body {
            nodes: vec![NodeId("ab".into())],
            runs: vec![PlannedRun { attempt: Attempt { run, number: 1 }, version: Version(3), node: 0 }],
            ..Body::default()
        };
        let text = serde_json::to_string(&body).unwrap();
        assert_eq!(text, r#"{"nodes":["ab"],"runs":[["7-1700000000",1,3,0]]}"#);
        assert_eq!(serde_json::from_str::<Body>(&text).unwrap(), body);
    }

    #[test]
    fn a_gap_that_an_earlier_version_wrote_is_one_beyond_the_grace() {
        let old = r#"{"cron_id":7,"version":1,"first":3,"last":5,"count":3}"#;
        let gap: MissedGap = serde_json::from_str(old).unwrap();
        assert_eq!((gap.why, serde_json::to_string(&gap).unwrap().as_str()), (MissedWhy::Grace, old));
        let new = serde_json::to_string(&MissedGap { why: MissedWhy::Once, ..gap }).unwrap();
        assert!(new.ends_with(r#","why":"once"}"#), "{new}");
    }
}
