//! Who may import whom, and what may be named where: the house's rules, read off the sources.

use std::fs;
use std::path::{Path, PathBuf};

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
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut files: Vec<PathBuf> = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() { folders.push(entry) } else { files.push(entry) }
        }
    }
    let source = |path: &PathBuf| {
        let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_string();
        let text = fs::read_to_string(path).unwrap();
        let code = text.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default();
        let code: Vec<&str> = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        (name, code.join("\n"))
    };
    files.iter().map(source).filter(|(name, _)| !name.ends_with("tests.rs")).collect()
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
