//! TLS to Consul, which asks for a client certificate.

use crate::support::certificates::{Ca, Issued};
use crate::support::consul::{self, Agent, Names};
use crate::support::daemon::Node;
use crate::support::mariadb;
use rustix::process::Signal;
use std::path::Path;
use wing_crontab::core::io::ports::{Consul, ConsulAnswer, ConsulError};
use wing_crontab::model::Server;
use wing_crontab::model::config::ConsulConfig;
use wing_crontab::model::tls::{IdentityFiles, TlsFiles};
use wing_crontab::worker::consul::ConsulClient;

const LOCAL: &str = "IP:127.0.0.1,DNS:server.dc1.consul";

fn files(ca: &Path, own: Option<&Issued>) -> Option<TlsFiles> {
    let identity = own.map(|own| IdentityFiles { cert: own.cert.clone(), key: own.key.clone() });
    Some(TlsFiles { ca: Some(ca.into()), identity })
}

fn register(address: &str, tls: Option<TlsFiles>) -> Result<ConsulAnswer, ConsulError> {
    let config = ConsulConfig { address: address.into(), tls, token: None, token_file: None };
    let client = ConsulClient::new(&config, &consul::name(), "lock", &Server("127.0.0.1:9991".into()));
    client.carry_out(&Consul::Register { is_leader: false })
}

#[track_caller]
fn refused(address: &str, tls: Option<TlsFiles>, words: &str) {
    let error = register(address, tls).unwrap_err();
    let ConsulError::Unavailable(why) = &error else { panic!("{error:?}") };
    assert!(why.contains(words) && why.contains(address), "{why:?} does not say {words:?}");
}

fn toml(agent: &Agent, names: &Names, ca: &str, own: &Issued) -> String {
    let toml = agent.toml(names).replace(&agent.address(), &format!("https://{}", agent.tls_address()));
    let (cert, key) = (own.cert.display(), own.key.display());
    format!("{toml}consul_ca_file = \"{ca}\"\nconsul_cert_file = \"{cert}\"\nconsul_key_file = \"{key}\"\n")
}

#[test]
fn what_is_wrong_with_a_certificate_or_a_port_is_said() {
    let (Some(ca), Some(other)) = (Ca::new(), Ca::new()) else { return };
    let Some(agent) = consul::own_agent_with_tls(&ca, &ca.issue("server", LOCAL)) else { return };
    let (address, own) = (agent.tls_address(), ca.issue("client", "DNS:node"));
    assert_eq!(register(&address, files(&ca.cert(), Some(&own))), Ok(ConsulAnswer::Done));
    refused(&address, files(&ca.cert(), None), "it asks for a client certificate");
    let foreign = other.issue("client", "DNS:node");
    refused(&address, files(&ca.cert(), Some(&foreign)), "it refuses the client certificate in");
    refused(&address, files(&other.cert(), Some(&own)), "its certificate is not trusted");
    let by_name = address.replace("127.0.0.1", "localhost");
    refused(&by_name, files(&ca.cert(), Some(&own)), "its certificate is for another name");
    refused(&agent.address(), files(&ca.cert(), Some(&own)), "it does not speak TLS at this port");
    refused(&address, None, "answered 400: Client sent an HTTP request to an HTTPS server");
}

#[test]
fn a_cluster_leads_by_tls_and_takes_up_new_files_at_hup() {
    let (Some(ca), Some(other), Some(database)) = (Ca::new(), Ca::new(), mariadb::database()) else { return };
    let Some(agent) = consul::own_agent_with_tls(&ca, &ca.issue("server", LOCAL)) else { return };
    let names = Names::new();
    let toml = toml(&agent, &names, "ca.pem", &ca.issue("client", "DNS:node"));
    // Consul is asked directly, whatever the environment names for others.
    let mut node = Node::new(&format!("{toml}{}", database.toml())).env("ALL_PROXY", "http://127.0.0.1:9");
    std::fs::copy(other.cert(), node.path("ca.pem")).unwrap();
    node.start();
    node.wait_said("its certificate is not trusted: no CA in ca.pem has signed it; see consul_ca_file");
    assert!(agent.service(&names.service).is_empty());
    std::fs::copy(ca.cert(), node.path("ca.pem")).unwrap();
    node.signal(Signal::HUP);
    node.wait_health(200);
    node.api.wait_takes_changes();
    let witness = node.witness("runs");
    node.api.add_every_second(&witness.write("ran"), "");
    witness.wait_count("ran", 2);
    let (session, value) = agent.lock(&names.lock).unwrap();
    assert!(session.is_some() && value["server"] == *node.server, "{value}");
    // Files that cannot be used change nothing.
    std::fs::write(node.path("ca.pem"), "no certificate").unwrap();
    node.signal(Signal::HUP);
    node.wait_said("ca.pem: no certificate is in it");
    witness.wait_more("ran", 2);
    assert!(node.stop().success());
    assert!(!node.said().contains("PRIVATE"), "{}", node.said());
}
