//! Who may use the API: levels, callers, and what the configuration says of them.
//!
//! Not the decision about one request: `api::access` takes it.
//!
//! Invariant: nothing here holds a token itself, only its hash, so that no log line or answer can show one; nor shows the key
//! of a certificate.

mod certificate;
mod host;
mod level;
mod networks;
mod tokens;

pub use certificate::{BadCertificate, CERTIFICATE_KEY, Certificate, CertificateFiles, PRIVATE_KEY_KEY};
pub use host::Host;
pub use level::Level;
pub use networks::Networks;
pub use tokens::{Token, Tokens, line};

use serde::Serialize;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

/// Who sends a request, once the door has let it in.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Caller {
    /// The name of the token; else the address of the client, or `uid:N` for a client of the Unix socket.
    pub name: Arc<str>,
    pub level: Level,
    /// How the caller was recognized.
    pub by: Proof,
    /// The token that let the caller in.
    #[serde(skip)]
    pub token: Option<Token>,
}

/// The way in which a caller was recognized.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Proof {
    /// `Authorization: Bearer`.
    Token,
    /// `Authorization: Basic`, which a browser sends by itself.
    Password,
    /// The client's address is in `http_allow`.
    Address,
    /// The Unix socket in `data_dir`.
    Socket,
}

/// The keys of app.toml about access.
#[derive(Clone, Debug, Default)]
pub struct AccessConfig {
    pub tokens: Tokens,
    /// The file that the tokens come from, if they do. It is read again on SIGHUP.
    pub tokens_file: Option<PathBuf>,
    /// The networks whose clients need no token.
    pub allow: Networks,
    /// The proxies whose X-Forwarded-For is believed.
    pub trusted_proxies: Networks,
    /// Names and addresses by which clients reach this node, beside its own addresses and `localhost`.
    pub hosts: BTreeSet<Host>,
    /// None: the API speaks plain http.
    pub tls: Option<Tls>,
}

/// By what the API speaks https.
#[derive(Clone, Debug)]
pub struct Tls {
    /// They are read again on SIGHUP.
    pub files: CertificateFiles,
    /// As the files had it at the start.
    pub certificate: Certificate,
}
