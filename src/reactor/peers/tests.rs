//! Tests of the links between two ends in this process, over real sockets.

use super::*;
use crate::model::message::ToLeader;
use mio::Poll;

const CLIENT: LinkId = LinkId::Out(1);
const NOW: Mono = Mono(0);

fn config() -> ClusterConfig {
    ClusterConfig { secret: None, insecure: false }
}

/// A listening end and its address.
fn listening() -> (Peers, std::net::SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    (Peers::new(Some(listener), config()), address)
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
    let (listening, address) = listening();
    let mut ends = [listening, Peers::new(None, config())];
    ends[1].link(CLIENT, &Server(address.to_string().into()), poll.registry(), NOW).unwrap();
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
fn strangers_beyond_those_of_a_turn_wait_for_the_next() {
    let poll = Poll::new().unwrap();
    let (mut peers, address) = listening();
    let connect = |_| std::net::TcpStream::connect(address).unwrap();
    let strangers: Vec<std::net::TcpStream> = (0..=ACCEPTS_A_TURN_MAX).map(connect).collect();
    assert!(peers.accept(poll.registry(), NOW).unwrap(), "there is one more");
    assert_eq!(peers.peers.len(), ACCEPTS_A_TURN_MAX);
    assert!(!peers.accept(poll.registry(), NOW).unwrap());
    assert_eq!(peers.peers.len(), strangers.len());
}
