//! Certificates of a CA that only the test has, made by the program `openssl`.

use super::daemon::finish;
use super::{program, required};
use std::path::PathBuf;
use std::process::Command;
use tempfile::TempDir;

/// The default one would make every certificate a CA's.
const EMPTY_CONFIG: &str = "[req]\ndistinguished_name = name\n[name]\n";

pub struct Ca {
    folder: TempDir,
    openssl: PathBuf,
}

/// A certificate with its key.
#[derive(Clone, Debug)]
pub struct Issued {
    pub cert: PathBuf,
    pub key: PathBuf,
}

impl Ca {
    pub fn new() -> Option<Ca> {
        Ca::named("ca")
    }

    pub fn named(name: &str) -> Option<Ca> {
        let missing = "it is not installed (scripts/install-test-services installs it)".to_string();
        let openssl = required("openssl", program("openssl").ok_or(missing))?;
        let folder = tempfile::tempdir().expect("a folder can be made");
        std::fs::write(folder.path().join("config"), EMPTY_CONFIG).expect("the folder takes a file");
        let ca = Ca { folder, openssl };
        ca.make("ca", name, "basicConstraints=critical,CA:TRUE", &[]);
        Some(ca)
    }

    /// The CA's own certificate.
    pub fn cert(&self) -> PathBuf {
        self.path("ca.pem")
    }

    /// A certificate for a server or client with these names, such as `IP:127.0.0.1,DNS:localhost`.
    pub fn issue(&self, file: &str, names: &str) -> Issued {
        let (ca, key) = (self.cert().display().to_string(), self.path("ca.key").display().to_string());
        self.make(file, file, &format!("subjectAltName={names}"), &["-CA", &ca, "-CAkey", &key])
    }

    fn make(&self, file: &str, subject: &str, extension: &str, more: &[&str]) -> Issued {
        let issued = Issued { cert: self.path(&format!("{file}.pem")), key: self.path(&format!("{file}.key")) };
        let mut command = Command::new(&self.openssl);
        command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]);
        command.args(["-subj", &format!("/CN={subject}"), "-addext", extension]).args(more);
        command.arg("-config").arg(self.path("config"));
        command.arg("-out").arg(&issued.cert).arg("-keyout").arg(&issued.key);
        let (code, _, stderr) = finish(&mut command);
        assert_eq!(code, Some(0), "openssl: {stderr}");
        issued
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}
