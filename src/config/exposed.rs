//! Files with secrets that others can read: app.toml where a secret stands in it, and the files that its keys name.
//!
//! Not the files under data_dir: those are closed at the start.
//!
//! Invariant: only warnings. A file may be readable for a reason, such as a group of operators.

use crate::model::access::PRIVATE_KEY_KEY;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

const SECRETS: [&str; 3] = ["mysql_password", "consul_token", "cluster_secret"];
/// The ends of the keys whose files are no secrets: certificates are shown to everybody.
const PUBLIC_FILES: [&str; 3] = ["_ca_file", "_cert_file", "log_file"];

/// A line for each file with a secret that every user of the host can read. An error is none of them: reading the
/// configuration has reported it.
pub fn warnings(path: &Path) -> Vec<String> {
    let table =
        std::fs::read_to_string(path).ok().and_then(|text| text.parse::<toml::Table>().ok()).unwrap_or_default();
    let value = |key: &str| table.get(key).and_then(toml::Value::as_str).filter(|text| !text.is_empty());
    let mut warnings = Vec::new();
    if let Some(key) = SECRETS.into_iter().find(|key| value(key).is_some())
        && is_exposed(path)
    {
        warnings.push(format!("{key}: every user of this host can read it in this file; chmod o-r {}", path.display()));
    }
    let is_public = |key: &str| PUBLIC_FILES.iter().any(|end| key.ends_with(end));
    let is_secret = |key: &str| key == PRIVATE_KEY_KEY || (key.ends_with("_file") && !is_public(key));
    let keys = table.keys().filter(|key| is_secret(key));
    let files = keys.filter_map(|key| Some((key, value(key)?))).filter(|(_, file)| is_exposed(Path::new(file)));
    warnings.extend(files.map(|(key, file)| format!("{key}: every user of this host can read it; chmod o-r {file}")));
    warnings
}

fn is_exposed(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.mode() & 0o004 != 0)
}
