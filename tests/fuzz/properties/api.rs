//! Requests at the door and in the API: a caller gets what its level allows and no more, a command is well-formed, and a
//! refusal is an answer.
//!
//! The bytes are a request in short: `METHOD TARGET`, headers, an empty line, the body. What they lack is added, so that
//! all of them come as far as the API.

use serde_json::Value;
use wing_crontab::api::access::{Arrival, Door};
use wing_crontab::api::{command, denied};
use wing_crontab::model::Mono;
use wing_crontab::model::access::{AccessConfig, Caller, Host, Level, Networks, Proof, Tokens};
use wing_crontab::model::columns::{COLUMNS, Kind, new_job};
use wing_crontab::model::command::{Command, JobDraft};
use wing_crontab::model::job::parse_env;
use wing_crontab::model::value::Value as CellValue;
use wing_crontab::wire::http::{Parsed, Parser, Request, Response};

/// The token that may read, and the one that may operate.
const READS: &str = "fuzzed-reading-token";
const OPERATES: &str = "fuzzed-operating-token";

pub fn check(bytes: &[u8]) {
    let Some(request) = request(bytes) else { return };
    for (from, is_allowed) in [("127.0.0.1", true), ("192.0.2.1", false)] {
        let arrival = Arrival::Tcp { from: from.parse().unwrap(), to: "127.0.0.1".parse().unwrap(), is_tls: false };
        match door().admit(&request, arrival, Mono(1_000_000_000)) {
            Ok(caller) => {
                assert!(caller.token.is_some() || is_allowed, "{from} came in without a token");
                assert!(caller.token.is_none() || caller.level <= Level::Operate);
                assert!(caller.by != Proof::Address || request.headers.all("origin").all(is_own_origin));
                asks(&request, &caller);
            }
            Err(refusal) => is_an_answer(denied(refusal)),
        }
    }
    let caller = |level, by| Caller { name: "somebody".into(), level, by, token: None };
    // What is no command of this caller's is none of anybody's.
    if !asks(&request, &caller(Level::Admin, Proof::Token)) {
        return;
    }
    for level in [Level::Read, Level::Operate, Level::Admin] {
        for by in [Proof::Token, Proof::Password, Proof::Address, Proof::Socket] {
            asks(&request, &caller(level, by));
        }
    }
}

fn request(bytes: &[u8]) -> Option<Request> {
    let end = bytes.windows(2).position(|two| two == b"\n\n");
    let (head, body) = end.map_or((bytes, &[][..]), |end| (&bytes[..end], &bytes[end + 2..]));
    let mut lines = head.split(|byte| *byte == b'\n');
    let mut text = [lines.next()?, b" HTTP/1.1\r\nHost: localhost\r\n"].concat();
    lines.for_each(|line| text.extend([line, b"\r\n"].concat()));
    if !body.is_empty() {
        text.extend(format!("Content-Length: {}\r\n", body.len()).bytes());
    }
    text.extend([b"\r\n", body].concat());
    let mut parser = Parser::default();
    loop {
        match parser.next(&mut text) {
            Ok(Parsed::Request(request)) => return Some(request),
            Ok(Parsed::Body { .. }) => {}
            Ok(Parsed::Partial) | Err(_) => return None,
        }
    }
}

fn door() -> Door {
    let tokens = Tokens::parse(&format!("reader read {READS}\noperator operate {OPERATES}\n")).unwrap();
    let trusted_proxies = Networks::parse(&["10.0.0.0/8".into()]).unwrap();
    let hosts = Host::without_port("wing.example.com").into_iter().collect();
    let allow = Networks::loopback();
    Door::new(AccessConfig { tokens, allow, trusted_proxies, hosts, ..AccessConfig::default() }, 0)
}

/// Whether the origin is that of the server, which every request here calls `localhost`.
fn is_own_origin(origin: &str) -> bool {
    let own = [("http://localhost", 80), ("https://localhost", 443)];
    own.iter().any(|(own, default_port)| {
        let port = origin.to_ascii_lowercase().strip_prefix(own).map(String::from);
        port.is_some_and(|port| port.is_empty() || port.strip_prefix(':').map(str::parse) == Some(Ok(*default_port)))
    })
}

/// Whether the caller's request is a command.
fn asks(request: &Request, caller: &Caller) -> bool {
    let command = match command(request, caller) {
        Ok(command) => command,
        Err(refusal) => {
            is_an_answer(refusal);
            return false;
        }
    };
    assert!(caller.level != Level::Read || command.is_read(), "a reader may do {command:?}");
    assert!(caller.by != Proof::Password || command.is_read(), "a password may do {command:?}");
    let is_definition = matches!(command, Command::AddJob(..) | Command::UpdateJob(..) | Command::DeleteJob(_));
    assert!(caller.level == Level::Admin || !is_definition, "{command:?} takes an admin");
    assert!(command.is_read() || request.method == "POST" || request.method == "GET", "{} does it", request.method);
    if caller.by == Proof::Address && request.method == "GET" && !command.is_read() {
        let is_browser = request.headers.iter().any(|(name, value)| {
            let is_agent = name == "user-agent" && value.starts_with("Mozilla/");
            is_agent || name.starts_with("sec-") || ["origin", "referer"].contains(&name)
        });
        assert!(!is_browser, "a browser changes something by GET: {request:?}");
    }
    // Nodes that do not lead forward it.
    let text = serde_json::to_string(&command).expect("a command can be written");
    assert_eq!(serde_json::from_str::<Command>(&text).expect("a command can be read"), command);
    if let Command::AddJob(draft, _) | Command::UpdateJob(_, draft) = command {
        has_only_values_of_its_columns(draft);
    }
    true
}

/// What a draft sets is what the table of columns allows.
fn has_only_values_of_its_columns(draft: JobDraft) {
    let mut job = new_job();
    draft.apply(&mut job);
    assert!(parse_env(&job.env).is_ok() && !job.command.contains('\0'));
    assert!(!job.cron_set.trim().is_empty() && !job.command.trim().is_empty());
    assert!(job.start_time == 0 || job.end_time == 0 || job.start_time < job.end_time);
    for column in COLUMNS.iter().filter(|column| column.is_written()) {
        let fits = match (column.kind, column.value(&job)) {
            (Kind::Line { chars_max }, CellValue::Text(text)) => {
                text.trim() == text && text.chars().count() <= chars_max
            }
            (Kind::Lines { chars_max }, CellValue::Text(text)) => {
                !text.contains("\r\n") && text.chars().count() <= chars_max
            }
            (Kind::Text { chars_max } | Kind::Env { chars_max }, CellValue::Text(text)) => {
                text.chars().count() <= chars_max
            }
            (Kind::Path { chars_max }, CellValue::Text(text)) => {
                (text.is_empty() || text.starts_with('/')) && text.chars().count() <= chars_max
            }
            (Kind::Word(words), CellValue::Text(text)) => words.contains(&&*text),
            (Kind::Flag, CellValue::Flag(_)) => true,
            (Kind::Whole { max, .. } | Kind::Seconds { max }, CellValue::Number(number)) => number <= max,
            (Kind::Time, CellValue::Number(_)) => true,
            _ => false,
        };
        assert!(fits, "{}: {:?}", column.name(), column.value(&job));
    }
}

/// An answer that was made here has a code, a message, and headers of one line.
fn is_an_answer(response: Response) {
    assert!(response.headers.iter().all(|(_, value)| !value.contains(['\r', '\n'])), "{:?}", response.headers);
    if response.status == 204 {
        return assert!(response.body.is_empty());
    }
    let body: Value = serde_json::from_slice(&response.body).expect("an answer is JSON");
    assert_eq!(body["code"], response.status);
    assert!(body["message"].is_string());
}
