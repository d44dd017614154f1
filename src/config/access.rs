//! The keys about who may use the API.
//!
//! Invariant: a mistake in a list or in the tokens' file is named, and no token is shown.

use super::reader::Reader;
use crate::model::Wall;
use crate::model::access::{AccessConfig, CERTIFICATE_KEY, Certificate, CertificateFiles, Host, Networks, Tls, Tokens};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// It outdoes the file.
const TOKENS_VARIABLE: &str = "WING_HTTP_TOKENS";

/// The name of the proxy that the older system's instructions set up. It holds where `http_allow` opens the API to a network
/// and `http_hosts` is left out, so that this layout needs one more line and not two.
const OLDER_PROXY_NAME: &str = "wing.crontab.com";

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Reads the keys about access. Mistakes are left with the reader.
pub fn access(reader: &mut Reader, environment: &dyn Fn(&str) -> Option<String>) -> AccessConfig {
    let (tokens, tokens_file) = tokens(reader, environment);
    let allow = networks(reader, "http_allow");
    let loopback = Networks::loopback();
    // A proxy of this host is believed, unless a process of this host could win by it an address that it is not.
    let is_loopback_open = allow.as_ref().is_none_or(|allow| allow.contains(LOOPBACK));
    let default_proxies = || if is_loopback_open { loopback.clone() } else { Networks::default() };
    let trusted_proxies = networks(reader, "http_trusted_proxies").unwrap_or_else(default_proxies);
    if trusted_proxies.has_everything() {
        reader.mistake(
            "http_trusted_proxies",
            "a network of all addresses lets every client name any address as its own",
        );
    }
    let default_hosts = || allow.iter().filter_map(|_| Host::without_port(OLDER_PROXY_NAME)).collect();
    let hosts = hosts(reader).unwrap_or_else(default_hosts);
    let tls = tls(reader);
    AccessConfig { tokens, tokens_file, allow: allow.unwrap_or(loopback), trusted_proxies, hosts, tls }
}

/// What the operator should know of the access that is open.
pub fn warnings(config: &AccessConfig, http: SocketAddr, now: Wall) -> Vec<String> {
    let of_certificate = config.tls.as_ref().and_then(|tls| tls.certificate.warning(now));
    let mut warnings: Vec<String> =
        of_certificate.map(|warning| format!("{CERTIFICATE_KEY}: {warning}")).into_iter().collect();
    if config.allow.has_everything() {
        warnings.push(format!(
            "http_allow: whoever reaches {http} may define jobs, and so run commands here; name only the networks that must"
        ));
    }
    let is_reachable = !http.ip().is_loopback();
    if is_reachable && config.allow.is_loopback_only() && config.tokens.is_empty() {
        warnings.push(format!(
            "http_bind_address: other hosts reach {http} and are answered with 403, but for the status in /health; to let them in, \
             name their networks, such as http_allow = [\"10.10.62.0/24\"], or give them tokens (http_tokens_file)"
        ));
    }
    warnings
}

/// Who may use the API, in a line for people.
pub fn summary(config: &AccessConfig) -> String {
    let allow = if config.allow.is_empty() { "nobody".into() } else { config.allow.to_string() };
    let spoken = if config.tls.is_some() { "HTTPS" } else { "HTTP" };
    format!("{spoken} API: without a token {allow}; {} token(s)", config.tokens.len())
}

/// The tokens of `WING_HTTP_TOKENS`, else of the file, whose path is given back as well.
fn tokens(reader: &mut Reader, environment: &dyn Fn(&str) -> Option<String>) -> (Tokens, Option<PathBuf>) {
    let file = reader.text("http_tokens_file").filter(|path| !path.is_empty()).map(PathBuf::from);
    let (text, origin, file) = match (environment(TOKENS_VARIABLE).filter(|text| !text.is_empty()), file) {
        // Where lines are hard to write, a semicolon ends one.
        (Some(text), _) => (Ok(text.replace(';', "\n")), TOKENS_VARIABLE.to_string(), None),
        (None, Some(file)) => (std::fs::read_to_string(&file), file.display().to_string(), Some(file)),
        (None, None) => return (Tokens::default(), None),
    };
    let tokens = text.map_err(|error| vec![error.to_string()]).and_then(|text| Tokens::parse(&text));
    let tell = |mistakes: Vec<String>| {
        mistakes.iter().for_each(|mistake| reader.mistake("http_tokens_file", &format!("{origin}: {mistake}")));
    };
    (tokens.map_err(tell).unwrap_or_default(), file)
}

/// The certificate and its key. Mistakes are left with the reader.
fn tls(reader: &mut Reader) -> Option<Tls> {
    let keys = CertificateFiles::KEYS;
    let paths = keys.map(|key| reader.text(key).filter(|path| !path.is_empty()).map(PathBuf::from));
    let files = match paths {
        [None, None] => return None,
        [Some(chain), Some(key)] => CertificateFiles { chain, key },
        [chain, _] => {
            let (given, missing) = if chain.is_some() { (keys[0], keys[1]) } else { (keys[1], keys[0]) };
            reader.mistake(missing, &format!("{given} is given without it; https takes both"));
            return None;
        }
    };
    let mut read = |key, path: &PathBuf| {
        std::fs::read(path).map_err(|error| reader.mistake(key, &format!("{}: {error}", path.display()))).ok()
    };
    // Both are read before the first mistake ends this.
    let (chain, key) = (read(keys[0], &files.chain), read(keys[1], &files.key));
    match Certificate::parse(&chain?, &key?) {
        Ok(certificate) => Some(Tls { files, certificate }),
        Err(bad) => {
            reader.mistake(bad.key, &format!("{}: {}", files.of(bad.key).display(), bad.reason));
            None
        }
    }
}

fn networks(reader: &mut Reader, key: &'static str) -> Option<Networks> {
    let texts = reader.texts(key)?;
    Networks::parse(&texts).map_err(|mistake| reader.mistake(key, &mistake)).ok()
}

fn hosts(reader: &mut Reader) -> Option<BTreeSet<Host>> {
    let texts = reader.texts("http_hosts")?;
    let mut hosts = BTreeSet::new();
    for text in texts {
        match Host::without_port(&text) {
            Some(host) => _ = hosts.insert(host),
            None => reader.mistake(
                "http_hosts",
                &format!("{text:?} is no name and no address without a port, such as \"wing.example.com\""),
            ),
        }
    }
    Some(hosts)
}
