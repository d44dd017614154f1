//! app.toml and the tokens of the API: a text is taken or refused, always alike, in lines that name the file and tell no
//! secret.
//!
//! The bytes are app.toml and, behind a NUL, what `WING_HTTP_TOKENS` says. A secret in them is told by `~~` in it.

use std::path::Path;
use std::sync::LazyLock;
use wing_crontab::config::{parse, summary, warnings};
use wing_crontab::model::Wall;
use wing_crontab::model::access::{Tokens, line};

const FILE: &str = "fuzzed.toml";
/// Keys whose values nobody may read in a message.
const SECRETS: [&str; 3] = ["mysql_password", "consul_token", "cluster_secret"];

/// A folder with one time zone: to read all of a host's takes too long.
static ZONES: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("Utc"), utc()).unwrap();
    folder
});

pub fn check(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (text, tokens) = text.split_once('\0').unwrap_or((&text, ""));
    are_tokens_or_refused(tokens);
    // Files of the host are none of our business here.
    if ["_file", "http_tls"].iter().any(|key| text.contains(key)) && text.contains(['/', '\\']) {
        return;
    }
    let environment = |name: &str| match name {
        "TZDIR" => Some(ZONES.path().display().to_string()),
        "WING_HTTP_TOKENS" => Some(tokens.to_string()),
        _ => None,
    };
    let read = || parse(text, FILE, environment);
    let secrets = secrets(text, tokens);
    let tells_no_secret = |told: &str| assert!(!secrets.iter().any(|secret| told.contains(secret)), "{told}");
    match (read(), read()) {
        (Ok(config), Ok(again)) => {
            assert_eq!(format!("{config:?}"), format!("{again:?}"));
            let told =
                [vec![summary(&config), format!("{config:?}")], warnings(&config, Path::new(FILE), Wall(0))].concat();
            told.iter().for_each(|told| tells_no_secret(told));
        }
        (Err(error), Err(again)) => {
            assert_eq!(error, again);
            tells_no_secret(&error);
            assert!(error.lines().all(|line| line.starts_with(FILE)), "{error:?}");
            assert!(!error.contains(|letter: char| letter.is_control() && letter != '\n'), "{error:?}");
        }
        (one, other) => panic!("{one:?} and {other:?} of one text"),
    }
}

/// The texts that stand in a secret's place, and in no other.
fn secrets<'a>(text: &'a str, tokens: &'a str) -> Vec<&'a str> {
    let lines = text.lines().filter_map(|line| line.split_once('='));
    let values =
        lines.filter(|(key, _)| SECRETS.contains(&key.trim())).map(|(_, value)| value.trim().trim_matches('"'));
    let words = tokens.lines().filter_map(|line| line.split_whitespace().nth(2));
    let is_secret = |word: &&str| {
        word.contains("~~") && 6 < word.len() && text.matches(word).count() + tokens.matches(word).count() == 1
    };
    values.chain(words).filter(is_secret).collect()
}

/// Tokens are found by their texts, and are the same when their hashes are written instead.
fn are_tokens_or_refused(text: &str) {
    let Ok(tokens) = Tokens::parse(text) else { return };
    let mut hashed = String::new();
    for words in text.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<&str>>()) {
        let [name, level, secret] = *words.as_slice() else { continue };
        if name.starts_with('#') {
            continue;
        }
        if secret.starts_with("sha256:") {
            hashed.push_str(&format!("{name} {level} {secret}\n"));
            continue;
        }
        let found = tokens.find(secret.as_bytes()).expect("a token of the text is found");
        assert!(tokens.has(found));
        hashed.push_str(&line(name, level.parse().unwrap(), secret).expect("a token that was taken has a line"));
        hashed.push('\n');
    }
    assert_eq!(Tokens::parse(&hashed).as_ref(), Ok(&tokens));
}

/// A zone file with no rule.
fn utc() -> Vec<u8> {
    let counts = [0_u32, 0, 0, 0, 1, 4];
    let header =
        [b"TZif2".to_vec(), vec![0; 15], counts.iter().flat_map(|count| count.to_be_bytes()).collect()].concat();
    let block = [header, vec![0; 6], b"UTC\0".to_vec()].concat();
    [block.clone(), block, b"\nUTC0\n".to_vec()].concat()
}
