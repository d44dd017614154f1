//! Plain http where https is spoken, and https where plain http is.

use crate::http::{ask, connect, read_all};
use crate::support::daemon::{Node, finish};
use crate::support::https::Https;
use crate::support::program;
use std::io::Write;
use std::process::Command;

#[test]
fn plain_http_is_told_what_this_port_speaks() {
    let Some(https) = Https::started("") else { return };
    let request = b"POST /cron/add HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nabcde";
    for bytes in [&b"GET /whoami HTTP/1.1\r\nHost: localhost\r\n\r\n"[..], request, b"G", b"\x00\x01", b"rubbish"] {
        let answer = ask(&https.node, bytes);
        assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
        assert!(answer.contains("\r\nConnection: close\r\n") && answer.contains("\"code\":400"), "{answer}");
        assert!(answer.contains("this port speaks https"), "{answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
    }
    let plain = format!("http://{}/whoami", https.node.api.address);
    let (code, said, errors) = finish(Command::new(program("curl").unwrap()).args(["-q", "-sS", &plain]));
    assert!(code == Some(0) && said.contains("this port speaks https"), "{said}{errors}");
    assert_eq!(ask(&https.node, b""), "", "who says nothing is told nothing");
    https.get("/whoami").ok();
}

#[test]
fn tls_on_the_plain_port_is_cut_and_told_in_the_log() {
    let node = Node::started("");
    let url = format!("https://{}/whoami", node.api.address);
    let mut clients = 0;
    if let Some(curl) = program("curl") {
        let (code, said, _) = finish(Command::new(curl).args(["-q", "-sSk", &url]));
        assert!(code == Some(35) && said.is_empty(), "{code:?} {said}");
        clients += 1;
    }
    for _ in clients..100 {
        let mut stream = connect(&node);
        stream.write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n").unwrap();
        assert_eq!(read_all(&mut stream), "", "no answer in another protocol");
    }
    node.wait_said("127.0.0.1 speaks TLS, and this port speaks plain http");
    node.wait_said("95 more connections were cut");
    assert_eq!(node.said().matches("speaks TLS").count(), 6, "{}", node.said());
    assert!(node.api.is_up());
}
