//! The files of the certificate: at the start, with a mistake, and replaced while the daemon runs.

use crate::http::connect;
use crate::support::certificates::{Authority, ECDSA};
use crate::support::daemon::{Node, finish, run};
use crate::support::https::Https;
use crate::support::program;
use rustix::process::Signal;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

/// The certificate that a new connection gets, as PEM.
fn shown(https: &Https) -> String {
    let mut command = Command::new(program("openssl").expect("it was found"));
    let (_, said, errors) = finish(command.args(["s_client", "-connect", &https.node.api.address]));
    let begin = said.find("-----BEGIN CERTIFICATE-----").unwrap_or_else(|| panic!("{said}{errors}"));
    said[begin..].split_inclusive("-----END CERTIFICATE-----").next().unwrap().to_string()
}

fn is_shown(https: &Https, file: &std::path::Path) -> bool {
    let der = |text: &str| CertificateDer::from_pem_slice(text.as_bytes()).unwrap().to_vec();
    der(&shown(https)) == der(&fs::read_to_string(file).unwrap())
}

#[test]
fn hup_puts_a_new_certificate_in_force_and_old_connections_go_on() {
    let Some(https) = Https::started("") else { return };
    let mut old = super::handshakes::Client::new(&https.authority, connect(&https.node));
    let who = |client: &mut super::handshakes::Client| client.ask("GET /whoami HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(who(&mut old).contains("200 OK"));
    let next = https.authority.issue("next", ECDSA, 3);
    assert!(is_shown(&https, &https.issued.cert) && !is_shown(&https, &next.cert));
    next.replace(&https.issued);
    https.node.signal(Signal::HUP);
    https.node.wait_said("new connections get this certificate");
    https.node.wait_said("http_tls_cert: the certificate ends in ");
    assert!(is_shown(&https, &next.cert));
    assert!(who(&mut old).contains("200 OK"), "its certificate is not in force any more");
    // Each mistake is told, and changes nothing.
    let other = https.authority.issue("other", ECDSA, 365);
    let (chain, key) = (&https.issued.cert, &https.issued.key);
    let mistakes: [(&dyn Fn(), &str); 4] = [
        (
            &|| assert_ne!(fs::copy(&other.key, key).unwrap(), 0),
            "it is not the key of the certificate in http_tls_cert",
        ),
        (&|| fs::write(key, "nonsense").unwrap(), "there is no private key in it"),
        (&|| fs::write(chain, "nonsense").unwrap(), "there is no certificate in it"),
        (&|| fs::remove_file(chain).unwrap(), "No such file"),
    ];
    for (mistake, words) in mistakes {
        mistake();
        https.node.signal(Signal::HUP);
        https.node.wait_said(words);
        assert!(is_shown(&https, &next.cert), "{words}");
        next.replace(&https.issued);
    }
    https.node.wait_said_times("the certificate in force is kept", 4);
    https.get("/whoami").ok();
}

/// What `--check-config` says of these lines of app.toml.
fn check(lines: &str) -> (Option<i32>, String) {
    let node = Node::new(lines);
    let config = node.config().display().to_string();
    let (code, out, err) = run(node.folder.path(), &["--config", &config, "--check-config"]);
    (code, format!("{out}{err}"))
}

#[test]
fn the_configuration_names_what_is_wrong_with_the_files() {
    let folder = tempfile::tempdir().unwrap();
    let Some(authority) = Authority::new(folder.path(), "authority") else { return };
    let issued = authority.issue("node", ECDSA, 365);
    let other = authority.issue("other", ECDSA, 365);
    let (code, said) = check(&issued.toml());
    assert!(code == Some(0) && said.contains("(HTTPS 127.0.0.1:") && !said.contains("warning"), "{said}");
    let (chain, key) = (issued.cert.display(), issued.key.display());
    let lines = |chain: &str, key: &str| format!("http_tls_cert = \"{chain}\"\nhttp_tls_key = \"{key}\"\n");
    for (lines, words) in [
        (format!("http_tls_cert = \"{chain}\"\n"), "http_tls_key: http_tls_cert is given without it; https takes both"),
        (format!("http_tls_key = \"{key}\"\n"), "http_tls_cert: http_tls_key is given without it; https takes both"),
        (lines("/none", &key.to_string()), "http_tls_cert: /none: No such file"),
        (lines(&key.to_string(), &key.to_string()), "http_tls_cert: "),
        (lines(&chain.to_string(), &chain.to_string()), "there is no private key in it"),
        (lines(&chain.to_string(), &other.key.display().to_string()), "it is not the key of the certificate"),
    ] {
        let (code, said) = check(&lines);
        assert!(code != Some(0) && said.contains(words), "{words}: {said}");
    }
    // One file may hold both.
    let both = [&issued.key, &issued.cert].map(|path| fs::read_to_string(path).unwrap()).concat();
    fs::write(&issued.key, both).unwrap();
    assert_eq!(check(&lines(&key.to_string(), &key.to_string())).0, Some(0));
    fs::set_permissions(&issued.key, PermissionsExt::from_mode(0o644)).unwrap();
    let (code, said) = check(&issued.toml());
    assert!(code == Some(0) && said.contains("http_tls_key: every user of this host can read it"), "{said}");
    let ending = authority.issue("ending", ECDSA, 10);
    let (code, said) = check(&ending.toml());
    assert!(code == Some(0) && said.contains("http_tls_cert: the certificate ends in "), "{said}");
}
