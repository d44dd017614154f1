//! Tests of the election, step by step: they poll it as a node does, and answer it as Consul does.

use super::*;
use crate::core::Lender;
use crate::core::io::Effect;
use crate::core::time::bounds::{CHECK_TTL_SECS, CONSUL_CALL_MS, LOCK_STALE_MS};
use crate::model::{Epoch, Second};

const ALL: Standing = Standing { is_leader: false, can_lead: true, can_depose: true };

fn at(ms: u64) -> Now {
    Now { mono: Mono(0).plus_ms(ms), ..Now::default() }
}

fn value(node: &str) -> LockValue {
    LockValue {
        epoch: Epoch(1),
        tick: Second(1),
        server: Server(node.into()),
        node_id: NodeId(node.into()),
        incarnation: Incarnation(0),
    }
}

/// The election's present statements to Consul, without those about its registration and session. Each succeeds.
fn asked(election: &mut Election, standing: Standing, now: Now) -> Vec<String> {
    let mut lender = Lender::default();
    let mut asked = Vec::new();
    loop {
        election.poll(standing, || value("own"), &mut lender.at(now));
        let Some(effect) = lender.fx.take() else { return asked };
        let Effect::Work(id, Work::Consul(consul)) = effect else { continue };
        let answer = match &consul {
            Consul::CreateSession => ConsulAnswer::Session("ours".into()),
            Consul::Acquire { .. } => ConsulAnswer::Acquired(true),
            _ => ConsulAnswer::Done,
        };
        let name = format!("{consul:?}");
        let name = name.split([' ', '{']).next().unwrap_or_default().to_string();
        if !["Register", "Pass", "CreateSession"].contains(&name.as_str()) {
            asked.push(name);
        }
        election.on_consul(id, Ok(answer), &mut lender.at(now));
    }
}

/// The watch answers: that session of that node holds the lock.
fn seen(election: &mut Election, session: Option<&str>, node: &str, now: Now) {
    let id = *election.lock.watch.insert(WorkId(1_000_000));
    let lock = LockState { index: 1, session: session.map(String::from), value: Some(value(node)) };
    election.on_watched(id, Ok(lock), now);
}

fn holder() -> Election {
    let mut election = election(OWN);
    assert!(asked(&mut election, ALL, at(0)).is_empty(), "nothing is known of the lock yet");
    seen(&mut election, None, "own", at(0));
    assert_eq!(asked(&mut election, ALL, at(0)), ["Acquire"]);
    assert!(election.may_lead(at(0)));
    election
}

#[test]
fn a_leader_that_abstains_for_a_time_releases_the_lock_and_takes_it_again_only_after_that() {
    let mut election = holder();
    election.abstain_for(10_000, at(1_000));
    assert!(!election.may_lead(at(1_000)), "it may lead while it abstains");
    assert_eq!(asked(&mut election, ALL, at(1_000)), ["Release"]);
    seen(&mut election, None, "own", at(2_000));
    assert!(asked(&mut election, ALL, at(10_999)).is_empty());
    assert_eq!(asked(&mut election, ALL, at(11_000)), ["Acquire"]);
}

#[test]
fn a_node_that_cannot_lead_leaves_the_lock_to_others() {
    let unable = Standing { can_lead: false, can_depose: false, ..ALL };
    let mut election = holder();
    assert_eq!(asked(&mut election, unable, at(1_000)), ["Release"]);
    seen(&mut election, None, "own", at(2_000));
    assert!(asked(&mut election, unable, at(60_000)).is_empty());
    assert_eq!(asked(&mut election, ALL, at(60_000)), ["Acquire"]);
}

#[test]
fn a_leader_that_stands_still_is_deposed_only_by_a_node_that_has_had_the_store_for_a_while() {
    let fresh = Standing { can_depose: false, ..ALL };
    let mut election = election(OWN);
    asked(&mut election, ALL, at(0));
    seen(&mut election, Some("theirs"), "other", at(0));
    seen(&mut election, Some("theirs"), "other", at(LOCK_STALE_MS));
    assert!(asked(&mut election, fresh, at(LOCK_STALE_MS)).is_empty());
    assert_eq!(asked(&mut election, ALL, at(LOCK_STALE_MS)), ["DestroySession"]);
    // A leader that is known to be dead is deposed by any node.
    seen(&mut election, Some("theirs"), "other", at(LOCK_STALE_MS));
    election.suspect_dead(&Server("other".into()));
    assert_eq!(asked(&mut election, fresh, at(LOCK_STALE_MS)), ["DestroySession"]);
}

const OWN: (&str, &str, u64) = ("127.0.0.1:1", "own", 5);

fn election((server, node_id, incarnation): (&str, &str, u64)) -> Election {
    Election::new(Server(server.into()), NodeId(node_id.into()), Incarnation(incarnation))
}

fn lock((server, node_id, incarnation): (&str, &str, u64), tick: i64) -> LockState {
    let value = LockValue {
        epoch: Epoch(1),
        tick: Second(tick),
        server: Server(server.into()),
        node_id: NodeId(node_id.into()),
        incarnation: Incarnation(incarnation),
    };
    LockState { index: tick as u64, session: Some("theirs".into()), value: Some(value) }
}

/// The statements of the election while the lock's holder writes so many values, and why the node has to end, if it has
/// to.
fn watched(election: &mut Election, holder: (&str, &str, u64), values: i64) -> (Vec<String>, Option<String>) {
    let (mut lender, now, mut asked) = (Lender::default(), Now::default(), Vec::new());
    for tick in 0..=values {
        election.poll(ALL, || unreachable!("it does not hold the lock"), &mut lender.at(now));
        while let Some(effect) = lender.fx.take() {
            match effect {
                Effect::Work(id, Work::Watch { .. }) if tick < values => {
                    election.on_watched(id, Ok(lock(holder, tick)), now);
                }
                Effect::Work(_, Work::Consul(statement)) => asked.push(format!("{statement:?}")),
                _ => {}
            }
        }
    }
    (asked, election.take_conflict())
}

#[track_caller]
fn check(own: (&str, &str, u64), leader: (&str, &str, u64), reason: Option<&str>) {
    let mut election = election(own);
    let (asked, conflict) = watched(&mut election, leader, 3);
    match (reason, conflict) {
        (None, None) => assert_eq!(asked, ["Register { is_leader: false }"]),
        (Some(reason), Some(conflict)) => {
            assert!(conflict.contains(reason), "{conflict}");
            assert!(asked.is_empty() && election.has_left(), "it has touched the other's registration: {asked:?}");
        }
        (_, conflict) => panic!("{conflict:?}"),
    }
}

#[test]
fn a_node_does_not_take_part_where_the_leader_has_its_address_or_id_or_cannot_reach_it() {
    check(OWN, ("127.0.0.1:2", "b", 1), None);
    check(("10.0.0.1:1", "own", 5), ("10.0.0.2:1", "b", 1), None);
    check(OWN, ("127.0.0.1:1", "own", 4), None);
    check(OWN, ("127.0.0.1:1", "own", 6), Some("was data_dir copied"));
    check(OWN, ("127.0.0.1:1", "b", 1), Some("bind_address of its own"));
    check(OWN, ("127.0.0.1:2", "own", 1), Some("was data_dir copied"));
    check(OWN, ("10.0.0.2:1", "b", 1), Some("from this host only"));
}

#[test]
fn a_dead_leader_keeps_no_node_from_taking_part() {
    let mut election = election(OWN);
    let dead = ("127.0.0.1:1", "b", 1);
    assert_eq!(watched(&mut election, dead, 2).1, None, "one late write does not mean that it lives");
    let (mut lender, later) = (Lender::default(), Now { mono: Mono(0).plus_ms(LOCK_STALE_MS), ..Now::default() });
    let watch = election.lock.watch.unwrap();
    election.on_watched(watch, Ok(lock(dead, 1)), later);
    election.poll(ALL, || unreachable!("it does not hold the lock"), &mut lender.at(later));
    let asked: Vec<Effect> = std::iter::from_fn(|| lender.fx.take()).collect();
    let is_register = |effect: &Effect| matches!(effect, Effect::Work(_, Work::Consul(Consul::Register { .. })));
    assert!(asked.iter().any(is_register), "{asked:?}");
}

/// The lock as the node wrote it before its restart.
fn before_restart() -> LockState {
    LockState { index: 1, session: Some("before the restart".into()), ..lock(("127.0.0.1:1", "own", 1), 1) }
}

#[test]
fn a_watch_that_tells_of_the_free_lock_before_the_answer_to_destroying_its_session_counts() {
    let (mut lender, now) = (Lender::default(), at(0));
    let mut election = election(OWN);
    // It is registered and has a session, and sees its own lock from before the restart.
    seen(&mut election, None, "other", now);
    assert!(asked(&mut election, Standing { can_lead: false, ..ALL }, now).is_empty());
    election.lock.watch = Some(WorkId(1_000_000));
    election.on_watched(WorkId(1_000_000), Ok(before_restart()), now);
    election.poll(ALL, || value("own"), &mut lender.at(now));
    let id = std::iter::from_fn(|| lender.fx.take()).find_map(|effect| match effect {
        Effect::Work(id, Work::Consul(Consul::DestroySession { .. })) => Some(id),
        _ => None,
    });
    seen(&mut election, None, "own", now);
    election.on_consul(id.unwrap(), Ok(ConsulAnswer::Done), &mut lender.at(now));
    assert_eq!(asked(&mut election, ALL, now), ["Acquire"]);
}

#[test]
fn a_node_that_cannot_lead_yet_destroys_its_former_session_and_leaves_the_lock_to_others() {
    let unable = Standing { can_lead: false, can_depose: false, ..ALL };
    let mut election = election(OWN);
    asked(&mut election, unable, at(0));
    election.lock.watch = Some(WorkId(1_000_000));
    election.on_watched(WorkId(1_000_000), Ok(before_restart()), at(0));
    assert_eq!(asked(&mut election, unable, at(0)), ["DestroySession"]);
    seen(&mut election, None, "own", at(1_000));
    assert!(asked(&mut election, unable, at(1_000)).is_empty());
    assert_eq!(asked(&mut election, ALL, at(2_000)), ["Acquire"]);
}

#[test]
fn an_agent_that_makes_no_session_is_asked_less_and_less_often_and_warned_of_once() {
    let mut election = election(OWN);
    seen(&mut election, None, "own", at(0));
    let (mut lender, mut sessions, mut warnings) = (Lender::default(), 0, 0);
    for now in (0..10_000).step_by(10).map(at) {
        election.poll(ALL, || value("own"), &mut lender.at(now));
        while let Some(effect) = lender.fx.take() {
            match effect {
                Effect::Work(id, Work::Consul(Consul::CreateSession)) => {
                    sessions += 1;
                    let unknown = ConsulError::Unknown("Check 'serfHealth' is in critical state".into());
                    election.on_consul(id, Err(unknown), &mut lender.at(now));
                }
                Effect::Work(id, Work::Consul(_)) => {
                    election.on_consul(id, Ok(ConsulAnswer::Done), &mut lender.at(now));
                }
                Effect::Notice(notice) => warnings += usize::from(notice.level == log::Level::Warn),
                _ => {}
            }
            election.poll(ALL, || value("own"), &mut lender.at(now));
        }
    }
    assert!(!election.is_well());
    assert_eq!((sessions, warnings), (9, 1), "after 0, 0.1, 0.3, 0.7, 1.5, 3.1, 5.1, 7.1 and 9.1 s");
}

/// The statement that the election sends now, beside its watch.
fn sent(election: &mut Election, now: Now) -> Option<(WorkId, Consul)> {
    let mut lender = Lender::default();
    election.poll(ALL, || value("own"), &mut lender.at(now));
    std::iter::from_fn(|| lender.fx.take()).find_map(|effect| match effect {
        Effect::Work(id, Work::Consul(consul)) => Some((id, consul)),
        _ => None,
    })
}

#[test]
fn a_call_that_hangs_for_as_long_as_it_may_costs_no_leader_its_check() {
    let mut election = holder();
    // The check was passed at 0. The worst moment for another call is right before it is passed again.
    let worst = at(CHECK_PASS_MS - 1);
    election.renew_value(worst);
    let (id, _) = sent(&mut election, worst).expect("the value is written");
    let failed = at(CHECK_PASS_MS - 1 + CONSUL_CALL_MS);
    let silent = Err(ConsulError::Unavailable("it does not answer".into()));
    election.on_consul(id, silent, &mut Lender::default().at(failed));
    assert!(sent(&mut election, failed).is_none());
    let (timer, next) = Timers::first(failed, |timers| election.timers(timers)).expect("it tries again");
    assert_eq!(timer, Timer::ConsulRetry);
    let next = Now { mono: next, ..Now::default() };
    assert!(matches!(sent(&mut election, next), Some((_, Consul::Pass))), "the check goes first");
    assert!(next.mono < at(CHECK_TTL_SECS * 1_000).mono, "the check has failed by then, and the lock is lost");
}
