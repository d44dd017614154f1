//! TLS to the services that a node uses: the files read again, and what goes wrong in words for an operator.
//!
//! Not the connections: those are in the store and in the client of Consul.
//!
//! Invariant: the words name the key of app.toml that mends it, where there is one.

use crate::model::tls::{Identity, TlsFiles};
use rustls::pki_types::CertificateDer;
use rustls::{AlertDescription, CertificateError, Error};
use std::path::Path;

/// What the files hold now.
#[derive(Default)]
pub struct Credentials {
    pub roots: Vec<CertificateDer<'static>>,
    pub identity: Option<Identity>,
}

/// Reads the files. Error: one of them cannot be used (any more).
pub fn read(files: &TlsFiles) -> Result<Credentials, String> {
    let read = |path: &Path| std::fs::read(path).map_err(|error| error.to_string());
    let roots = files.roots(&read).map_err(|mistake| mistake.reason)?;
    let identity = files.identity(&read).map_err(|mistake| mistake.reason)?;
    Ok(Credentials { roots, identity })
}

/// The error of the TLS library that an error of input or output carries, if any.
pub fn error_in(error: &std::io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

/// What is wrong. `service` is what the names of its keys begin with, such as `mysql`.
pub fn told(error: &Error, service: &str, files: &TlsFiles) -> String {
    let ca = files.ca.as_ref().map(|ca| ca.display().to_string()).unwrap_or_default();
    match error {
        // A CA of the same name that did not sign it makes for a bad signature.
        Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            format!("its certificate is not trusted: no CA in {ca} has signed it; see {service}_ca_file")
        }
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => format!("its certificate is for another name: {error}; name the server as its certificate does"),
        Error::InvalidCertificate(_) => format!("its certificate is not taken: {error}"),
        Error::InvalidMessage(_) => format!("it does not speak TLS at this port ({error})"),
        Error::PeerIncompatible(_) | Error::AlertReceived(AlertDescription::ProtocolVersion) => {
            format!("it speaks neither TLS 1.2 nor 1.3 in a way that is known here ({error})")
        }
        Error::AlertReceived(alert) if is_about_identity(*alert) => {
            format!("it {} ({error})", about_identity(service, files))
        }
        _ => format!("TLS: {error}"),
    }
}

/// What a server does that is not content with the client's certificate, or its lack.
pub fn about_identity(service: &str, files: &TlsFiles) -> String {
    match &files.identity {
        Some(identity) => {
            format!("refuses the client certificate in {}; see {service}_cert_file", identity.cert.display())
        }
        None => format!("asks for a client certificate; set {service}_cert_file and {service}_key_file"),
    }
}

/// Whether a server says by it that the client's certificate is missing or not right.
fn is_about_identity(alert: AlertDescription) -> bool {
    use AlertDescription::*;
    [
        AccessDenied,
        BadCertificate,
        CertificateExpired,
        CertificateRequired,
        CertificateRevoked,
        CertificateUnknown,
        HandshakeFailure,
        UnknownCA,
        UnsupportedCertificate,
    ]
    .contains(&alert)
}
