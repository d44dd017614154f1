//! The keys about TLS: a file that cannot be used is a mistake at the start.

use crate::support::certificates::Ca;
use crate::support::daemon::{BINARY, finish, run};
use std::os::unix::fs::PermissionsExt;

const MYSQL: &str = "mysql_host = \"db\"\nmysql_user = \"u\"\nmysql_database = \"d\"\n";
const CONSUL: &str = "consul_address = \"https://127.0.0.1:8501\"\n";

/// Checks a file with this text beside the CA's files.
fn check(ca: &Ca, text: &str) -> (Option<i32>, String, String) {
    std::fs::write(ca.path("app.toml"), text).unwrap();
    std::fs::set_permissions(ca.path("app.toml"), PermissionsExt::from_mode(0o600)).unwrap();
    run(ca.path("").as_path(), &["--check-config", "--config", "app.toml"])
}

#[track_caller]
fn refused(ca: &Ca, text: &str, words: &[&str]) {
    let (code, _, stderr) = check(ca, text);
    assert_eq!((code, stderr.lines().count()), (Some(2), words.len()), "{text}: {stderr}");
    for (line, words) in stderr.lines().zip(words) {
        assert!(line.starts_with("wing-crontab: app.toml: ") && line.contains(words), "{line} does not say {words:?}");
    }
}

#[test]
fn files_that_cannot_be_used_are_mistakes() {
    let Some(ca) = Ca::new() else { return };
    ca.issue("one", "DNS:one");
    ca.issue("two", "DNS:two");
    std::fs::write(ca.path("locked.key"), "-----BEGIN ENCRYPTED PRIVATE KEY-----\n").unwrap();
    std::fs::write(ca.path("damaged.pem"), "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n").unwrap();
    std::fs::write(ca.path("empty.pem"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    for (service, required) in [("mysql", &format!("{MYSQL}mysql_tls = \"verify\"\n")), ("consul", &CONSUL.to_string())]
    {
        let refused = |lines: &str, words: &[&str]| {
            let own = format!("{required}{}", lines.replace("S_", &format!("{service}_")));
            let words: Vec<String> = words.iter().map(|words| words.replace("S_", &format!("{service}_"))).collect();
            refused(&ca, &own, &words.iter().map(String::as_str).collect::<Vec<_>>());
        };
        let ours = "S_ca_file = \"ca.pem\"\n";
        refused("S_ca_file = \"gone.pem\"\n", &["S_ca_file: gone.pem: No such file"]);
        refused("S_ca_file = \"one.key\"\n", &["S_ca_file: one.key: no certificate is in it"]);
        refused("S_ca_file = \"damaged.pem\"\n", &["S_ca_file: damaged.pem: its text (PEM) is damaged"]);
        refused("S_ca_file = \"empty.pem\"\n", &["S_ca_file: empty.pem: certificate 1 in it cannot be used"]);
        refused(
            &format!("{ours}S_cert_file = \"one.pem\"\n"),
            &["S_key_file: it is required where S_cert_file is set"],
        );
        refused(&format!("{ours}S_key_file = \"one.key\"\n"), &["S_cert_file: it is required where S_key_file is set"]);
        let pair = |cert: &str, key: &str| format!("{ours}S_cert_file = \"{cert}\"\nS_key_file = \"{key}\"\n");
        refused(
            &pair("one.pem", "two.key"),
            &["S_key_file: two.key: this is not the key of the first certificate in one.pem"],
        );
        refused(&pair("one.pem", "one.pem"), &["S_key_file: one.pem: no private key is in it"]);
        refused(&pair("one.pem", "locked.key"), &["S_key_file: locked.key: the key has a passphrase"]);
        refused(
            "S_ca_file = \"gone.pem\"\nS_cert_file = \"gone\"\nS_key_file = \"gone\"\n",
            &["S_ca_file", "S_cert_file"],
        );
    }
}

#[test]
fn keys_that_would_do_nothing_are_mistakes() {
    let Some(ca) = Ca::new() else { return };
    ca.issue("one", "DNS:one");
    refused(
        &ca,
        &format!("{MYSQL}mysql_tls = \"on\""),
        &["mysql_tls: \"off\", \"prefer\", \"require\" or \"verify\" is expected"],
    );
    let words = "mysql_ca_file: it is held against no server unless mysql_tls is \"verify\"";
    refused(&ca, &format!("{MYSQL}mysql_ca_file = \"ca.pem\""), &[words]);
    let own = "mysql_cert_file = \"one.pem\"\nmysql_key_file = \"one.key\"\n";
    refused(&ca, &format!("{MYSQL}{own}mysql_tls = \"off\""), &["mysql_cert_file: it is shown to no server"]);
    for address in ["127.0.0.1:8501", "http://127.0.0.1:8501"] {
        let text = format!("consul_address = \"{address}\"\nconsul_ca_file = \"ca.pem\"\n");
        refused(&ca, &text, &["consul_ca_file: consul_address has no https://"]);
    }
    refused(&ca, "consul_address = \"https://consul\"", &["consul_address: \"https://consul\" is not a host:port"]);
}

#[test]
fn a_key_that_others_can_read_is_warned_of_and_certificates_are_not() {
    let Some(ca) = Ca::new() else { return };
    let own = ca.issue("one", "DNS:one");
    let text = format!(
        "{MYSQL}mysql_tls = \"verify\"\nmysql_ca_file = \"ca.pem\"\nmysql_cert_file = \"one.pem\"\nmysql_key_file = \"one.key\"\n"
    );
    let (code, stdout, stderr) = check(&ca, &text);
    assert_eq!((code, stderr.as_str()), (Some(0), ""), "openssl writes keys for their owner only");
    assert!(stdout.contains("(TLS: verify, CAs of ca.pem, shows one.pem)"), "{stdout}");
    std::fs::set_permissions(&own.key, PermissionsExt::from_mode(0o644)).unwrap();
    let (code, _, stderr) = check(&ca, &text);
    assert_eq!((code, stderr.lines().count()), (Some(0), 1), "{stderr}");
    assert!(stderr.contains("mysql_key_file: every user of this host can read it; chmod o-r one.key"), "{stderr}");
}

#[test]
fn the_hosts_cas_hold_where_no_file_is_named_and_a_host_without_any_is_told_to_name_one() {
    let Some(ca) = Ca::new() else { return };
    std::fs::write(ca.path("app.toml"), format!("{MYSQL}mysql_tls = \"verify\"\n{CONSUL}")).unwrap();
    let on_host = |script: &str| {
        let mut command = std::process::Command::new("unshare");
        let script = format!("{script} exec \"$0\" --check-config --config app.toml");
        finish(
            command.args(["-m", "/bin/sh", "-c", &script, BINARY]).current_dir(ca.path("")).env_remove("SSL_CERT_FILE"),
        )
    };
    if !rustix::process::getuid().is_root() {
        return eprintln!("SKIPPED: only root can give this process other CAs");
    }
    let own = "mount -t tmpfs none /etc/ssl && mkdir /etc/ssl/certs && cp ca.pem /etc/ssl/certs/ca-certificates.crt &&";
    let (code, stdout, stderr) = on_host(own);
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(stdout.matches("CAs of /").count(), 2, "{stdout}");
    assert_eq!(on_host("").0, Some(0), "the CAs of the host that we run on can be used");
    let (code, _, stderr) = on_host("mount -t tmpfs none /etc/ssl &&");
    assert_eq!((code, stderr.lines().count()), (Some(2), 2), "{stderr}");
    for key in ["mysql_ca_file", "consul_ca_file"] {
        let words = format!("{key}: it is not set, and this host has no file of CA certificates");
        assert!(stderr.contains(&words), "{stderr}");
    }
}
