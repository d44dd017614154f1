//! The corpus of each fuzz target, replayed with a stable compiler: every file that a fuzzer found worth keeping, and
//! every one that showed a fault.
//!
//! Not a fuzzer: that is `make fuzz`.

mod properties;

use std::fs;
use std::path::{Path, PathBuf};

/// A corpus is small: it is replayed with every `make test`.
const FILES_MAX: usize = 250;
const FILE_BYTES_MAX: usize = 1_024;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz")
}

/// Holds every file of the target's corpus to its property.
fn replay(target: &str) {
    let corpus = folder().join("corpus").join(target);
    let mut paths: Vec<PathBuf> = fs::read_dir(&corpus).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!((1..=FILES_MAX).contains(&paths.len()), "{target} has {} files, 1 to {FILES_MAX} are wanted", paths.len());
    for path in paths {
        let bytes = fs::read(&path).unwrap();
        assert!(bytes.len() <= FILE_BYTES_MAX, "{} is longer than {FILE_BYTES_MAX} bytes", path.display());
        // The file that fails is named right before its panic; output of a test that passes is not shown.
        println!("{}", path.display());
        properties::holds(target, &bytes);
    }
}

macro_rules! replayed {
    ($($target:ident)*) => {
        $(#[test] fn $target() { replay(stringify!($target)); })*

        #[test]
        fn every_target_is_replayed_and_fuzzed() {
            let replayed = [$(stringify!($target)),*];
            assert_eq!(properties::TARGETS.map(|(name, _)| name), replayed);
            let manifest = fs::read_to_string(folder().join("Cargo.toml")).unwrap();
            let fuzzed: Vec<&str> = manifest.split("[[bin]]\nname = \"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
            assert_eq!(fuzzed, replayed);
        }
    };
}

replayed!(api config frames http journal marks messages schedule spool);
