//! TLS to MariaDB.

use crate::listener::Listener;
use crate::support::certificates::{Ca, Issued};
use crate::support::daemon::Node;
use crate::support::mariadb::{self, Database, Server};
use mysql::prelude::Queryable;
use std::path::Path;
use wing_crontab::core::io::ports::StoreError;
use wing_crontab::model::config::{MysqlConfig, MysqlTls, Secret};
use wing_crontab::model::tls::{IdentityFiles, TlsFiles};
use wing_crontab::worker::store::mysql::MysqlStore;
use wing_crontab::worker::store::{Hand, Store};

const LOCAL: &str = "IP:127.0.0.1,DNS:localhost";

/// A server that offers TLS with this certificate.
fn server_with_tls(ca: &Ca, own: &Issued) -> Option<Server> {
    let file = |option: &str, path: &Path| format!("--{option}={}", path.display());
    mariadb::server_with(vec![file("ssl-ca", &ca.cert()), file("ssl-cert", &own.cert), file("ssl-key", &own.key)])
}

/// A user of this database who must come as `requires` says.
fn user(server: &Server, database: &Database, requires: &str) -> MysqlConfig {
    let name = format!("of_{}_{}", database.name, requires.to_lowercase());
    server.run(&format!("CREATE USER '{name}'@'%' IDENTIFIED BY 'its-password' REQUIRE {requires}"));
    server.run(&format!("GRANT ALL ON {}.* TO '{name}'@'%'", database.name));
    MysqlConfig { user: name, password: Secret("its-password".into()), ..database.config() }
}

fn files(ca: &Path) -> TlsFiles {
    TlsFiles { ca: Some(ca.into()), identity: None }
}

fn identity(issued: &Issued) -> Option<IdentityFiles> {
    Some(IdentityFiles { cert: issued.cert.clone(), key: issued.key.clone() })
}

fn open(config: &MysqlConfig) -> Result<(), StoreError> {
    MysqlStore::new(config, Hand::Lead).open().map(drop)
}

#[track_caller]
fn refused(config: &MysqlConfig, words: &str) {
    let error = open(config).unwrap_err();
    assert!(matches!(&error, StoreError::Away(why) if why.contains(words)), "{error:?} does not say {words:?}");
}

#[test]
fn a_listener_reads_no_command_once_the_server_offers_tls() {
    let Some(ca) = Ca::new() else { return };
    let Some(server) = server_with_tls(&ca, &ca.issue("server", LOCAL)) else { return };
    let verify = format!("mysql_tls = \"verify\"\nmysql_ca_file = \"{}\"\n", ca.cert().display());
    let off = "mysql_tls = \"off\"\n";
    for (lines, is_heard) in [(off, true), ("", false), ("mysql_tls = \"require\"\n", false), (&*verify, false)] {
        let database = server.database("utf8mb4");
        let listener = Listener::before(database.port);
        let near = Database { port: listener.port, ..database.clone() };
        let mut node = Node::started(&format!("{}{lines}", near.toml()));
        let id = node.api.add_every_second("echo a-secret-command", "");
        node.api.wait_for_rows(id, "ok", 2);
        // Connections that are ended under TLS are made anew, too.
        database.end_connections();
        let before = node.api.rows(id).len();
        node.api.wait_for_rows(id, "ok", before + 2);
        assert!(node.stop().success());
        assert_eq!(listener.has_heard("a-secret-command"), is_heard, "{lines:?}");
        let told = if is_heard { "connections are not encrypted" } else { "connections are encrypted (TLS_" };
        assert!(node.said().contains(told), "{}", node.said());
    }
}

#[test]
fn the_server_is_verified_by_ca_and_name() {
    let (Some(ca), Some(of_its_name), Some(other)) = (Ca::new(), Ca::new(), Ca::named("other")) else { return };
    let Some(server) = server_with_tls(&ca, &ca.issue("server", "IP:127.0.0.1,DNS:db.example")) else { return };
    let database = server.database("utf8mb4");
    let right = MysqlConfig { tls: MysqlTls::Verify, tls_files: files(&ca.cert()), ..user(&server, &database, "SSL") };
    open(&right).unwrap();
    for other in [&of_its_name, &other] {
        let wrong = MysqlConfig { tls_files: files(&other.cert()), ..right.clone() };
        refused(&wrong, &format!("not trusted: no CA in {} has signed it", other.cert().display()));
    }
    let by_another_name = MysqlConfig { host: "localhost".into(), ..right.clone() };
    refused(&by_another_name, "for another name");
    refused(&by_another_name, "db.example");
    // Without verification neither matters.
    for tls in [MysqlTls::Prefer, MysqlTls::Require] {
        open(&MysqlConfig { tls, tls_files: TlsFiles::default(), ..by_another_name.clone() }).unwrap();
    }
    let only_with_tls = "the server takes this user only with TLS (mysql_tls)";
    let off = MysqlConfig { tls: MysqlTls::Off, tls_files: TlsFiles::default(), ..right };
    refused(&off, only_with_tls);
    server.run("SET GLOBAL require_secure_transport = ON");
    let off = MysqlConfig { tls: MysqlTls::Off, ..database.config() };
    refused(&off, only_with_tls);
}

#[test]
fn a_server_without_tls_is_refused_unless_it_is_only_preferred() {
    let (Some(database), Some(ca)) = (mariadb::database(), Ca::new()) else { return };
    for tls in [MysqlTls::Off, MysqlTls::Prefer] {
        open(&MysqlConfig { tls, ..database.config() }).unwrap();
    }
    for tls in [MysqlTls::Require, MysqlTls::Verify] {
        let config = MysqlConfig { tls, tls_files: files(&ca.cert()), ..database.config() };
        refused(&config, &format!("it offers no TLS, and mysql_tls is \"{}\"", tls.name()));
    }
}

/// A server refuses a host that gives up many connections.
#[test]
fn a_server_without_tls_is_asked_once_for_it() {
    let Some(mut server) = mariadb::server() else { return };
    let database = server.database("utf8mb4");
    let mut store = MysqlStore::new(&database.config(), Hand::Lead);
    store.open().unwrap();
    for _ in 0..5 {
        database.end_connections();
        store.ping().unwrap();
    }
    let given_up =
        "SELECT variable_value FROM information_schema.global_status WHERE variable_name = 'ABORTED_CONNECTS'";
    assert_eq!(database.connect().query_first::<u64, _>(given_up).unwrap(), Some(1));
    // It may have TLS when it comes back.
    server.stop(true);
    store.ping().unwrap_err();
    store.ping().unwrap_err();
    server.start();
    store.ping().unwrap();
    assert_eq!(database.connect().query_first::<u64, _>(given_up).unwrap(), Some(1), "it counts from its start");
}

#[test]
fn tls_that_fails_is_gone_without_where_it_is_only_preferred() {
    let Some(ca) = Ca::new() else { return };
    let own = ca.issue("server", LOCAL);
    let old = ["--tls-version=TLSv1.1".to_string(), "--ssl-cipher=ALL:@SECLEVEL=0".into()];
    let file = |option: &str, path: &Path| format!("--{option}={}", path.display());
    let options = old.into_iter().chain([file("ssl-cert", &own.cert), file("ssl-key", &own.key)]);
    let Some(server) = mariadb::server_with(options.collect()) else { return };
    let database = server.database("utf8mb4");
    open(&MysqlConfig { tls: MysqlTls::Prefer, ..database.config() }).unwrap();
    refused(&MysqlConfig { tls: MysqlTls::Require, ..database.config() }, "neither TLS 1.2 nor 1.3");
    let Some(good) = server_with_tls(&ca, &own) else { return };
    let database = good.database("utf8mb4");
    let cut = MysqlConfig { port: Listener::that_cuts_tls(database.port).port, ..database.config() };
    open(&MysqlConfig { tls: MysqlTls::Prefer, ..cut.clone() }).unwrap();
    open(&MysqlConfig { tls: MysqlTls::Require, ..cut }).unwrap_err();
}

#[test]
fn a_client_certificate_is_shown_and_its_lack_is_said() {
    let (Some(ca), Some(other)) = (Ca::new(), Ca::new()) else { return };
    let Some(server) = server_with_tls(&ca, &ca.issue("server", LOCAL)) else { return };
    let database = server.database("utf8mb4");
    let none = MysqlConfig { tls: MysqlTls::Verify, tls_files: files(&ca.cert()), ..user(&server, &database, "X509") };
    refused(&none, "only with a client certificate (mysql_cert_file, mysql_key_file)");
    let shown = |issued: &Issued| TlsFiles { identity: identity(issued), ..files(&ca.cert()) };
    open(&MysqlConfig { tls_files: shown(&ca.issue("client", "DNS:node")), ..none.clone() }).unwrap();
    let foreign = MysqlConfig { tls_files: shown(&other.issue("client", "DNS:node")), ..none };
    refused(&foreign, "refuses the client certificate in");
}

#[test]
fn files_that_are_replaced_count_from_the_next_connection_on() {
    let (Some(ca), Some(other)) = (Ca::new(), Ca::new()) else { return };
    let Some(server) = server_with_tls(&ca, &ca.issue("server", LOCAL)) else { return };
    let database = server.database("utf8mb4");
    let mut node = Node::new(&format!("{}mysql_tls = \"verify\"\nmysql_ca_file = \"ca.pem\"\n", database.toml()));
    std::fs::copy(other.cert(), node.path("ca.pem")).unwrap();
    node.launch();
    node.wait_said("its certificate is not trusted: no CA in ca.pem has signed it; see mysql_ca_file");
    let gone = MysqlConfig { tls: MysqlTls::Verify, tls_files: files(&node.path("gone.pem")), ..database.config() };
    refused(&gone, "gone.pem: No such file");
    std::fs::copy(ca.cert(), node.path("ca.pem")).unwrap();
    node.wait_up();
    node.wait_health(200);
    assert!(node.stop().success());
}
