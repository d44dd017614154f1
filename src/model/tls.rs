//! What a client of TLS needs: the CAs that it trusts, and its own certificate with the key. Both are PEM texts.
//!
//! Not the reading of the files: whoever reads them hands a way to do it on, so that the start and a later look at the same
//! files find the same mistakes in the same words.
//!
//! Invariant: what is given back can be used as it is, and no message shows a key.

use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use std::path::{Path, PathBuf};

/// A way to read a file, whose error is a text for people.
pub type Read<'a> = &'a dyn Fn(&Path) -> Result<Vec<u8>, String>;

/// The files of a client of TLS.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TlsFiles {
    /// The CAs, one of which must have signed the server's certificate. None: any certificate is taken.
    pub ca: Option<PathBuf>,
    /// None: the client has no certificate of its own.
    pub identity: Option<IdentityFiles>,
}

/// The files of a client's own certificate.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct IdentityFiles {
    /// The certificate, and those between it and its CA.
    pub cert: PathBuf,
    /// Its private key, without a passphrase.
    pub key: PathBuf,
}

/// A client's own certificate with its key.
pub struct Identity {
    /// The certificate first, then those between it and its CA.
    pub chain: Vec<CertificateDer<'static>>,
    /// The text of the key's file.
    pub key_pem: Vec<u8>,
}

/// Which file a mistake is in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TlsFile {
    Ca,
    Cert,
    Key,
}

/// A mistake in a file, and what to do about it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TlsMistake {
    pub file: TlsFile,
    pub reason: String,
}

impl TlsFiles {
    /// The certificates of the CAs; none where there is no file of them.
    pub fn roots(&self, read: Read) -> Result<Vec<CertificateDer<'static>>, TlsMistake> {
        let Some(path) = &self.ca else { return Ok(Vec::new()) };
        let mistake = |reason| TlsMistake { file: TlsFile::Ca, reason };
        let roots = certificates(path, read).map_err(mistake)?;
        for (at, root) in roots.iter().enumerate() {
            RootCertStore::empty().add(root.clone()).map_err(|error| {
                mistake(format!("{}: certificate {} in it cannot be used: {error}", path.display(), at + 1))
            })?;
        }
        Ok(roots)
    }

    /// The client's own certificate and key, which fit each other; none where it has no files of them.
    pub fn identity(&self, read: Read) -> Result<Option<Identity>, TlsMistake> {
        let Some(files) = &self.identity else { return Ok(None) };
        let mistake = |file| move |reason| TlsMistake { file, reason };
        let chain = certificates(&files.cert, read).map_err(mistake(TlsFile::Cert))?;
        let (key, key_pem) = key(&files.key, read).map_err(mistake(TlsFile::Key))?;
        // The library compares the two.
        CertifiedKey::from_der(chain.clone(), key, &ring::default_provider()).map_err(|error| {
            let (cert, key) = (files.cert.display(), files.key.display());
            mistake(TlsFile::Key)(format!("{key}: this is not the key of the first certificate in {cert} ({error})"))
        })?;
        Ok(Some(Identity { chain, key_pem }))
    }
}

fn certificates(path: &Path, read: Read) -> Result<Vec<CertificateDer<'static>>, String> {
    let path_shown = path.display();
    let pem = read(path).map_err(|error| format!("{path_shown}: {error}"))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(format!("{path_shown}: no certificate is in it: text (PEM) with BEGIN CERTIFICATE is expected")),
        Err(error) => Err(format!("{path_shown}: its text (PEM) is damaged: {error}")),
    }
}

/// The key, and the text of its file.
fn key(path: &Path, read: Read) -> Result<(PrivateKeyDer<'static>, Vec<u8>), String> {
    let path_shown = path.display();
    let pem = read(path).map_err(|error| format!("{path_shown}: {error}"))?;
    let is_locked = ["BEGIN ENCRYPTED PRIVATE KEY", "Proc-Type: 4,ENCRYPTED"]
        .iter()
        .any(|words| pem.windows(words.len()).any(|window| window == words.as_bytes()));
    if is_locked {
        let away = "openssl pkey -in KEY -out NEW";
        return Err(format!("{path_shown}: the key has a passphrase, which nobody could give; `{away}` takes it off"));
    }
    // The error is not shown: it may quote the text.
    let key = PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|_| format!("{path_shown}: no private key is in it: text (PEM) with BEGIN PRIVATE KEY is expected"))?;
    Ok((key, pem))
}
