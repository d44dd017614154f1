//! The Consul client, tested with a real Consul.

mod support;

use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpListener;
use support::{consul, wait_for, wait_to_see};
use wing_crontab::core::io::ports::{Consul, ConsulAnswer, ConsulError, LockState, LockValue};
use wing_crontab::model::config::{ConsulConfig, Secret};
use wing_crontab::model::{Epoch, Incarnation, NodeId, Second, Server};
use wing_crontab::worker::consul::ConsulClient;

fn config(address: &str) -> ConsulConfig {
    ConsulConfig { address: address.into(), tls: None, token: None, token_file: None }
}

fn client(agent: &consul::Agent, name: &str, server: &str) -> ConsulClient {
    ConsulClient::new(&config(&agent.address()), name, &format!("{name}/lock"), &Server(server.into()))
}

fn value(tick: i64) -> LockValue {
    LockValue {
        epoch: Epoch(3),
        tick: Second(tick),
        server: Server("127.0.0.1:9991".into()),
        node_id: NodeId("ab".into()),
        incarnation: Incarnation(7),
    }
}

/// Registers, passes the check, and makes a session.
fn session(client: &ConsulClient) -> String {
    assert_eq!(client.carry_out(&Consul::Register { is_leader: false }), Ok(ConsulAnswer::Done));
    assert_eq!(client.carry_out(&Consul::Pass), Ok(ConsulAnswer::Done));
    match client.carry_out(&Consul::CreateSession) {
        Ok(ConsulAnswer::Session(session)) => session,
        other => panic!("{other:?}"),
    }
}

fn acquire(client: &ConsulClient, session: &str, tick: i64) -> Result<ConsulAnswer, ConsulError> {
    client.carry_out(&Consul::Acquire { session: session.into(), value: value(tick) })
}

#[test]
fn a_service_is_registered_with_its_tag_and_keeps_its_session_when_the_tag_changes() {
    let Some(agent) = consul::agent() else { return };
    let name = consul::name();
    let client = client(agent, &name, "127.0.0.1:9991");
    let session = session(&client);
    assert_eq!(acquire(&client, &session, 1), Ok(ConsulAnswer::Acquired(true)));
    for is_leader in [true, false, true] {
        assert_eq!(client.carry_out(&Consul::Register { is_leader }), Ok(ConsulAnswer::Done));
        let services = agent.service(&name);
        assert_eq!(services.len(), 1);
        let service = &services[0]["Service"];
        assert_eq!((service["Address"].as_str(), service["Port"].as_u64()), (Some("127.0.0.1"), Some(9991)));
        assert_eq!(service["Tags"][0], format!("isleader:{is_leader}"));
        assert_eq!(acquire(&client, &session, 2), Ok(ConsulAnswer::Acquired(true)), "the session lives");
    }
}

#[test]
fn the_second_client_sees_the_lock_of_the_first_and_gets_it_when_the_first_leaves() {
    let Some(agent) = consul::agent() else { return };
    let name = consul::name();
    let (first, second) = (client(agent, &name, "127.0.0.1:9991"), client(agent, &name, "127.0.0.1:9992"));
    let nothing = first.watch(0, 100).unwrap();
    assert_eq!((nothing.session, nothing.value), (None, None));
    let (mine, theirs) = (session(&first), session(&second));
    assert_eq!(acquire(&first, &mine, 5), Ok(ConsulAnswer::Acquired(true)));
    assert_eq!(acquire(&second, &theirs, 5), Ok(ConsulAnswer::Acquired(false)));
    let seen = second.watch(0, 1_000).unwrap();
    assert_eq!((seen.session.as_ref(), seen.value), (Some(&mine), Some(value(5))));
    assert_eq!(acquire(&first, &mine, 6), Ok(ConsulAnswer::Acquired(true)));
    let seen = second.watch(seen.index, 10_000).unwrap();
    assert_eq!(seen.value, Some(value(6)), "a new value wakes the watch");
    let watching = std::thread::scope(|scope| {
        let watching = scope.spawn(|| second.watch(seen.index, 20_000));
        assert_eq!(first.carry_out(&Consul::Leave { session: Some(mine.clone()) }), Ok(ConsulAnswer::Done));
        watching.join().unwrap()
    });
    assert_eq!(watching.unwrap().session, None, "the end of the session wakes the watch");
    assert_eq!(acquire(&second, &theirs, 7), Ok(ConsulAnswer::Acquired(true)), "there is no lock-delay");
    assert_eq!(agent.service(&name).len(), 1, "the first is deregistered");
    assert!(matches!(acquire(&first, &mine, 8), Err(ConsulError::Unknown(_))), "the session of the first is gone");
}

#[test]
fn a_session_ends_when_its_check_is_not_passed_or_when_another_destroys_it() {
    let Some(agent) = consul::agent() else { return };
    let name = consul::name();
    let client = client(agent, &name, "127.0.0.1:9991");
    let first = session(&client);
    assert_eq!(acquire(&client, &first, 1), Ok(ConsulAnswer::Acquired(true)));
    let key = format!("{name}/lock");
    // No call passes the check, so the lock is free after the check's time to live.
    let is_free = |lock: &Option<(Option<String>, Value)>| lock.as_ref().is_some_and(|(session, _)| session.is_none());
    wait_to_see("a free lock", || agent.lock(&key), is_free);
    assert!(matches!(acquire(&client, &first, 2), Err(ConsulError::Unknown(_))));
    assert!(matches!(client.carry_out(&Consul::CreateSession), Err(ConsulError::Unknown(_))), "the check is critical");
    let second = session(&client);
    assert_eq!(acquire(&client, &second, 3), Ok(ConsulAnswer::Acquired(true)));
    assert_eq!(client.carry_out(&Consul::DestroySession { session: second.clone() }), Ok(ConsulAnswer::Done));
    assert_eq!(agent.lock(&key).unwrap().0, None);
    assert!(matches!(acquire(&client, &second, 4), Err(ConsulError::Unknown(_))));
}

#[test]
fn a_client_registers_again_with_an_agent_that_was_restarted() {
    let Some(mut agent) = consul::own_agent() else { return };
    let name = consul::name();
    let client = client(&agent, &name, "127.0.0.1:9991");
    let old = session(&client);
    assert_eq!(acquire(&client, &old, 1), Ok(ConsulAnswer::Acquired(true)));
    let index = client.watch(0, 100).unwrap().index;
    agent.stop();
    assert!(matches!(client.carry_out(&Consul::Pass), Err(ConsulError::Unavailable(_))));
    assert!(matches!(client.watch(index, 100), Err(ConsulError::Unavailable(_))));
    agent.start();
    assert!(matches!(client.carry_out(&Consul::Pass), Err(ConsulError::Unknown(_))));
    assert!(matches!(acquire(&client, &old, 2), Err(ConsulError::Unknown(_))));
    // A server that has just started makes no session before it knows its own health check.
    let new = wait_for("a session", || {
        client.carry_out(&Consul::Register { is_leader: true }).ok()?;
        match client.carry_out(&Consul::CreateSession) {
            Ok(ConsulAnswer::Session(session)) => Some(session),
            _ => None,
        }
    });
    assert_eq!(acquire(&client, &new, 3), Ok(ConsulAnswer::Acquired(true)));
    let sees_it =
        |lock: &Result<LockState, ConsulError>| lock.as_ref().is_ok_and(|lock| lock.session.as_ref() == Some(&new));
    wait_to_see("the watch sees the new lock", || client.watch(index, 100), sees_it).expect("it was seen");
}

/// A server that takes one request, remembers it, and answers `answer`.
fn once(answer: impl Into<String>) -> (String, std::thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, answer) = (listener.local_addr().unwrap().to_string(), answer.into());
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = vec![0; 4_096];
        let count = stream.read(&mut request).unwrap();
        stream.write_all(answer.as_bytes()).unwrap();
        String::from_utf8_lossy(&request[..count]).into_owned()
    });
    (address, thread)
}

#[test]
fn the_token_goes_into_a_header_and_into_no_error() {
    let (address, thread) =
        once("HTTP/1.1 403 Forbidden\r\nContent-Length: 17\r\nConnection: close\r\n\r\nPermission denied");
    let config = ConsulConfig { token: Some(Secret("its-token".into())), ..config(&address) };
    let client = ConsulClient::new(&config, "service", "lock", &Server("127.0.0.1:9991".into()));
    let error = client.carry_out(&Consul::Pass).unwrap_err();
    let request = thread.join().unwrap();
    assert!(request.to_ascii_lowercase().contains("\r\nx-consul-token: its-token\r\n"), "{request}");
    let text = format!("{error:?} {client:?}");
    assert!(text.contains("403: Permission denied") && !text.contains("its-token"), "{text}");
}

#[test]
fn the_token_follows_no_redirect() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    other.set_nonblocking(true).unwrap();
    let target = other.local_addr().unwrap();
    let answer = format!(
        "HTTP/1.1 307 Elsewhere\r\nLocation: http://{target}/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    let (address, thread) = once(answer);
    let config = ConsulConfig { token: Some(Secret("its-token".into())), ..config(&address) };
    let client = ConsulClient::new(&config, "service", "lock", &Server("127.0.0.1:9991".into()));
    let error = client.carry_out(&Consul::Pass).unwrap_err();
    thread.join().unwrap();
    assert!(matches!(&error, ConsulError::Unavailable(why) if why.contains("answered 307")), "{error:?}");
    assert!(other.accept().is_err(), "nobody was asked there");
}

#[test]
fn an_agent_that_is_away_or_answers_rubbish_is_an_error_and_nothing_worse() {
    let address = format!("127.0.0.1:{}", support::free_port());
    let client = |address: &str| ConsulClient::new(&config(address), "service", "lock", &Server("127.0.0.1:1".into()));
    for work in
        [Consul::Pass, Consul::CreateSession, Consul::Register { is_leader: true }, Consul::Leave { session: None }]
    {
        let error = client(&address).carry_out(&work).unwrap_err();
        assert!(matches!(&error, ConsulError::Unavailable(why) if why.contains(&address)), "{error:?}");
    }
    for rubbish in ["rubbish\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\n[{]", ""] {
        let (address, thread) = once(rubbish);
        let lock = client(&address).watch(0, 10);
        assert!(matches!(lock, Err(ConsulError::Unavailable(_))), "{rubbish:?} gave {lock:?}");
        thread.join().unwrap();
    }
}
