//! No two files of the sources need each other, not by way of others either.
//!
//! A file that imports a name, or writes it out as a path, needs the file in which the name is defined. A parent does not
//! need a child because of `mod x;`, or because of a re-export that it does not use itself: who imports the re-exported
//! name needs the child.
//! Methods are not seen: `impl` blocks of one type may stand in several files.

use super::sources;
use std::collections::{BTreeMap, BTreeSet};

/// A file and one that it needs, though that one needs it as well; and the reason. There is none.
const ALLOWED: [(&str, &str, &str); 0] = [];

/// How many re-exports may stand one behind the other.
const DEPTH_MAX: usize = 10;

/// A path of names, such as `crate`, `core`, `Node`.
type Path = Vec<String>;

#[derive(Default)]
struct File {
    children: BTreeSet<String>,
    imports: Vec<Import>,
    /// The paths in its code.
    paths: Vec<Path>,
    /// The types that its code names, and the functions that it calls, without a path.
    names: BTreeSet<String>,
}

struct Import {
    path: Path,
    name: String,
    is_public: bool,
}

/// The words of the code, `::`, and all other signs one by one.
fn tokens(code: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = code.trim_start();
    while let Some(first) = rest.chars().next() {
        let word = rest.find(|letter: char| !letter.is_alphanumeric() && letter != '_').unwrap_or(rest.len());
        let length = if word != 0 {
            word
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        let (token, behind) = rest.split_at(length);
        tokens.push(token);
        rest = behind.trim_start();
    }
    tokens
}

fn is_word(token: &str) -> bool {
    token.starts_with(|letter: char| letter.is_alphanumeric() || letter == '_')
}

/// The imports of a tree such as `a::{b, c::d as e}`, from its first token on. Answers how many tokens it has.
fn import_tree(tokens: &[&str], prefix: &[String], is_public: bool, imports: &mut Vec<Import>) -> usize {
    let mut path = prefix.to_vec();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        match *token {
            "{" => {
                at += 1;
                while tokens[at] != "}" {
                    at += import_tree(&tokens[at..], &path, is_public, imports);
                    at += usize::from(tokens[at] == ",");
                }
                return at + 1;
            }
            "as" => {
                let name = tokens[at + 1].to_string();
                imports.push(Import { path, name, is_public });
                return at + 2;
            }
            "::" | "*" => {}
            // `a::{self}` imports `a`.
            "self" if !prefix.is_empty() => {}
            word if is_word(word) => path.push(word.to_string()),
            _ => break,
        }
        at += 1;
    }
    let name = path.last().cloned().unwrap_or_default();
    imports.push(Import { path, name, is_public });
    at
}

fn parsed(code: &str) -> File {
    let tokens = tokens(code);
    let mut file = File::default();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        let before = at.checked_sub(1).map_or("", |before| tokens[before]);
        at += 1;
        match *token {
            "mod" if tokens.get(at + 1) == Some(&";") => {
                file.children.insert(tokens[at].to_string());
                at += 1;
            }
            // Not the `use<>` of a type.
            "use" if tokens[at] != "<" => {
                at += import_tree(&tokens[at..], &[], before == "pub" || before == ")", &mut file.imports);
            }
            word if is_word(word) && before != "." && before != "::" => {
                let mut path = vec![word.to_string()];
                while tokens.get(at) == Some(&"::") && tokens.get(at + 1).is_some_and(|next| is_word(next)) {
                    path.push(tokens[at + 1].to_string());
                    at += 2;
                }
                let is_type = word.starts_with(char::is_uppercase);
                match path.len() {
                    1 if is_type || before != "fn" && tokens.get(at) == Some(&"(") => {
                        file.names.extend([word.to_string()])
                    }
                    1 => {}
                    _ => file.paths.push(path),
                }
            }
            _ => {}
        }
    }
    file
}

/// The files by the paths of their modules.
struct Sources(BTreeMap<Path, (String, File)>);

impl Sources {
    fn read(sources: Vec<(String, String)>) -> Sources {
        let of = |(name, code): (String, String)| {
            let mut module: Path = name.trim_end_matches(".rs").split('/').map(String::from).collect();
            if module.last().is_some_and(|last| last == "mod" || last == "lib") {
                module.pop();
            }
            (module, (name, parsed(&code)))
        };
        Sources(sources.into_iter().filter(|(name, _)| name != "main.rs").map(of).collect())
    }

    /// The file in which the path from this module ends. Names that are not of this program end where they stand.
    fn target(&self, module: &[String], path: &[String], depth: usize) -> Option<&str> {
        let (name, file) = self.0.get(module)?;
        let Some((first, rest)) = path.split_first() else { return Some(name) };
        let child = [module, std::slice::from_ref(first)].concat();
        match first.as_str() {
            "crate" => self.target(&[], rest, depth),
            "self" => self.target(module, rest, depth),
            "super" => self.target(module.split_last()?.1, rest, depth),
            child_name if file.children.contains(child_name) && self.0.contains_key(&child) => {
                self.target(&child, rest, depth)
            }
            word => match file.imports.iter().find(|import| import.name == word && import.path[0] != word) {
                Some(import) if depth < DEPTH_MAX => {
                    self.target(module, &[import.path.as_slice(), rest].concat(), depth + 1)
                }
                _ => Some(name),
            },
        }
    }

    /// Whom each file needs.
    fn needs(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let mut needs = BTreeMap::new();
        for (module, (name, file)) in self.0.iter().filter(|(_, (name, _))| name != "lib.rs") {
            let is_need = |import: &&Import| !import.is_public || file.names.contains(&import.name);
            let imports = file.imports.iter().filter(is_need).map(|import| &import.path);
            let targets = imports.chain(&file.paths).filter_map(|path| self.target(module, path, 0));
            needs.insert(name.as_str(), targets.filter(|target| target != name).collect());
        }
        needs
    }
}

/// The needs that form circles, and those on the way from one circle to another. A file that needs nothing, or that
/// nobody needs, is in no circle: such files are taken out until there is none, and the rest is answered.
fn circles<'a>(needs: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> Vec<(&'a str, &'a str)> {
    let mut left: Vec<(&str, &str)> =
        needs.iter().flat_map(|(name, others)| others.iter().map(move |other| (*name, *other))).collect();
    loop {
        let before = left.len();
        let needing: BTreeSet<&str> = left.iter().map(|(name, _)| *name).collect();
        let needed: BTreeSet<&str> = left.iter().map(|(_, other)| *other).collect();
        left.retain(|(name, other)| needed.contains(name) && needing.contains(other));
        if left.len() == before {
            return left;
        }
    }
}

#[test]
fn no_two_files_need_each_other() {
    let sources = Sources::read(sources());
    let mut needs = sources.needs();
    for (name, other, _) in ALLOWED {
        assert!(
            needs.get_mut(name).is_some_and(|others| others.remove(other)),
            "{name} does not need {other} any more"
        );
    }
    let circles = circles(&needs);
    let told: Vec<String> = circles.iter().map(|(name, other)| format!("{name} needs {other}")).collect();
    assert!(told.is_empty(), "move what both need to a file of its own:\n{}", told.join("\n"));
}

#[track_caller]
fn check(files: &[(&str, &str)], expect: &[(&str, &str)]) {
    let files = files.iter().map(|(name, code)| (name.to_string(), code.to_string()));
    let sources = Sources::read(files.chain([("lib.rs".to_string(), "pub mod a;".to_string())]).collect());
    assert_eq!(circles(&sources.needs()), expect);
}

#[test]
fn a_circle_is_seen_however_it_is_written() {
    let both = [("a/b.rs", "a/mod.rs"), ("a/mod.rs", "a/b.rs")];
    let child = ("a/b.rs", "use super::Noun; pub fn f(noun: Noun) {}");
    check(&[("a/mod.rs", "mod b; pub struct Noun; fn g() { b::f(Noun) }"), child], &both);
    check(&[("a/mod.rs", "mod b; use b::{f as h}; pub struct Noun; fn g() { h(Noun) }"), child], &both);
    check(&[("a/mod.rs", "mod b; pub use self::b::f; pub struct Noun; fn g() { crate::a::f(Noun) }"), child], &both);
    // Only the parent's declaration and its re-export.
    check(&[("a/mod.rs", "pub mod b; pub use b::f; pub struct Noun;"), child], &[]);
    // By way of a third file, and of the parent's re-export.
    let parent = ("a/mod.rs", "mod b; mod c; pub use c::Noun;");
    check(
        &[parent, child, ("a/c.rs", "use super::b; pub struct Noun; fn g() { b::f(Noun) }")],
        &[("a/b.rs", "a/c.rs"), ("a/c.rs", "a/b.rs")],
    );
    check(&[parent, child, ("a/c.rs", "pub struct Noun;")], &[]);
}
