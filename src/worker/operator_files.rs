//! The files that an operator may replace while the daemon runs, and that belong to the API: its tokens, its certificate and
//! key. SIGHUP has them read again.
//!
//! Not their first reading: the configuration does it. Not Consul's token; see `token`.
//!
//! Invariant: a file with a mistake changes nothing, and the log says which file and which mistake.

use super::clock;
use crate::model::access::{Certificate, CertificateFiles, Tokens};
use std::path::{Path, PathBuf};

/// Where the files are; none that the API does without.
#[derive(Clone, Debug, Default)]
pub struct OperatorFiles {
    pub tokens: Option<PathBuf>,
    pub certificate: Option<CertificateFiles>,
}

impl OperatorFiles {
    /// Reads the tokens again; none where they stay as they are.
    pub fn tokens(&self) -> Option<Tokens> {
        let file = self.tokens.as_ref()?;
        let text = std::fs::read_to_string(file).map_err(|error| vec![error.to_string()]);
        let tell = |mistakes: Vec<String>| {
            let mistakes = mistakes.join("; ");
            log::error!("read http_tokens_file {}: {mistakes}; the tokens in force are kept", file.display());
        };
        text.and_then(|text| Tokens::parse(&text)).map_err(tell).ok()
    }

    /// Reads the certificate and its key again; none where they stay as they are.
    pub fn certificate(&self) -> Option<Certificate> {
        let files = self.certificate.as_ref()?;
        match read(files) {
            Ok(certificate) => {
                log::info!("http_tls_cert {}: new connections get this certificate", files.chain.display());
                certificate
                    .warning(clock::now().wall)
                    .iter()
                    .for_each(|warning| log::warn!("http_tls_cert: {warning}"));
                Some(certificate)
            }
            Err(mistake) => {
                log::error!("read {mistake}; the certificate in force is kept");
                None
            }
        }
    }
}

fn read(files: &CertificateFiles) -> Result<Certificate, String> {
    let bytes = |key: &str| {
        let file: &Path = files.of(key);
        std::fs::read(file).map_err(|error| format!("{key} {}: {error}", file.display()))
    };
    let [chain, key] = CertificateFiles::KEYS.map(bytes);
    Certificate::parse(&chain?, &key?)
        .map_err(|bad| format!("{} {}: {}", bad.key, files.of(bad.key).display(), bad.reason))
}
