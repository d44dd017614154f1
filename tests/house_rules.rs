//! The house rules, checked against the sources: which room may import which, that no two files need each other, where a
//! name may stand, how long files may be. The manual's pages are checked as well.

#[path = "house_rules/circles.rs"]
mod circles;
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

/// A word, and the only places where it may be. clippy.toml has the rules that clippy can check.
const WORDS: [(&str, &[&str]); 10] = [
    ("mio::", &["reactor/"]),
    ("mysql::", &["worker/store/mysql/"]),
    ("rusqlite::", &["worker/store/sqlite/"]),
    ("ureq::", &["worker/consul/"]),
    (
        "rustls::",
        &[
            "reactor/",
            "model/access/certificate.rs",
            "model/tls.rs",
            "worker/consul/",
            "worker/tls.rs",
            "worker/store/mysql/",
        ],
    ),
    // The exceptions from clippy.toml: clocks, threads, processes, the environment.
    (
        "expect(clippy::disallowed_methods",
        &["main.rs", "worker/clock.rs", "worker/pool.rs", "worker/process/", "worker/store/mysql/schema.rs"],
    ),
    ("expect(clippy::disallowed_types", &[]),
    ("expect(unsafe_code", &["worker/process/mod.rs"]),
    // Unlike `expect`, clippy does not report an `allow` that is not needed any more.
    ("#[allow(", &[]),
    ("#![allow(", &[]),
];

/// The parts of std that the pure rooms may not touch; clippy.toml has the types.
const IMPURE: [&str; 6] = ["std::thread", "std::net::Tcp", "std::fs", "std::io", "std::process", "std::env"];

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
fn a_word_with_its_own_place_is_in_no_other() {
    for (name, code) in sources() {
        for (word, places) in WORDS {
            let may = places.iter().any(|place| name.starts_with(place));
            assert!(may || !names(&code, word), "{name} names {word}");
        }
    }
}

/// Whether the code has the word by itself, and not as the end of another path.
fn names(code: &str, word: &str) -> bool {
    let is_path = |character: char| character == ':' || character == '_' || character.is_alphanumeric();
    code.match_indices(word).any(|(at, _)| !code[..at].ends_with(is_path))
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

/// What a context of the core lends, as a parameter of its own.
const LENT: [&str; 3] = [": Now", "&mut Effects", "&mut Logbook"];

/// The log's rows are a part of the context: they cannot be handed the whole.
const LENT_APART: &str = "core/log/";

#[test]
fn a_function_of_the_core_takes_the_context_rather_than_two_parts_of_it() {
    for (name, code) in sources() {
        if !name.starts_with("core/") || name.starts_with(LENT_APART) {
            continue;
        }
        for signature in code.split("fn ").skip(1).filter_map(|rest| rest.split('{').next()) {
            let parts: Vec<&str> = LENT.into_iter().filter(|part| signature.contains(part)).collect();
            assert!(parts.len() < 2, "{name} takes {parts:?} and not `cx: &mut Context`: fn {signature}");
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

/// Where the stand-in is left out, such as by a new version of what it stands in for, servers are held against the public CAs
/// as well.
#[test]
fn no_public_ca_is_compiled_in() {
    let lock = page("Cargo.lock");
    let ours = |package: &&str| {
        package.contains("name = \"webpki-roots\"") || package.contains("name = \"webpki-root-certs\"")
    };
    let packages: Vec<&str> = lock.split("[[package]]").filter(ours).collect();
    assert!(packages.iter().all(|package| !package.contains("source = ")), "not the stand-in: {packages:?}");
    assert_eq!(packages.len(), 1, "the stand-in of patches/webpki-roots stands for nothing: {packages:?}");
}

/// The manual's pages, by their names under the root.
const PAGES: [&str; 8] = [
    "README.md",
    "README.zh-CN.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "docs/api.md",
    "docs/architecture.md",
    "docs/cluster.md",
    "docs/operations.md",
];

fn page(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// The texts between a `from` and the next `to`.
fn between<'a>(text: &'a str, from: &str, to: char) -> Vec<&'a str> {
    text.split(from).skip(1).filter_map(|rest| rest.split(to).next()).collect()
}

/// The anchor by which a link names a heading.
fn anchor(heading: &str) -> String {
    let heading = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = heading.chars().filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
    kept.map(|letter| if letter == ' ' { '-' } else { letter }).collect()
}

#[test]
fn every_link_of_the_manual_leads_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for name in PAGES {
        let text = page(name);
        for link in between(&text, "](", ')').into_iter().filter(|link| !link.starts_with("http")) {
            let (path, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() { root.join(name) } else { root.join(name).with_file_name(path) };
            assert!(target.exists(), "{name}: there is no {link}");
            if !heading.is_empty() {
                let text = fs::read_to_string(&target).unwrap();
                let mut headings = text.lines().filter(|line| line.starts_with('#')).map(anchor);
                assert!(headings.any(|there| there == heading), "{name}: there is no heading for {link}");
            }
        }
    }
}

#[test]
fn every_file_that_the_manual_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let rooms = ["src/", "tests/", "docs/", "config/", "sql/", "scripts/", "benches/"];
    for name in PAGES {
        let text = page(name);
        // NNNN stands for a number of the reader's choice.
        let is_file = |path: &&str| rooms.iter().any(|room| path.starts_with(room)) && !path.contains("NNNN");
        for path in between(&text, "`", '`').into_iter().filter(is_file) {
            assert!(root.join(path).exists(), "{name}: there is no {path}");
        }
    }
}

#[test]
fn every_file_of_the_core_has_its_room_on_the_map() {
    let map = page("docs/architecture.md");
    for (name, _) in sources() {
        let Some((room, _)) = name.strip_prefix("core/").and_then(|rest| rest.split_once('/')) else { continue };
        assert!(map.contains(&format!("| `src/core/{room}` |")), "docs/architecture.md does not show core/{room}");
    }
}

#[test]
fn the_manual_names_every_outcome_and_what_counts_it() {
    let (api, operations) = (page("docs/api.md"), page("docs/operations.md"));
    for state in wing_crontab::model::RunState::ALL.map(|state| state.as_str()) {
        assert!(api.contains(&format!("| `{state}` |")), "docs/api.md does not explain {state}");
        assert!(operations.contains(&format!("`runs_{state}`")), "docs/operations.md does not explain runs_{state}");
    }
}

#[test]
fn every_guard_of_the_simulator_stands_beside_its_promise() {
    let (map, guards) = (page("docs/architecture.md"), page("tests/sim/guard.rs"));
    let names =
        between(&guards, "        Guard::", ',').into_iter().filter(|name| name.chars().all(char::is_alphanumeric));
    for name in names {
        assert!(map.contains(&format!("`{name}`")), "docs/architecture.md does not name the guard {name}");
    }
}

#[test]
fn the_readme_can_be_read_in_one_go() {
    for name in ["README.md", "README.zh-CN.md"] {
        assert!(page(name).lines().count() <= 200, "{name} is longer than 200 lines");
    }
}
