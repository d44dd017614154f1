//! Tests of the links between two ends in this process, over real sockets.

use super::*;
use crate::model::message::ToLeader;
use mio::Poll;

const CLIENT: LinkId = LinkId::Out(1);
const NOW: Mono = Mono(0);

/// An end that has this secret.
fn end(listener: Option<TcpListener>, secret: &str) -> Peers {
    let config = ClusterConfig { secret: Some(Secret(secret.into())), insecure: false };
    Peers::new(listener, &config, Key::of(&Secret(secret.into())))
}

/// A listening end and its address.
fn listening() -> (Peers, std::net::SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    (end(Some(listener), "secret"), address)
}

/// Two ends, of which the second dials the first.
fn dialling(poll: &Poll, secret: &str) -> [Peers; 2] {
    let (listening, address) = listening();
    let mut ends = [listening, end(None, secret)];
    ends[1].link(CLIENT, &Server(address.to_string().into()), poll.registry(), NOW).unwrap();
    ends
}

/// Lets both ends read and write until the condition holds of them.
fn go_on(ends: &mut [Peers; 2], poll: &Poll, is_done: impl Fn(&[Peers; 2]) -> bool) {
    for _ in 0..1_000_000 {
        if is_done(ends) {
            return;
        }
        for end in &mut *ends {
            end.accept(poll.registry(), NOW).unwrap();
            end.take_unfinished();
            end.on_ready(0, NOW);
        }
    }
    panic!("it does not come");
}

#[test]
fn a_link_that_says_much_is_gone_on_with_and_does_not_fill_the_memory() {
    const MESSAGES: u64 = 20 * TURN_MESSAGES_MAX as u64;
    let poll = Poll::new().unwrap();
    let mut ends = dialling(&poll, "secret");
    go_on(&mut ends, &poll, |ends| ends.iter().all(|end| end.heard_count() == 1));
    ends.iter_mut().for_each(|end| assert!(matches!(end.take_heard(), Some(Input::Linked(_)))));
    for request in 0..MESSAGES {
        ends[1].send(CLIENT, &Message::ToLeader(ToLeader::OutputRead { request, part: None }));
    }
    let mut next = 0;
    while next < MESSAGES {
        go_on(&mut ends, &poll, |ends| ends[0].heard_count() != 0);
        let count = ends[0].heard_count();
        // One read may bring that many beyond the limit.
        assert!(count < TURN_MESSAGES_MAX + (16 << 10) / 16, "{count}");
        assert!(count < TURN_MESSAGES_MAX || ends[0].has_unfinished());
        for _ in 0..count {
            match ends[0].take_heard() {
                Some(Input::Received(_, Message::ToLeader(ToLeader::OutputRead { request, .. }))) => {
                    assert_eq!(request, next, "each once, in order");
                    next += 1;
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn the_dialler_hears_that_its_secret_is_another() {
    let poll = Poll::new().unwrap();
    let mut ends = dialling(&poll, "another");
    go_on(&mut ends, &poll, |ends| ends[1].heard_count() == 1);
    let heard = ends[1].take_heard();
    assert!(matches!(heard, Some(Input::Unlinked(CLIENT, Gone::OtherSecret))), "{heard:?}");
    assert_eq!((ends[0].heard_count(), ends[0].peers.len()), (0, 0), "the listener's node does not hear of it");
}

#[test]
fn the_stores_secret_is_for_those_that_were_given_none() {
    let (kept, given) = (Secret("kept".into()), Secret("given".into()));
    for (secret, insecure, expect) in [(None, false, &kept), (Some(&given), false, &given), (None, true, &given)] {
        let config = ClusterConfig { secret: secret.cloned(), insecure };
        let mut peers = Peers::new(None, &config, Key::of(&given));
        peers.trust(&kept);
        assert_eq!(peers.key, Key::of(expect));
    }
}

#[test]
fn a_stranger_goes_when_its_time_is_over_or_many_others_come() {
    let poll = Poll::new().unwrap();
    let (mut peers, address) = listening();
    let mut strangers = Vec::new();
    for _ in 0..200 {
        strangers.push(std::net::TcpStream::connect(address).unwrap());
        peers.accept(poll.registry(), NOW).unwrap();
    }
    let (count, first) = (peers.peers.len(), *peers.peers.keys().next().unwrap());
    assert!(count < strangers.len() && first == strangers.len() - count, "{count} from {first} on");
    peers.housekeeping(NOW.plus_ms(PROVE_MS - 1));
    assert_eq!(peers.peers.len(), count);
    peers.housekeeping(NOW.plus_ms(PROVE_MS));
    assert!(peers.peers.is_empty() && peers.serials.is_empty());
    assert_eq!(peers.heard_count(), 0, "the node does not hear of them");
}

#[test]
fn strangers_beyond_those_of_a_turn_wait_for_the_next() {
    let poll = Poll::new().unwrap();
    let (mut peers, address) = listening();
    let connect = |_| std::net::TcpStream::connect(address).unwrap();
    let strangers: Vec<std::net::TcpStream> = (0..=ACCEPTS_A_TURN_MAX).map(connect).collect();
    assert_eq!(peers.accept(poll.registry(), NOW).unwrap(), Accepted::More, "there is one more");
    assert_eq!(peers.peers.len(), ACCEPTS_A_TURN_MAX);
    assert_eq!(peers.accept(poll.registry(), NOW).unwrap(), Accepted::All);
    assert_eq!(peers.peers.len(), strangers.len());
}
