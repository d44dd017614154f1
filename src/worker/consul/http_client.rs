//! The HTTP client of the calls to Consul. Where Consul is spoken to by TLS, it holds the CAs and the client's certificate;
//! an operator may replace their files while the daemon runs, and sends HUP then.
//!
//! Not the calls: see `ConsulClient`.
//!
//! Invariant: the client in force stays until the files have what it takes to make another one.

use crate::core::time::bounds::CONSUL_CONNECT_MS;
use crate::model::tls::{Identity, TlsFiles};
use crate::worker::tls::{self, Credentials};
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use ureq::Agent;
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};

/// The errors of a connection that the other end has closed.
const CLOSED: [ErrorKind; 3] = [ErrorKind::BrokenPipe, ErrorKind::ConnectionAborted, ErrorKind::ConnectionReset];

/// The client in force, and the files that it comes from.
#[derive(Debug)]
pub struct HttpClient {
    /// None: by plain HTTP.
    files: Option<TlsFiles>,
    in_force: Mutex<Option<Agent>>,
    are_to_be_read: AtomicBool,
}

impl HttpClient {
    /// A client that reads the files, if any, at its first use.
    pub fn new(files: Option<TlsFiles>) -> HttpClient {
        HttpClient { files, in_force: Mutex::default(), are_to_be_read: AtomicBool::new(false) }
    }

    /// What the address of a request begins with.
    pub fn scheme(&self) -> &'static str {
        if self.files.is_some() { "https" } else { "http" }
    }

    /// Has the files read before the client's next use. This call does not block.
    pub fn read_again(&self) {
        self.are_to_be_read.store(self.files.is_some(), Ordering::Relaxed);
    }

    /// The client to use. May read the files. Error: they cannot be used, and never could since the start.
    pub fn in_force(&self) -> Result<Agent, String> {
        let mut in_force = self.in_force.lock().unwrap_or_else(PoisonError::into_inner);
        let are_to_be_read = self.are_to_be_read.swap(false, Ordering::Relaxed);
        if let Some(agent) = in_force.as_ref().filter(|_| !are_to_be_read) {
            return Ok(agent.clone());
        }
        match (tls_config(self.files.as_ref()), in_force.as_ref()) {
            (Ok(tls), _) => Ok(in_force.insert(agent(tls)).clone()),
            (Err(reason), Some(agent)) => {
                log::warn!("TLS to Consul: {reason}; what was read before stays in force: mend the file and send HUP");
                Ok(agent.clone())
            }
            (Err(reason), None) => Err(reason),
        }
    }

    /// Why a request came to nothing.
    pub fn told(&self, error: &ureq::Error) -> String {
        let tls_error = match error {
            ureq::Error::Rustls(error) => Some(error),
            ureq::Error::Io(error) => tls::error_in(error),
            _ => None,
        };
        match (tls_error, &self.files, error) {
            (Some(error), Some(files), _) => tls::told(error, "consul", files),
            // The server's reason is lost where it had closed the connection before all of the request was sent.
            (None, Some(files), ureq::Error::Io(error)) if CLOSED.contains(&error.kind()) => {
                let does = tls::about_identity("consul", files);
                format!("{error}; it may be that it {does}")
            }
            _ => error.to_string(),
        }
    }
}

fn agent(tls: TlsConfig) -> Agent {
    let config = Agent::config_builder()
        .timeout_connect(Some(Duration::from_millis(CONSUL_CONNECT_MS)))
        .http_status_as_error(false)
        // The token is for this address, and for no proxy of the environment or other place on the way.
        .max_redirects(0)
        .proxy(None)
        .max_idle_age(Duration::from_secs(30))
        .tls_config(tls);
    config.build().into()
}

/// Without files no server is trusted; plain HTTP asks for none.
fn tls_config(files: Option<&TlsFiles>) -> Result<TlsConfig, String> {
    let Credentials { roots, identity } = files.map(tls::read).transpose()?.unwrap_or_default();
    let identity = identity.as_ref().map(client_cert).transpose()?;
    Ok(TlsConfig::builder()
        .root_certs(RootCerts::new_with_certs(&certificates(&roots)))
        .client_cert(identity)
        .unversioned_rustls_crypto_provider(Arc::new(ring::default_provider()))
        .build())
}

fn certificates(ders: &[CertificateDer]) -> Vec<Certificate<'static>> {
    ders.iter().map(|der| Certificate::from_der(der).to_owned()).collect()
}

fn client_cert(identity: &Identity) -> Result<ClientCert, String> {
    // The text of the error is not shown: it may quote the key.
    let key = PrivateKey::from_pem(&identity.key_pem).map_err(|_| "the private key cannot be read")?;
    Ok(ClientCert::new_with_certs(&certificates(&identity.chain), key))
}
