//! Secrets in the configuration: each stands in a key, in a file that another key names, or in a variable of the
//! environment.
//!
//! Not which secrets there are.
//!
//! Invariant: no message has a secret in it.

use super::reader::Reader;
use crate::model::config::Secret;
use std::path::PathBuf;

/// A secret. `names` are the key of the secret, the key of its file, and its environment variable.
pub fn secret(
    reader: &mut Reader,
    environment: &dyn Fn(&str) -> Option<String>,
    names: [&'static str; 3],
) -> Option<Secret> {
    secret_and_file(reader, environment, names).0
}

/// The same, with the file that the secret comes from; none where it comes from elsewhere.
pub fn secret_and_file(
    reader: &mut Reader,
    environment: &dyn Fn(&str) -> Option<String>,
    names: [&'static str; 3],
) -> (Option<Secret>, Option<PathBuf>) {
    let [value_key, file_key, variable] = names;
    let value = reader.text(value_key).filter(|value| !value.is_empty());
    let file = reader.path(file_key);
    let variable_value = environment(variable).filter(|value| !value.is_empty());
    if value.is_some() && file.is_some() {
        reader.mistake(file_key, &format!("{value_key} is given as well; give one of them"));
    }
    // The environment wins: by it a deployment can use the same app.toml everywhere, with secrets of its own.
    if let Some(value) = variable_value {
        return (Some(Secret(value)), None);
    }
    let Some(file) = file else { return (value.map(Secret), None) };
    let text = std::fs::read_to_string(&file);
    let secret = text
        .map(|text| Secret::of_file(&text))
        .map_err(|error| reader.mistake(file_key, &format!("{}: {error}", file.display())));
    (secret.ok(), Some(file))
}
