//! Certificates for tests, made by the program `openssl`: an authority, and what it signs.

use super::{program, required};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// The kind of a private key, as arguments of `openssl req`.
pub const ECDSA: &[&str] = &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
pub const RSA: &[&str] = &["-newkey", "rsa:2048"];

/// What `openssl` would otherwise take from the host's own configuration.
const CONFIG: &str = "[req]\ndistinguished_name = dn\nx509_extensions = ca\n[dn]\n[ca]\nbasicConstraints = critical, CA:TRUE\n\
    keyUsage = critical, keyCertSign, cRLSign\n";
/// The names of this host.
pub const LOCAL: &str = "IP:127.0.0.1,DNS:localhost";

/// Signs certificates. Everything is in its folder, by names.
pub struct Authority {
    folder: PathBuf,
    name: String,
}

/// A certificate, with its chain, and its private key.
#[derive(Clone, Debug)]
pub struct Issued {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// An authority with a folder of its own.
pub struct Ca {
    folder: TempDir,
    authority: Authority,
}

impl Ca {
    /// None where there is no `openssl`.
    pub fn new() -> Option<Ca> {
        Ca::named("ca")
    }

    pub fn named(name: &str) -> Option<Ca> {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let authority = Authority::new(folder.path(), name)?;
        Some(Ca { folder, authority })
    }

    /// Its own certificate.
    pub fn cert(&self) -> PathBuf {
        self.authority.certificate()
    }

    /// A certificate for a server or client with these names, such as `LOCAL`.
    pub fn issue(&self, file: &str, names: &str) -> Issued {
        self.authority.issue_for(file, ECDSA, 2, names)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Authority {
    /// A new authority in this folder. None where there is no `openssl`.
    pub fn new(folder: &Path, name: &str) -> Option<Authority> {
        required("openssl", program("openssl").ok_or("it is not installed".to_string()))?;
        let authority = Authority { folder: folder.into(), name: name.into() };
        fs::write(authority.path("cnf"), CONFIG).expect("the folder takes a file");
        let (subject, key, certificate) = (format!("/CN={name}"), authority.path("key"), authority.path("pem"));
        let root = ["req", "-x509", "-nodes", "-days", "3650", "-subj", &subject];
        authority.openssl(&[&root[..], ECDSA, &["-keyout", text(&key), "-out", text(&certificate)]].concat());
        Some(authority)
    }

    /// The certificate that a client has to trust.
    pub fn certificate(&self) -> PathBuf {
        self.path("pem")
    }

    /// A certificate for 127.0.0.1 and `localhost`, in files of this name, for so many days.
    pub fn issue(&self, name: &str, kind: &[&str], days: u32) -> Issued {
        self.issue_for(name, kind, days, LOCAL)
    }

    /// The same for other names.
    fn issue_for(&self, name: &str, kind: &[&str], days: u32, names: &str) -> Issued {
        let leaf = format!("{CONFIG}[leaf]\nbasicConstraints = CA:FALSE\nsubjectAltName = {names}\n");
        fs::write(self.path("cnf"), leaf).expect("the folder takes a file");
        self.sign(name, kind, "leaf", days)
    }

    /// Another authority, whose certificate this one has signed.
    pub fn intermediate(&self, name: &str) -> Authority {
        self.sign(name, ECDSA, "ca", 3_650);
        let authority = Authority { folder: self.folder.clone(), name: name.into() };
        fs::write(authority.path("cnf"), CONFIG).expect("the folder takes a file");
        authority
    }

    fn sign(&self, name: &str, kind: &[&str], extensions: &str, days: u32) -> Issued {
        let file = |extension: &str| self.folder.join(format!("{name}.{extension}"));
        let (request, key, chain, days) = (file("csr"), file("key"), file("pem"), days.to_string());
        let subject = format!("/CN={name}");
        let new = [&["req", "-nodes", "-subj", &subject][..], kind, &["-keyout", text(&key), "-out", text(&request)]];
        self.openssl(&new.concat());
        let (own, own_key, config) = (self.path("pem"), self.path("key"), self.path("cnf"));
        let sign =
            ["x509", "-req", "-in", text(&request), "-CA", text(&own), "-CAkey", text(&own_key), "-CAcreateserial"];
        let with = ["-days", &days, "-extfile", text(&config), "-extensions", extensions, "-out", text(&chain)];
        self.openssl(&[&sign[..], &with].concat());
        Issued { cert: chain, key }
    }

    fn path(&self, extension: &str) -> PathBuf {
        self.folder.join(format!("{}.{extension}", self.name))
    }

    fn openssl(&self, arguments: &[&str]) {
        let mut command = Command::new(program("openssl").expect("it was found"));
        command.args(arguments).env("OPENSSL_CONF", self.path("cnf")).stdin(Stdio::null());
        let output = command.output().expect("it starts");
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Issued {
    /// Its lines of app.toml.
    pub fn toml(&self) -> String {
        format!("http_tls_cert = \"{}\"\nhttp_tls_key = \"{}\"\n", self.cert.display(), self.key.display())
    }

    /// Puts this certificate and its key in the place of another's.
    pub fn replace(&self, other: &Issued) {
        fs::copy(&self.cert, &other.cert).expect("the file can be replaced");
        fs::copy(&self.key, &other.key).expect("the file can be replaced");
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("the folder has a plain name")
}
