//! The tokens of the API: their text form, and the search for one.
//!
//! ```text
//! # name  level    token, or its SHA-256
//! ci      operate  sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
//! ```
//!
//! Not the file: the configuration and a worker read it.
//!
//! Invariants: a token's own text is hashed and forgotten; a search takes as long for a right token as for a wrong one.

use super::level::Level;
use sha2::{Digest, Sha256};
use std::fmt;
use std::sync::Arc;
use subtle::ConstantTimeEq;

/// The most tokens there may be.
const TOKENS_MAX: usize = 1_000;
/// The longest text of tokens.
const TEXT_BYTES_MAX: usize = 256 << 10;
const NAME_CHARS_MAX: usize = 64;
/// A shorter token can be guessed.
const TOKEN_BYTES_MIN: usize = 16;
const TOKEN_BYTES_MAX: usize = 512;
const HASH_BYTES: usize = 32;
const HASH_PREFIX: &str = "sha256:";

/// A token: whom it names, what it allows, and the hash by which it is known.
#[derive(Clone, Eq, PartialEq)]
pub struct Token {
    pub name: Arc<str>,
    pub level: Level,
    hash: [u8; HASH_BYTES],
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.level)
    }
}

/// The tokens in force, at most `TOKENS_MAX`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Tokens(Vec<Token>);

impl Tokens {
    /// Reads lines of `NAME LEVEL TOKEN`. Empty lines, and lines that begin with `#`, say nothing. The error lists all
    /// mistakes, a line each, and shows no token.
    pub fn parse(text: &str) -> Result<Tokens, Vec<String>> {
        if TEXT_BYTES_MAX < text.len() {
            return Err(vec![format!("it has {} bytes; at most {TEXT_BYTES_MAX} are taken", text.len())]);
        }
        let (mut tokens, mut mistakes) = (Vec::<Token>::new(), Vec::new());
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            match token(line) {
                Ok(token) if tokens.iter().any(|earlier| earlier.name == token.name) => {
                    // Not which: where the words stand in a wrong order, a token may be in the name's place.
                    mistakes.push(format!("line {number}: its name is that of an earlier line"));
                }
                Ok(token) => tokens.push(token),
                Err(mistake) => mistakes.push(format!("line {number}: {mistake}")),
            }
        }
        if TOKENS_MAX < tokens.len() {
            mistakes.push(format!("there are {} tokens; at most {TOKENS_MAX} are taken", tokens.len()));
        }
        if mistakes.is_empty() { Ok(Tokens(tokens)) } else { Err(mistakes) }
    }

    /// The token with this text.
    pub fn find(&self, text: &[u8]) -> Option<&Token> {
        let hash = hash(text);
        // Every token is compared, and whole: the time that it takes tells nothing.
        self.0.iter().fold(None, |found, token| if bool::from(token.hash.ct_eq(&hash)) { Some(token) } else { found })
    }

    /// Whether this very token is still among them, with its level.
    pub fn has(&self, token: &Token) -> bool {
        self.0.contains(token)
    }

    /// Whether there is no token.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many tokens there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

/// The line for a file of tokens that lets this token in.
pub fn line(name: &str, level: Level, text: &str) -> Result<String, String> {
    let line = format!("{name} {level} {HASH_PREFIX}{}", hex(&hash(text.as_bytes())));
    token(&line).map(|_| line)
}

fn token(line: &str) -> Result<Token, String> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let &[name, level, secret] = words.as_slice() else {
        return Err(format!("three words are expected: NAME LEVEL TOKEN; there are {}", words.len()));
    };
    let is_name = name.len() <= NAME_CHARS_MAX
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.@".contains(&byte));
    if !is_name {
        return Err(format!("a name has 1 to {NAME_CHARS_MAX} letters, digits and -_.@"));
    }
    let hash = match secret.strip_prefix(HASH_PREFIX) {
        Some(digits) => of_hex(digits).ok_or("64 hex digits are expected after sha256:")?,
        None if (TOKEN_BYTES_MIN..=TOKEN_BYTES_MAX).contains(&secret.len()) => hash(secret.as_bytes()),
        None => {
            return Err(format!(
                "a token has {TOKEN_BYTES_MIN} to {TOKEN_BYTES_MAX} characters; `wing-crontab token new` makes one"
            ));
        }
    };
    let level = level.parse().map_err(|_| format!("its second word is no level; {} is expected", Level::NAMES))?;
    Ok(Token { name: name.into(), level, hash })
}

fn hash(text: &[u8]) -> [u8; HASH_BYTES] {
    Sha256::digest(text).into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn of_hex(digits: &str) -> Option<[u8; HASH_BYTES]> {
    if digits.len() != 2 * HASH_BYTES || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; HASH_BYTES];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_found_by_its_text_or_not_at_all() {
        let secret = "wct_0123456789abcdef";
        let hashed = line("ops", Level::Operate, secret).unwrap();
        let tokens = Tokens::parse(&format!("# people\n\nci read another-long-token\n  {hashed}  \n")).unwrap();
        let found = tokens.find(secret.as_bytes()).unwrap();
        assert_eq!((&*found.name, found.level), ("ops", Level::Operate));
        assert_eq!(tokens.find(b"another-long-token").map(|token| token.level), Some(Level::Read));
        assert!(tokens.find(b"").is_none() && tokens.find(b"wct_0123456789abcdeF").is_none());
        assert!(tokens.has(&found.clone()) && !Tokens::default().has(found));
        assert!(!format!("{tokens:?}").contains("long"), "a token is shown");
    }

    #[test]
    fn mistakes_are_named_by_their_line_and_show_no_token() {
        let text = "a admin\nb root 0123456789abcdef\nc read short-secret\nd read sha256:12\ne/f read 0123456789abcdef\n\
                    g read 0123456789abcdef\ng read 0123456789abcdef\nx 0123456789abcdef 0123456789abcdef\n\
                    0123456789abcdef read a-long-enough-name\n0123456789abcdef read a-long-enough-name";
        let mistakes = Tokens::parse(text).unwrap_err();
        assert_eq!(mistakes.len(), 8, "{mistakes:?}");
        let lines = [1, 2, 3, 4, 5, 7, 8, 10].map(|number| format!("line {number}:"));
        for (mistake, start) in mistakes.iter().zip(&lines) {
            assert!(mistake.starts_with(start.as_str()), "{mistake}");
            assert!(!mistake.contains("0123456789abcdef") && !mistake.contains("short-secret"), "{mistake}");
        }
    }
}
