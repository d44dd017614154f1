//! The certificate by which the API proves who it is, with its key: from the text of two PEM files to what a handshake
//! needs.
//!
//! Not the files themselves: the configuration reads them at the start, a worker on SIGHUP. Not a handshake: the reactor
//! makes it.
//!
//! Invariant: key and certificate belong together. No text that is printed has the key in it.

use crate::model::Wall;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CertificateError, Error, InconsistentKeys, RootCertStore, ServerConfig};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The key of app.toml that names the file of the certificate.
pub const CERTIFICATE_KEY: &str = "http_tls_cert";
/// The key of app.toml that names the file of its private key.
pub const PRIVATE_KEY_KEY: &str = "http_tls_key";

/// How long before its end a certificate is warned of.
const ENDING_DAYS: i64 = 14;
const DAY_SECS: i64 = 86_400;
/// A moment after the end of every certificate, in seconds since the epoch: the last year that one can name is 9999.
const FAR_FUTURE_SECS: u64 = 300_000_000_000;

/// The files that a certificate and its key come from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CertificateFiles {
    /// The certificate, and behind it those by which it is signed.
    pub chain: PathBuf,
    pub key: PathBuf,
}

impl CertificateFiles {
    /// The keys of app.toml that name the files.
    pub const KEYS: [&str; 2] = [CERTIFICATE_KEY, PRIVATE_KEY_KEY];

    /// The file that this key of app.toml names.
    pub fn of(&self, key: &str) -> &Path {
        if key == PRIVATE_KEY_KEY { &self.key } else { &self.chain }
    }
}

/// A mistake in one of the files.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BadCertificate {
    /// The key of app.toml that names the file.
    pub key: &'static str,
    pub reason: String,
}

/// A certificate and its key, ready for handshakes.
#[derive(Clone)]
pub struct Certificate {
    /// What rustls makes the server's side of a connection from.
    pub server: Arc<ServerConfig>,
    /// The first and the last second of the certificate, since the epoch; none where it does not tell.
    validity: Option<(i64, i64)>,
}

impl Certificate {
    /// Reads the text of both files, which may be the same. A chain begins with the API's own certificate.
    pub fn parse(chain: &[u8], key: &[u8]) -> Result<Certificate, BadCertificate> {
        let bad_chain = |reason: String| BadCertificate { key: CERTIFICATE_KEY, reason };
        let bad_key = |reason: &str| BadCertificate { key: PRIVATE_KEY_KEY, reason: reason.into() };
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<_, _>>()
            .map_err(|error| bad_chain(format!("it is not PEM: {error}")))?;
        let Some(own) = chain.first().cloned() else {
            return Err(bad_chain("there is no certificate in it (-----BEGIN CERTIFICATE-----)".into()));
        };
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| {
            bad_key("there is no private key in it (-----BEGIN PRIVATE KEY-----, without a passphrase)")
        })?;
        let provider = Arc::new(ring::default_provider());
        let signer = provider.key_provider.load_private_key(key).map_err(|_| {
            bad_key("the private key is of no kind that is taken: RSA from 2048 bits on, ECDSA P-256 or P-384, Ed25519")
        })?;
        let certified = CertifiedKey::new(chain, signer);
        match certified.keys_match() {
            Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
            Err(Error::InconsistentKeys(_)) => {
                let reason = format!(
                    "it is not the key of the certificate in {CERTIFICATE_KEY}, the first where there are many"
                );
                return Err(bad_key(&reason));
            }
            Err(error) => return Err(bad_chain(format!("its first certificate cannot be read: {error}"))),
        }
        let server = server(&provider, certified).map_err(|error| bad_chain(error.to_string()))?;
        Ok(Certificate { server: Arc::new(server), validity: validity(&own, provider) })
    }

    /// What is wrong with the time of the certificate, if anything is.
    pub fn warning(&self, now: Wall) -> Option<String> {
        self.validity.and_then(|validity| warning(validity, now.second().0))
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("validity", &self.validity).finish_non_exhaustive()
    }
}

/// TLS 1.2 and 1.3, without certificates of clients.
fn server(provider: &Arc<CryptoProvider>, certified: CertifiedKey) -> Result<ServerConfig, Error> {
    let mut server = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    // HTTP/2 is not spoken. A client that speaks nothing else is told so here, and not by answers that it cannot read.
    server.alpn_protocols = vec![b"http/1.1".to_vec(), b"http/1.0".to_vec()];
    Ok(server)
}

/// A verifier that is asked about a moment at which no certificate holds says from when, or until when, it does: it looks
/// at that first. So no other crate has to take certificates apart.
fn validity(own: &CertificateDer<'static>, provider: Arc<CryptoProvider>) -> Option<(i64, i64)> {
    let mut roots = RootCertStore::empty();
    roots.add(own.clone()).ok()?;
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().ok()?;
    let name = ServerName::try_from("localhost").ok()?;
    let asked = |secs| {
        let moment = UnixTime::since_unix_epoch(Duration::from_secs(secs));
        match verifier.verify_server_cert(own, &[], &name, &[], moment) {
            Err(Error::InvalidCertificate(
                CertificateError::ExpiredContext { not_after: bound, .. }
                | CertificateError::NotValidYetContext { not_before: bound, .. },
            )) => Some(bound.as_secs() as i64),
            _ => None,
        }
    };
    Some((asked(0)?, asked(FAR_FUTURE_SECS)?))
}

/// What there is to say, at the second `now`, of a certificate that holds from its first second to its last.
fn warning((first, last): (i64, i64), now: i64) -> Option<String> {
    if last < now {
        return Some(format!("the certificate has ended {} day(s) ago: clients refuse it", (now - last) / DAY_SECS));
    }
    if now < first {
        return Some(format!(
            "the certificate is not in force yet, but in {} day(s): clients refuse it",
            (first - now) / DAY_SECS
        ));
    }
    let left = (last - now) / DAY_SECS;
    let is_ending = left < ENDING_DAYS;
    is_ending.then(|| format!("the certificate ends in {left} day(s): put a new one in its place, and send SIGHUP"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An authority's own certificate, of 30 days. That it is no server's does not keep its time from being read.
    const PEM: &str = "\
-----BEGIN CERTIFICATE-----
MIIBbTCCAROgAwIBAgIUfjz1tN1Hv5+50x086Oqt8MAqMNYwCgYIKoZIzj0EAwIw
DDEKMAgGA1UEAwwBdDAeFw0yNjExMjcxMjU2MDdaFw0yNjEyMjcxMjU2MDdaMAwx
CjAIBgNVBAMMAXQwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAARvoE3fczUnBAl9
anBc9TEFHbGsGEEC2A6dewyKnpROXYZT2VpyCDqbgOnMf9Ndt0xICNccz3JchkpX
AUnpXOrao1MwUTAdBgNVHQ4EFgQUSsj6R286JyYQCpF55CKOcVIkGqgwHwYDVR0j
BBgwFoAUSsj6R286JyYQCpF55CKOcVIkGqgwDwYDVR0TAQH/BAUwAwEB/zAKBggq
hkjOPQQDAgNIADBFAiEArZ2vTEbF9mM/1O5BVkiwK8C6ZwppLNS7o257TvQeD8IC
IGRuG5mZeR8cyTjKDHduIQ3s3phD2CbxVYfT4p4bGKsT
-----END CERTIFICATE-----
";
    const FIRST: i64 = 1_795_784_167;
    const LAST: i64 = 1_798_376_167;

    #[test]
    fn a_certificate_tells_its_time() {
        let own = CertificateDer::from_pem_slice(PEM.as_bytes()).unwrap();
        assert_eq!(validity(&own, Arc::new(ring::default_provider())), Some((FIRST, LAST)));
        assert_eq!(validity(&CertificateDer::from(vec![0; 9]), Arc::new(ring::default_provider())), None);
    }

    #[test]
    fn it_is_warned_of_from_14_days_before_its_end_on() {
        let said = |now: i64| warning((FIRST, LAST), now).unwrap_or_default();
        assert_eq!(said(LAST - 14 * DAY_SECS), "");
        assert!(said(LAST - 14 * DAY_SECS + 1).contains("ends in 13 day(s)"));
        assert!(said(LAST).contains("ends in 0 day(s)"));
        assert!(said(LAST + 1).contains("has ended 0 day(s) ago"));
        assert_eq!(said(FIRST), "");
        assert!(said(FIRST - DAY_SECS).contains("not in force yet, but in 1 day(s)"));
    }

    #[test]
    fn a_text_without_certificate_or_key_says_so() {
        let of = |chain: &str, key: &str| Certificate::parse(chain.as_bytes(), key.as_bytes()).unwrap_err();
        assert_eq!(of("", "").key, CERTIFICATE_KEY);
        assert_eq!(of(PEM, PEM).key, PRIVATE_KEY_KEY);
        let broken = PEM.replacen("MII", "????", 1);
        assert_eq!(of(&broken, "").key, CERTIFICATE_KEY);
        let unknown = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        assert!(of(PEM, unknown).reason.contains("of no kind that is taken"));
    }
}
