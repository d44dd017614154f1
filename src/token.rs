//! `wing-crontab token new`: makes a token of the API.
//!
//! Not a change of any file: the operator puts the line where `http_tokens_file` says.
//!
//! Invariant: the token itself is printed once and kept nowhere.

use crate::model::access::{Level, line};
use lexopt::{Arg, ValueExt};

const USAGE: &str = "wing-crontab token new NAME --level read|operate|admin";
/// What a token begins with, so that people and scanners know it.
const PREFIX: &str = "wct_";
const RANDOM_BYTES: usize = 32;

/// The text to print.
pub struct NewToken {
    /// The token, and the line for the file of tokens.
    pub lines: String,
    pub note: String,
}

/// Makes a token. `random` fills the bytes.
pub fn run(
    mut arguments: lexopt::Parser,
    random: impl FnOnce(&mut [u8]) -> Result<(), String>,
) -> Result<NewToken, String> {
    let (mut words, mut level) = (Vec::new(), None);
    while let Some(argument) = arguments.next().map_err(usage)? {
        match argument {
            Arg::Long("level") => {
                let text = arguments.value().and_then(|value| value.string()).map_err(usage)?;
                level = Some(text.parse::<Level>().map_err(|error| format!("--level: {error}"))?);
            }
            Arg::Value(word) => words.push(word.string().map_err(usage)?),
            other => return Err(usage(other.unexpected())),
        }
    }
    let ([new, name], Some(level)) = (words.as_slice(), level) else { return Err(format!("usage: {USAGE}")) };
    if new != "new" {
        return Err(format!("token {new:?}: there is only `new`; usage: {USAGE}"));
    }
    let mut bytes = [0; RANDOM_BYTES];
    random(&mut bytes)?;
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let token = format!("{PREFIX}{digits}");
    let line = line(name, level, &token)?;
    let note = format!(
        "the first line is the token: give it to {name}, it cannot be shown again. Put the second line into the file that \
         http_tokens_file names, then send SIGHUP to the daemon"
    );
    Ok(NewToken { lines: format!("{token}\n{line}\n"), note })
}

fn usage(error: lexopt::Error) -> String {
    format!("{error}; usage: {USAGE}")
}
