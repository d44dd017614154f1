//! Who may use the API: tokens and their levels, addresses, the Unix socket, other web sites.

use crate::http::ask;
use crate::support::daemon::{BINARY, Node, finish, run};
use crate::support::{program, wait_until};
use rustix::process::Signal;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::process::Command;

const ADMIN: &str = "wct_admin_0123456789abcdef";
const READER: &str = "wct_reader_0123456789abcdef";
const OPERATOR: &str = "wct_operator_0123456789abcdef";

/// A node that wants a token even from its own host.
fn closed_node() -> Node {
    let mut node = Node::new("http_allow = []\nhttp_tokens_file = \"tokens\"\n");
    let tokens = format!("# people\nboss admin {ADMIN}\neyes read {READER}\nhands operate {OPERATOR}\n");
    std::fs::write(node.path("tokens"), tokens).unwrap();
    node.launch();
    wait_until("the node answers", || node.api.try_get("/health").is_some_and(|reply| reply.status == 200));
    node
}

/// The status and the text of the answer.
fn send(node: &Node, line: &str, headers: &[&str]) -> (u16, String) {
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let answer = ask(
        node,
        format!("{line} HTTP/1.1\r\nHost: {}\r\n{headers}Content-Length: 0\r\n\r\n", node.api.address).as_bytes(),
    );
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.unwrap_or_else(|| panic!("{line}: {answer:?}")), answer)
}

fn status_by(node: &Node, token: &str, line: &str) -> u16 {
    send(node, line, &[&format!("Authorization: Bearer {token}")]).0
}

/// Asks by the node's Unix socket; gives curl's exit code and the answer.
fn by_socket(node: &Node, path: &str, uid: Option<u32>) -> (Option<i32>, String) {
    let socket = node.path("data/api.sock");
    let mut command = match uid {
        Some(uid) => {
            let mut command = Command::new("setpriv");
            command.args([format!("--reuid={uid}"), format!("--regid={uid}"), "--clear-groups".into(), "curl".into()]);
            command
        }
        None => Command::new("curl"),
    };
    let (code, answer, _) =
        finish(command.args(["-s", "--unix-socket"]).arg(socket).arg(format!("http://localhost{path}")));
    (code, answer)
}

#[test]
fn without_a_token_only_the_status_is_told_where_no_address_is_allowed() {
    let node = closed_node();
    for line in
        ["GET /cron/list", "POST /cron/run/1", "GET /cluster", "GET /whoami", "GET /nowhere", "GET /cron/stop/1"]
    {
        let (status, answer) = send(&node, line, &[]);
        assert_eq!(status, 403, "{answer}");
        assert!(answer.contains("http_tokens_file") && answer.contains("http_allow"), "{answer}");
    }
    assert_eq!(node.api.get("/health").ok(), serde_json::Value::Null);
    let (status, answer) = send(&node, "GET /health", &[&format!("Authorization: Bearer {READER}")]);
    assert!(status == 200 && answer.contains("role"), "{answer}");
}

#[test]
fn each_level_may_do_what_is_its_own() {
    let node = closed_node();
    let expect = [
        ("GET /cron/list", [200, 200, 200]),
        ("GET /whoami", [200, 200, 200]),
        ("POST /cluster/pause", [403, 200, 200]),
        ("POST /cluster/resume", [403, 200, 200]),
        ("POST /cron/stop/1", [403, 404, 404]),
        ("POST /cron/delete/1", [403, 403, 404]),
        ("POST /cron/add?cronSet=0+0+0+1+1+*&command=true", [403, 403, 200]),
    ];
    for (line, statuses) in expect {
        let seen = [READER, OPERATOR, ADMIN].map(|token| status_by(&node, token, line));
        assert_eq!(seen, statuses, "{line}");
    }
    let (_, answer) = send(&node, "GET /whoami", &[&format!("Authorization: Bearer {OPERATOR}")]);
    assert!(answer.contains("{\"name\":\"hands\",\"level\":\"operate\",\"by\":\"token\"}"), "{answer}");
    assert_eq!(status_by(&node, "wct_admin_0123456789abcdeg", "GET /cron/list"), 401);
}

#[test]
fn a_password_may_read_and_no_more() {
    let node = closed_node();
    let basic = |path: &str| {
        let url = format!("http://{}{path}", node.api.address);
        let user = format!("me:{ADMIN}");
        finish(Command::new("curl").args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "-u", &user, &url])).1
    };
    assert_eq!(basic("/cron/list"), "200");
    assert_eq!(basic("/cron/stop/1"), "403");
}

#[test]
fn a_token_from_the_program_works_once_the_daemon_is_told_and_ends_with_it() {
    let mut node = Node::new("http_allow = []\nhttp_tokens_file = \"tokens\"\n");
    let (code, made, note) = run(node.folder.path(), &["token", "new", "ci", "--level", "admin"]);
    assert!(code == Some(0) && note.contains("http_tokens_file"), "{note}");
    let [token, line]: [&str; 2] = made.lines().collect::<Vec<_>>().try_into().unwrap();
    std::fs::write(node.path("tokens"), "").unwrap();
    node.launch();
    wait_until("the node answers", || node.api.try_get("/health").is_some());
    assert_eq!(status_by(&node, token, "GET /whoami"), 401);
    std::fs::write(node.path("tokens"), line).unwrap();
    node.signal(Signal::HUP);
    wait_until("the token is in force", || status_by(&node, token, "GET /whoami") == 200);
    std::fs::write(node.path("tokens"), format!("{line}\nwrong\n")).unwrap();
    node.signal(Signal::HUP);
    node.wait_said("line 2: three words are expected");
    assert_eq!(status_by(&node, token, "GET /whoami"), 200, "a file with a mistake changes nothing");
    assert!(!node.said().contains(token) && !made.is_empty());
}

#[test]
fn the_stream_of_a_token_that_is_taken_out_ends() {
    let node = closed_node();
    let bearer = format!("Authorization: Bearer {ADMIN}");
    let (_, added) = send(&node, "POST /cron/add?cronSet=0+0+0+1+1+*&command=echo+first;sleep+60", &[&bearer]);
    assert!(added.contains("\"code\":200"), "{added}");
    let (_, run) = send(&node, "POST /cron/run/1", &[&bearer]);
    let key =
        run.split("run_key\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_else(|| panic!("{run}"));
    let mut stream = TcpStream::connect(&node.api.address).unwrap();
    write!(stream, "GET /run/output/{key}?follow=1 HTTP/1.0\r\nAuthorization: Bearer {READER}\r\n\r\n").unwrap();
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    assert!(lines.any(|line| line == "first"));
    std::fs::write(node.path("tokens"), format!("boss admin {ADMIN}\n")).unwrap();
    node.signal(Signal::HUP);
    let rest: Vec<String> = lines.collect();
    assert_eq!(rest, ["[this token is not in force any more]"]);
}

#[test]
fn who_guesses_tokens_is_slowed() {
    let node = closed_node();
    let statuses: Vec<u16> = (0..8).map(|_| status_by(&node, "wct_guess_0123456789", "GET /cron/list")).collect();
    assert_eq!(statuses[..6], [401; 6]);
    let (status, answer) = send(&node, "GET /cron/list", &[&format!("Authorization: Bearer {ADMIN}")]);
    assert!(status == 429 && answer.contains("\r\nRetry-After: "), "{answer}");
    wait_until("the right token is taken again", || status_by(&node, ADMIN, "GET /cron/list") == 200);
}

#[test]
fn the_socket_serves_root_and_the_daemons_user_and_nobody_else() {
    let node = closed_node();
    let socket = node.path("data/api.sock");
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let (code, answer) = by_socket(&node, "/whoami", None);
    assert!(code == Some(0) && answer.contains("\"level\":\"admin\",\"by\":\"socket\""), "{answer}");
    if rustix::process::geteuid().is_root() && program("setpriv").is_some() {
        // Even where the file's mode lets them connect.
        std::fs::set_permissions(node.folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::set_permissions(node.path("data"), PermissionsExt::from_mode(0o755)).unwrap();
        assert_eq!(by_socket(&node, "/whoami", Some(65_534)), (Some(7), String::new()));
        std::fs::set_permissions(&socket, PermissionsExt::from_mode(0o666)).unwrap();
        let (_, answer) = by_socket(&node, "/whoami", Some(65_534));
        assert!(answer.contains("user 65534 may not use this socket"), "{answer}");
    }
}

#[test]
fn the_socket_takes_the_place_of_what_is_there_and_goes_with_the_daemon() {
    let mut node = Node::new("");
    std::fs::create_dir(node.path("data")).unwrap();
    let (socket, target) = (node.path("data/api.sock"), node.path("target"));
    std::fs::write(&target, "untouched").unwrap();
    symlink(&target, &socket).unwrap();
    symlink(&target, node.path("data/api.sock.new")).unwrap();
    node.start();
    let is_socket = || std::fs::symlink_metadata(&socket).is_ok_and(|metadata| metadata.file_type().is_socket());
    assert!(is_socket() && std::fs::read_to_string(&target).unwrap() == "untouched");
    let former = node.daemon_pid();
    node.kill_daemon();
    node.wait_for_other_daemon(former);
    wait_until("the socket answers again", || by_socket(&node, "/whoami", None).0 == Some(0));
    node.stop();
    assert!(!socket.exists());
}

#[test]
fn a_web_page_of_another_site_is_refused_and_plain_clients_are_not() {
    let node = Node::started("");
    let id = node.api.add_idle("true", "");
    let is_stopped = || node.api.job(id)["stop"] == true;
    let stop = format!("GET /cron/stop/{id}");
    let agent = "User-Agent: Mozilla/5.0 (X11; Linux x86_64)";
    for headers in [
        &["Origin: http://evil.example"][..],
        &["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors"],
        &["Accept: image/avif,image/webp,*/*"],
        &["Referer: http://evil.example/"],
        &[agent, "Accept: */*"],
        &["Purpose: prefetch"],
    ] {
        assert_eq!(send(&node, &stop, headers).0, 403, "{headers:?}");
    }
    let host = format!("{stop} HTTP/1.1\r\nHost: evil.example\r\n\r\n");
    assert!(ask(&node, host.as_bytes()).starts_with("HTTP/1.1 403 "));
    assert!(!is_stopped());
    let answer = send(&node, &format!("POST /cron/stop/{id}"), &["Origin: http://evil.example"]);
    assert_eq!(answer.0, 403);
    let (code, _, said) =
        finish(Command::new("curl").args(["-fsS", &format!("http://{}/cron/stop/{id}", node.api.address)]));
    assert!(code == Some(0) && is_stopped(), "{said}");
}

#[test]
fn tokens_are_in_no_message() {
    let node = closed_node();
    let (_, summary, warnings) = finish(
        Command::new(BINARY).arg("--check-config").arg("--config").arg(node.config()).current_dir(node.folder.path()),
    );
    assert!(summary.contains("3 token(s)"), "{summary}");
    for text in [summary, warnings, node.said()] {
        assert!(!text.contains("0123456789abcdef"), "{text}");
    }
}
