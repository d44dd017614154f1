//! Commands to definitions: which change of a job a command asks for.
//!
//! Not the checks of single parameters: those are the API's.
//!
//! Invariant: a definition whose schedule cannot match is an error here, before anything is stored.

use crate::core::io::ports::Change;
use crate::core::jobs::scheduler::Scheduler;
use crate::model::columns;
use crate::model::command::{CallError, Command, JobDraft, RequestKey};
use crate::model::{Job, JobId, Second};
use std::sync::Arc;

/// The existing job that a command changes; none where it adds one.
pub fn job_of(command: &Command) -> Option<JobId> {
    match command {
        Command::UpdateJob(id, _) | Command::StopJob(id) | Command::StartJob(id) | Command::DeleteJob(id) => Some(*id),
        _ => None,
    }
}

/// The job that a command is to start and that is not stopped; it stays as it is.
pub fn started_already(command: &Command, scheduler: &Scheduler) -> Option<Arc<Job>> {
    let Command::StartJob(id) = command else { return None };
    scheduler.job(*id).filter(|job| !job.stop).cloned()
}

/// The change that a command asks for, by the present jobs. `own_key` gives the request key where the client gave none;
/// `since` is the first second of the new definition. The error is for the client: an unknown job, or a schedule that
/// cannot match.
pub fn change(
    command: Command,
    own_key: impl FnOnce() -> RequestKey,
    scheduler: &Scheduler,
    since: Second,
) -> Result<Change, CallError> {
    let old = |id: JobId| scheduler.job(id).map(|job| Job::clone(job)).ok_or_else(|| CallError::unknown_job(id));
    let renewed = |job: Job| Change::Put(Job { version: job.version.next(), since, ..job });
    Ok(match command {
        Command::AddJob(draft, key) => {
            let job = defined(columns::new_job(), draft, scheduler)?;
            // The prefix keeps clients' keys apart from the leader's own.
            let key = key.map_or_else(own_key, |key| RequestKey(format!("client:{}", key.0)));
            Change::Add(Job { version: job.version.next(), since, ..job }, key)
        }
        Command::UpdateJob(id, draft) => renewed(defined(old(id)?, draft, scheduler)?),
        Command::StopJob(id) => renewed(Job { stop: true, ..old(id)? }),
        Command::StartJob(id) => renewed(Job { stop: false, ..old(id)? }),
        Command::DeleteJob(id) => Change::Delete { id, version: old(id)?.version },
        _ => {
            return Err(CallError { status: 500, message: "this command changes no job".into() });
        }
    })
}

fn defined(mut job: Job, draft: JobDraft, scheduler: &Scheduler) -> Result<Job, CallError> {
    scheduler.check(draft.text("cron_set")).map_err(|error| CallError::bad(format!("cronSet: {error}")))?;
    draft.apply(&mut job);
    Ok(job)
}
