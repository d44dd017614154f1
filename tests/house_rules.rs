//! The house rules, checked against the sources: which room may import which, where a name may stand, how long files may be.

#[path = "house_rules/sizes.rs"]
mod sizes;

use std::fs;
use std::path::Path;

/// A room, and those that it may import (beside itself).
const IMPORTS: [(&str, &[&str]); 6] = [
    ("model/", &[]),
    ("core/", &["model"]),
    ("wire/", &["model"]),
    ("api/", &["wire", "model"]),
    ("worker/", &["core", "model"]),
    ("reactor/", &["api", "core", "wire", "worker", "model"]),
];

/// A word, and the only places where it may stand.
const WORDS: [(&str, &[&str]); 13] = [
    ("mio::", &["reactor/"]),
    ("mysql::", &["worker/store/mysql/"]),
    ("rusqlite::", &["worker/store/sqlite/"]),
    ("ureq::", &["worker/consul.rs"]),
    ("process::Command", &["worker/process/"]),
    ("process::{Child", &["worker/process/"]),
    ("Instant::now", &["worker/clock.rs"]),
    ("SystemTime::now", &["worker/clock.rs"]),
    ("clock_gettime", &["worker/clock.rs"]),
    ("unsafe {", &["worker/process/"]),
    ("thread::sleep", &["worker/process/kill.rs", "worker/process/guardian.rs"]),
    ("thread::Builder", &["worker/"]),
    ("unwrap()", &[]),
];

/// What the pure rooms may not touch.
const IMPURE: [&str; 9] =
    ["std::thread", "std::net::Tcp", "std::fs", "std::io", "Mutex::new", "HashMap", "HashSet", "RwLock", "panic!("];

/// Every source file, by its path under src/, without its tests and its comments.
fn sources() -> Vec<(String, String)> {
    let source = |(name, text): (String, String)| {
        let code = sizes::parts(&text).0.lines().filter(|line| !line.trim_start().starts_with("//"));
        (name.trim_start_matches("src/").to_string(), code.collect::<Vec<&str>>().join("\n"))
    };
    sizes::files(&["src"]).into_iter().filter(|(name, _)| !name.ends_with("tests.rs")).map(source).collect()
}

#[test]
fn rooms_import_only_whom_they_may() {
    let rooms: Vec<&str> = IMPORTS.iter().map(|(room, _)| room.trim_end_matches('/')).chain(["config"]).collect();
    for (name, code) in sources() {
        let Some((own, allowed)) = IMPORTS.iter().find(|(room, _)| name.starts_with(room)) else { continue };
        for room in rooms.iter().filter(|room| !own.starts_with(*room) && !allowed.contains(room)) {
            assert!(!code.contains(&format!("crate::{room}::")), "{name} imports {room}");
        }
    }
}

#[test]
fn what_has_its_place_is_named_nowhere_else() {
    for (name, code) in sources() {
        for (word, places) in WORDS {
            let may = places.iter().any(|place| name.starts_with(place));
            assert!(may || !names(&code, word), "{name} names {word}");
        }
    }
}

/// Whether the word stands there by itself, not as the end of another path.
fn names(code: &str, word: &str) -> bool {
    let is_path = |character: char| character == ':' || character == '_' || character.is_alphanumeric();
    code.match_indices(word).any(|(at, _)| !code[..at].ends_with(is_path) || word.starts_with("process::"))
}

#[test]
fn the_pure_rooms_touch_nothing() {
    for (name, code) in sources() {
        if ["core/", "wire/", "model/"].iter().any(|room| name.starts_with(room)) {
            for word in IMPURE {
                assert!(!code.contains(word), "{name} names {word}");
            }
        }
    }
}

#[test]
fn every_module_opens_with_what_it_is() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for (name, _) in sources() {
        let text = fs::read_to_string(root.join(&name)).unwrap();
        assert!(text.starts_with("//! "), "{name} does not say what it is");
    }
}
