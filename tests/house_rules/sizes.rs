//! The limits of length: of a file, and of a function in a test.
//!
//! The length of a function is counted in formatted sources; `make check` holds them to that.

use std::fs;
use std::path::{Path, PathBuf};

/// The most lines of a file.
const FILE_LINES_MAX: usize = 450;

/// Files that are longer, and how long each may be. They are to become shorter: lower the number, or take the file off
/// the list.
const LONG_FILES: [(&str, usize); 0] = [];

/// The most lines of a function in a test: it fits on a screen.
const TEST_FUNCTION_LINES_MAX: usize = 40;

/// Every Rust file below these folders, by its path, with its text.
pub fn files(folders: &[&str]) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders: Vec<PathBuf> = folders.iter().map(|folder| root.join(folder)).collect();
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_string();
                files.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    files.sort();
    files
}

/// The parts of a file of the program: its code, and its unit tests.
pub fn parts(text: &str) -> (&str, &str) {
    text.split_once("\n#[cfg(test)]\nmod ").unwrap_or((text, ""))
}

/// All code of tests and benches, by the path of its file.
fn test_code() -> Vec<(String, String)> {
    let unit_tests = files(&["src"]).into_iter().map(|(name, text)| {
        let tests = if name.ends_with("tests.rs") { text.clone() } else { parts(&text).1.to_string() };
        (name, tests)
    });
    unit_tests.chain(files(&["tests", "benches"])).collect()
}

/// The functions in formatted code, each with the number of its lines: it ends with the first brace that stands as far
/// to the left as it began.
fn functions(code: &str) -> Vec<(&str, usize)> {
    let lines: Vec<&str> = code.lines().collect();
    let mut functions = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line).filter(|_| !line.ends_with([';', '}'])) else { continue };
        let end = format!("{}}}", &line[..line.len() - line.trim_start().len()]);
        let length = lines[at..].iter().position(|line| **line == end).expect("a function ends") + 1;
        functions.push((name, length));
    }
    functions
}

/// The name of the function that begins on this line.
fn function_name(line: &str) -> Option<&str> {
    let (before, after) = line.split_once("fn ")?;
    let is_function =
        before.split_whitespace().all(|word| word.starts_with("pub") || word == "const" || word == "unsafe");
    after.split(['(', '<']).next().filter(|_| is_function)
}

#[test]
fn no_file_is_too_long() {
    let mut wrong = Vec::new();
    let files = files(&["src", "tests", "benches"]);
    for (name, text) in &files {
        let (lines, ceiling) = (text.lines().count(), LONG_FILES.iter().find(|(long, _)| long == name));
        match ceiling {
            Some(_) if lines <= FILE_LINES_MAX => wrong.push(format!("{name} is short enough: take it off the list")),
            Some((_, ceiling)) if *ceiling < lines => wrong.push(format!("{name}: {lines} lines, not {ceiling}")),
            None if FILE_LINES_MAX < lines => wrong.push(format!("{name}: {lines} lines, more than {FILE_LINES_MAX}")),
            _ => {}
        }
    }
    let is_gone = |long: &str| files.iter().all(|(name, _)| name != long);
    wrong.extend(LONG_FILES.iter().filter(|(long, _)| is_gone(long)).map(|(long, _)| format!("there is no {long}")));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_function_of_a_test_fits_on_a_screen() {
    let mut wrong = Vec::new();
    for (file, code) in test_code() {
        for (name, lines) in functions(&code).into_iter().filter(|(_, lines)| TEST_FUNCTION_LINES_MAX < *lines) {
            wrong.push(format!("{file}: {name} has {lines} lines, more than {TEST_FUNCTION_LINES_MAX}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn functions_are_measured_from_their_first_line_to_their_last() {
    let code = "impl A {\n    pub const fn a(\n        b: u8,\n    ) {\n        if b {\n        }\n    }\n}\nfn c() {}\nfn d() {\n}\n";
    assert_eq!(functions(code), [("a", 6), ("d", 2)]);
}
