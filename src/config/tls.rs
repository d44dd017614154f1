//! The keys about TLS to MySQL and to Consul.
//!
//! Invariant: each file that is named is read and checked here, so that a wrong one is a mistake at the start and not a
//! connection that fails later.

use super::reader::Reader;
use crate::model::config::MysqlTls;
use crate::model::tls::{IdentityFiles, TlsFile, TlsFiles, TlsMistake};
use std::path::Path;

/// The keys of the files: of the CAs, the client's certificate, its key.
struct Keys {
    ca: &'static str,
    cert: &'static str,
    key: &'static str,
}

const MYSQL: Keys = Keys { ca: "mysql_ca_file", cert: "mysql_cert_file", key: "mysql_key_file" };
const CONSUL: Keys = Keys { ca: "consul_ca_file", cert: "consul_cert_file", key: "consul_key_file" };

/// Whether and how MySQL is spoken to by TLS. Mistakes are left with the reader.
pub fn mysql(reader: &mut Reader) -> (MysqlTls, TlsFiles) {
    let name = reader.text("mysql_tls").filter(|name| !name.is_empty());
    let named = |name: &str| MysqlTls::NAMES.iter().find(|(known, _)| *known == name).map(|(_, tls)| *tls);
    let tls = name.map_or(Some(MysqlTls::default()), |name| {
        let tls = named(&name);
        if tls.is_none() {
            reader.mistake(
                "mysql_tls",
                &format!("\"off\", \"prefer\", \"require\" or \"verify\" is expected, not {name:?}"),
            );
        }
        tls
    });
    let tls = tls.unwrap_or_default();
    let mut files = given(reader, &MYSQL);
    if tls == MysqlTls::Verify {
        trust(reader, &MYSQL, &mut files);
    } else if files.ca.take().is_some() {
        reader.mistake(MYSQL.ca, "it is held against no server unless mysql_tls is \"verify\"");
    }
    if tls == MysqlTls::Off && files.identity.is_some() {
        reader.mistake(MYSQL.cert, "it is shown to no server while mysql_tls is \"off\"");
    }
    check(reader, &MYSQL, &files);
    (tls, files)
}

/// The files for Consul; none where it is not spoken to by TLS. Mistakes are left with the reader.
pub fn consul(reader: &mut Reader, is_https: bool) -> Option<TlsFiles> {
    let mut files = given(reader, &CONSUL);
    if !is_https {
        let named = [(CONSUL.ca, files.ca.is_some()), (CONSUL.cert, files.identity.is_some())];
        for (key, _) in named.into_iter().filter(|(_, is_given)| *is_given) {
            reader.mistake(key, "consul_address has no https://, so Consul would be spoken to without TLS");
        }
        return None;
    }
    trust(reader, &CONSUL, &mut files);
    check(reader, &CONSUL, &files);
    Some(files)
}

fn given(reader: &mut Reader, keys: &Keys) -> TlsFiles {
    let (ca, cert, key) = (reader.path(keys.ca), reader.path(keys.cert), reader.path(keys.key));
    let identity = match (cert, key) {
        (Some(cert), Some(key)) => Some(IdentityFiles { cert, key }),
        (None, None) => None,
        (Some(_), None) => {
            reader.mistake(keys.key, &format!("it is required where {} is set", keys.cert));
            None
        }
        (None, Some(_)) => {
            reader.mistake(keys.cert, &format!("it is required where {} is set", keys.key));
            None
        }
    };
    TlsFiles { ca, identity }
}

/// Where no CAs are named, those that the host trusts hold: there an operator's own CA is put for all programs, and nothing
/// that grows old is compiled in.
fn trust(reader: &mut Reader, keys: &Keys, files: &mut TlsFiles) {
    if files.ca.is_none() {
        files.ca = openssl_probe::probe().cert_file;
        if files.ca.is_none() {
            reader.mistake(
                keys.ca,
                "it is not set, and this host has no file of CA certificates (package ca-certificates): name the file of the CA that \
                 signed the server's certificate",
            );
        }
    }
}

fn check(reader: &mut Reader, keys: &Keys, files: &TlsFiles) {
    let read = |path: &Path| std::fs::read(path).map_err(|error| error.to_string());
    let mistakes = [files.roots(&read).err(), files.identity(&read).err()];
    for TlsMistake { file, reason } in mistakes.into_iter().flatten() {
        let key = match file {
            TlsFile::Ca => keys.ca,
            TlsFile::Cert => keys.cert,
            TlsFile::Key => keys.key,
        };
        reader.mistake(key, &reason);
    }
}
