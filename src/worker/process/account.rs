//! The users of the host, for runs as another user. /etc/passwd is read here; users of other directories (LDAP, SSSD, any
//! module of the C library) and the groups of all users are asked of the host's own `getent`, because a static binary
//! cannot load those modules.
//!
//! Not here: becoming the user (`launch`), and the thread that waits for `getent` (the pool's `accounts`).
//!
//! Invariants: no account has 4294967295 (minus one) as its user or group, because system calls take that number for
//! "leave it as it is". An answer is used for `KEEP_MS` at most, and at most `KEPT_MAX` are kept.

mod files;
mod getent;

use crate::core::time::bounds::USER_MS;
use crate::model::Mono;
use crate::worker::clock;
pub use files::Account;
use getent::{Getent, Silence};
use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, Mutex, PoisonError};

/// An account is used for so long; then it is looked up again. A question costs some milliseconds.
const KEEP_MS: u64 = 10_000;
/// A refusal is given again for so long: what hangs or fails is not asked at each run, and a new user need not wait.
const KEEP_REFUSAL_MS: u64 = 2_000;
/// The most users whose answers are kept.
const KEPT_MAX: usize = 1_000;
/// Of a user, the most groups: more do not fit into the argument of a launch (128 KiB).
const GROUPS_MAX: usize = 10_000;
/// A user, or why there is none to become.
pub type Answer = Result<Arc<Account>, String>;

/// The users that were looked up. The spawning threads share it.
#[derive(Debug, Default)]
pub struct Accounts {
    kept: Mutex<Kept>,
}

/// The answers, with the moments up to which they hold.
#[derive(Debug, Default)]
struct Kept {
    answers: BTreeMap<String, (Mono, Answer)>,
    /// When the directories were last given up.
    silent_at: Option<Mono>,
}

impl Accounts {
    /// The answer about a user that is still fresh; none where it must be looked up.
    pub fn kept(&self, user: &str) -> Option<Answer> {
        let now = clock::mono();
        self.locked(|kept| kept.answers.get(user).filter(|(until, _)| now < *until).map(|(_, answer)| answer.clone()))
    }

    /// Looks a user up by name, else by number. Blocks for `USER_MS` at the most: a run that has waited since a moment
    /// when the directories hung does not wait for them once more. Errors: there is no such user, or it cannot be known.
    pub fn look_up(&self, user: &str, waits_since: Mono) -> Answer {
        if let Some(answer) = self.kept(user) {
            return answer;
        }
        let hung_meanwhile = self.locked(|kept| kept.silent_at.is_some_and(|at| waits_since <= at));
        let mut getent =
            if hung_meanwhile { Getent::given_up() } else { Getent::until(clock::mono().plus_ms(USER_MS)) };
        let answer = find(user, &mut getent).map(Arc::new).map_err(|reason| format!("run_as {user}: {reason}"));
        let now = clock::mono();
        // What was found without the directories is to be asked again soon.
        let is_whole = answer.is_ok() && getent.silence.is_none();
        let until = now.plus_ms(if is_whole { KEEP_MS } else { KEEP_REFUSAL_MS });
        let hangs = getent.silence == Some(Silence::Hangs);
        let former = self.locked(|kept| {
            kept.keep(user, until, answer.clone(), now);
            if hangs && !hung_meanwhile { kept.silent_at.replace(now) } else { kept.silent_at.take_if(|_| is_whole) }
        });
        match former {
            None if hangs => log::warn!(
                "getent, which knows the host's users and groups, does not answer within {USER_MS} ms: runs as users who are not in \
                 {} fail, others have the groups of {} only",
                files::PASSWD,
                files::GROUP
            ),
            Some(_) if is_whole => log::info!("getent answers again"),
            _ => {}
        }
        answer
    }

    fn locked<T>(&self, act: impl FnOnce(&mut Kept) -> T) -> T {
        // Each answer is stored in one step, so a lock that a panic poisoned holds whole ones.
        act(&mut self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Kept {
    fn keep(&mut self, user: &str, until: Mono, answer: Answer, now: Mono) {
        if KEPT_MAX <= self.answers.len() && !self.answers.contains_key(user) {
            self.answers.retain(|_, (until, _)| now < *until);
        }
        if KEPT_MAX <= self.answers.len() && !self.answers.contains_key(user) {
            let oldest = self.answers.iter().min_by_key(|(_, (until, _))| *until).map(|(user, _)| user.clone());
            oldest.and_then(|user| self.answers.remove(&user));
        }
        self.answers.insert(user.into(), (until, answer));
    }
}

fn find(user: &str, getent: &mut Getent) -> Result<Account, String> {
    if user.starts_with('-') || user.contains(['\0', ':', '\n']) {
        return Err(
            "there is no such user: a name does not begin with '-', and has no colon or end of line in it".into()
        );
    }
    let is_local = files::account(user)?;
    let account = match is_local.clone() {
        Some(account) => account,
        None => getent.account(user)?,
    };
    // A login's groups are those that the C library finds, which may be more than /etc/group has, or others.
    let further = match (getent.groups(&account.name), is_local) {
        (Ok(groups), _) => groups,
        // As for a login, a directory that is away does not keep a local user out.
        (Err(_), Some(_)) => files::groups(account.name.as_bytes())?,
        (Err(reason), None) => return Err(reason),
    };
    with_groups(account, further)
}

fn with_groups(mut account: Account, further: Vec<u32>) -> Result<Account, String> {
    account.groups.extend(further.into_iter().filter(|gid| *gid != account.gid));
    match account.groups.len() {
        ..=GROUPS_MAX => Ok(account),
        count => Err(format!("the user has {count} groups: more than {GROUPS_MAX} cannot be given to a run")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(reason: &str) -> Answer {
        Err(reason.into())
    }

    #[test]
    fn the_answer_that_ends_first_makes_room_for_one_more() {
        let mut kept = Kept::default();
        for user in 0..KEPT_MAX as u64 {
            kept.keep(&user.to_string(), Mono(1_000 + user), refused("no"), Mono(0));
        }
        kept.keep("5", Mono(9_000), refused("again"), Mono(0));
        assert_eq!(kept.answers.len(), KEPT_MAX);
        kept.keep("new", Mono(9_000), refused("no"), Mono(0));
        assert_eq!(kept.answers.len(), KEPT_MAX);
        assert!(!kept.answers.contains_key("0") && kept.answers["5"].1 == refused("again"));
        kept.keep("newer", Mono(9_000), refused("no"), Mono(8_000));
        assert_eq!(kept.answers.len(), 3, "those that hold no longer are gone");
    }

    #[test]
    fn a_user_may_have_so_many_groups_and_no_more() {
        let with = |count: usize| {
            let account = Account { name: "a".into(), uid: 1, gid: 1, groups: vec![1], home: "/".into() };
            with_groups(account, (1..=count as u32).collect())
        };
        assert_eq!(with(GROUPS_MAX).map(|account| account.groups.len()), Ok(GROUPS_MAX), "its own counts once");
        assert!(with(GROUPS_MAX + 1).is_err_and(|reason| reason.contains("10001 groups")));
    }

    #[test]
    fn a_name_that_a_program_could_take_for_something_else_is_refused_before_it_is_asked_for() {
        for user in ["-1", "--help", "a:b", "a\nb", "a\0b"] {
            assert!(find(user, &mut Getent::given_up()).is_err_and(|reason| reason.contains("begin with")), "{user:?}");
        }
    }
}
