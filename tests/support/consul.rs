//! A real Consul: a server in memory (`-dev`), and agents that join it, each on ports of its own.

use super::certificates::{Ca, Issued};
use super::network::Network;
use super::process::send_signal;
use super::{Service, free_port, program, required, wait_for};
use rustix::process::Signal;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

pub struct Agent {
    folder: PathBuf,
    binary: PathBuf,
    ports: [u16; 5],
    place: Place,
    service: Option<Service>,
}

/// Where an agent runs, and as what.
#[derive(Clone, Debug)]
struct Place {
    host: String,
    namespace: Option<String>,
    /// The token that may do everything, where ACLs are on.
    token: Option<&'static str>,
    /// The server that it joins, where it is an agent.
    joins: Option<String>,
    /// Where it listens by TLS as well.
    tls: Option<Tls>,
}

/// A listener by TLS, for clients with a certificate of this CA only.
#[derive(Clone, Debug)]
struct Tls {
    port: u16,
    ca: PathBuf,
    own: Issued,
}

/// The server that the tests of this process share; each test takes names of its own.
pub fn agent() -> Option<&'static Agent> {
    static SHARED: OnceLock<Result<Agent, String>> = OnceLock::new();
    let shared = SHARED.get_or_init(|| Agent::new(Place::at("127.0.0.1")));
    required("Consul", shared.as_ref().map_err(String::clone))
}

/// A server that the test may stop.
pub fn own_agent() -> Option<Agent> {
    agent_at("127.0.0.1")
}

/// A server that asks for this token.
pub fn own_agent_with_acls(token: &'static str) -> Option<Agent> {
    required("Consul", Agent::new(Place { token: Some(token), ..Place::at("127.0.0.1") }))
}

/// A server that listens by TLS as well, with this certificate, for clients that have one of the CA.
pub fn own_agent_with_tls(ca: &Ca, own: &Issued) -> Option<Agent> {
    let tls = Tls { port: free_port(), ca: ca.cert(), own: own.clone() };
    required("Consul", Agent::new(Place { tls: Some(tls), ..Place::at("127.0.0.1") }))
}

/// A server at this address of the host, for nodes in namespaces of their own.
pub fn agent_at(host: &str) -> Option<Agent> {
    required("Consul", Agent::new(Place::at(host)))
}

impl Place {
    fn at(host: &str) -> Place {
        Place { host: host.into(), namespace: None, token: None, joins: None, tls: None }
    }
}

/// The names of a cluster in Consul, which no other test uses.
#[derive(Clone, Debug)]
pub struct Names {
    pub service: String,
    pub lock: String,
}

impl Names {
    pub fn new() -> Names {
        Names { service: name(), lock: name() }
    }
}

/// A name that no other test uses.
pub fn name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("wing-{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

fn binary() -> Result<PathBuf, String> {
    let named = std::env::var_os("WING_CONSUL").map(PathBuf::from);
    let fetched = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/services/consul");
    let found = named.or_else(|| program("consul")).unwrap_or(fetched);
    if found.is_file() {
        Ok(found)
    } else {
        Err("there is no consul (scripts/install-test-services fetches it)".into())
    }
}

impl Agent {
    fn new(place: Place) -> Result<Agent, String> {
        let binary = binary()?;
        let folder = tempfile::Builder::new().prefix("wing-consul-").tempdir().map_err(|error| error.to_string())?;
        let mut agent =
            Agent { folder: folder.keep(), binary, ports: [(); 5].map(|()| free_port()), place, service: None };
        agent.start();
        Ok(agent)
    }

    /// An agent on this host that joins the server, as each node of a cluster has one.
    pub fn client(&self) -> Option<Agent> {
        self.join(self.place.clone())
    }

    /// An agent on a host of the network that joins the server.
    pub fn client_on(&self, network: &Network, host: usize) -> Option<Agent> {
        self.join(Place { namespace: Some(network.namespace(host)), ..Place::at(&network.address(host)) })
    }

    fn join(&self, place: Place) -> Option<Agent> {
        let [_, lan, ..] = self.ports;
        let joins = Some(format!("{}:{lan}", self.place.host));
        required("a Consul agent", Agent::new(Place { joins, ..place }))
    }

    /// Starts it, or starts it again; a server begins with an empty memory.
    pub fn start(&mut self) {
        let options = self.command();
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        self.service = Some(Service::start(&self.folder, &options).expect("a shell starts"));
        // It can hold sessions only once its own health check is there.
        wait_for("Consul has a leader and passes its own check", || {
            let node = if self.place.joins.is_some() { format!("\"{}\"", self.node()) } else { String::new() };
            let checks = self.get("/v1/health/state/passing");
            let checks = checks.filter(|checks| checks.contains("serfHealth") && checks.contains(&node));
            checks.and(self.get("/v1/status/leader")).filter(|leader| leader.len() > 2)
        });
    }

    fn command(&self) -> Vec<String> {
        let [http, lan, wan, server, dns] = self.ports;
        let namespace = self.place.namespace.iter();
        let mut command: Vec<String> =
            namespace.flat_map(|name| ["ip", "netns", "exec", name].map(String::from)).collect();
        command.extend([
            self.binary.display().to_string(),
            "agent".into(),
            format!("-bind={}", self.place.host),
            format!("-client={}", self.place.host),
            "-grpc-port=-1".into(),
            format!("-http-port={http}"),
            format!("-serf-lan-port={lan}"),
            format!("-server-port={server}"),
            format!("-dns-port={dns}"),
        ]);
        match &self.place.joins {
            None => command.extend(["-dev".into(), format!("-serf-wan-port={wan}")]),
            Some(server) => command.extend([
                format!("-node={}", self.node()),
                format!("-data-dir={}", self.folder.join("data").display()),
                format!("-retry-join={server}"),
                "-retry-interval=1s".into(),
            ]),
        }
        command.extend(self.place.token.map(|token| {
            format!("-hcl=acl {{ enabled = true default_policy = \"deny\" tokens {{ master = \"{token}\" agent = \"{token}\" }} }}")
        }));
        if let Some(Tls { port, ca, own }) = &self.place.tls {
            command.push(format!("-https-port={port}"));
            let (ca, cert, key) = (ca.display(), own.cert.display(), own.key.display());
            command.push(format!(
                "-hcl=verify_incoming_https = true ca_file = \"{ca}\" cert_file = \"{cert}\" key_file = \"{key}\""
            ));
        }
        command
    }

    /// While it hangs, it takes connections and answers nothing.
    pub fn set_hanging(&self, is_hanging: bool) {
        let signal = if is_hanging { Signal::STOP } else { Signal::CONT };
        send_signal(signal, self.service.as_ref().expect("it runs").pid());
    }

    pub fn stop(&mut self) {
        if let Some(service) = self.service.take() {
            service.stop(false);
        }
    }

    /// Its name among the hosts, where it is no server.
    fn node(&self) -> String {
        format!("client-{}", self.ports[0])
    }

    pub fn address(&self) -> String {
        format!("{}:{}", self.place.host, self.ports[0])
    }

    /// Where it listens by TLS.
    pub fn tls_address(&self) -> String {
        format!("{}:{}", self.place.host, self.place.tls.as_ref().expect("it does").port)
    }

    /// The keys of app.toml for a cluster with these names.
    pub fn toml(&self, Names { service, lock }: &Names) -> String {
        let address = self.address();
        format!("consul_address = \"{address}\"\nservice_name = \"{service}\"\nlock_key = \"{lock}\"\n")
    }

    /// The body of an answer with status 200.
    pub fn get(&self, path: &str) -> Option<String> {
        let request = ureq::get(format!("http://{}{path}", self.address()));
        let mut answer = request.header("X-Consul-Token", self.place.token.unwrap_or_default()).call().ok()?;
        answer.body_mut().read_to_string().ok()
    }

    pub fn put(&self, path: &str, body: &str) -> String {
        let request = ureq::put(format!("http://{}{path}", self.address()));
        let request = request.header("X-Consul-Token", self.place.token.unwrap_or_default());
        let mut answer = request.send(body).expect("Consul takes it");
        answer.body_mut().read_to_string().expect("Consul's answers are text")
    }

    pub fn delete(&self, path: &str) {
        let request = ureq::delete(format!("http://{}{path}", self.address()));
        request.header("X-Consul-Token", self.place.token.unwrap_or_default()).call().expect("Consul takes it");
    }

    /// The session that holds a lock, and the lock's value.
    pub fn lock(&self, key: &str) -> Option<(Option<String>, serde_json::Value)> {
        use base64::Engine;
        let keys: serde_json::Value = serde_json::from_str(&self.get(&format!("/v1/kv/{key}"))?).ok()?;
        let value = base64::engine::general_purpose::STANDARD.decode(keys[0]["Value"].as_str().unwrap_or_default());
        let value = serde_json::from_slice(&value.ok()?).unwrap_or_default();
        Some((keys[0]["Session"].as_str().map(String::from), value))
    }

    /// The instances of a service, with their checks.
    pub fn service(&self, name: &str) -> Vec<serde_json::Value> {
        let text = self.get(&format!("/v1/health/service/{name}")).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.service.take());
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
