//! What a command makes of a job's definition.
//!
//! Invariant: what cannot be a job is refused here, before anything is done about it.

use crate::core::jobs::scheduler::Scheduler;
use crate::core::ports::Change;
use crate::model::command::{CallError, Command, JobDraft, RequestKey};
use crate::model::{Job, JobId, Second};
use std::sync::Arc;

/// The job that a command is to change.
pub fn job_of(command: &Command) -> Option<JobId> {
    match command {
        Command::UpdateJob(id, _) | Command::StopJob(id) | Command::StartJob(id) | Command::DeleteJob(id) => Some(*id),
        _ => None,
    }
}

/// A job that is to be started and is not stopped stays as it is.
pub fn started_already(command: &Command, scheduler: &Scheduler) -> Option<Arc<Job>> {
    let Command::StartJob(id) = command else { return None };
    scheduler.job(*id).filter(|job| !job.stop).cloned()
}

/// What a command makes of the jobs as they are now.
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
            let job = defined(Job::default(), draft, scheduler)?;
            // A client's key is none of ours, whatever it looks like.
            let key = key.map_or_else(own_key, |key| RequestKey(format!("client:{}", key.0)));
            Change::Add(Job { version: job.version.next(), since, ..job }, key)
        }
        Command::UpdateJob(id, draft) => renewed(defined(old(id)?, draft, scheduler)?),
        Command::StopJob(id) => renewed(Job { stop: true, ..old(id)? }),
        Command::StartJob(id) => renewed(Job { stop: false, ..old(id)? }),
        Command::DeleteJob(id) => Change::Delete { id, version: old(id)?.version },
        _ => {
            return Err(CallError { status: 500, message: "this changes nothing".into() });
        }
    })
}

fn defined(old: Job, draft: JobDraft, scheduler: &Scheduler) -> Result<Job, CallError> {
    scheduler.check(&draft.cron_set).map_err(|error| CallError::bad(format!("cronSet: {error}")))?;
    Ok(Job {
        cron_set: draft.cron_set,
        command: draft.command,
        remark: draft.remark,
        stop: draft.stop,
        start_time: draft.start_time,
        end_time: draft.end_time,
        is_mutex: draft.is_mutex,
        lock_limit: draft.lock_limit.unwrap_or(old.lock_limit),
        misfire: draft.misfire.unwrap_or(old.misfire),
        on_lost: draft.on_lost.unwrap_or(old.on_lost),
        max_parallel: draft.max_parallel.unwrap_or(old.max_parallel),
        timeout: draft.timeout.unwrap_or(old.timeout),
        retry_times: draft.retry_times.unwrap_or(old.retry_times),
        retry_delay: draft.retry_delay.unwrap_or(old.retry_delay),
        run_as: draft.run_as.unwrap_or(old.run_as),
        work_dir: draft.work_dir.unwrap_or(old.work_dir),
        env: draft.env.unwrap_or(old.env),
        shell: draft.shell.unwrap_or(old.shell),
        node: draft.node.unwrap_or(old.node),
        jitter: draft.jitter.unwrap_or(old.jitter),
        id: old.id,
        version: old.version,
        since: Second::default(),
    })
}
