//! Hosts on one machine: network namespaces joined by a bridge, whose links can be cut.
//!
//! They need root and iproute2. Names and addresses belong to this process, and go with the network.

use super::{program, required};
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A kernel under load has been seen to make a network through which nothing came: such a one is made anew.
const TRIES: u32 = 3;
/// How long a new network may take until all hosts are reached.
const WORKS_AFTER_MAX: Duration = Duration::from_secs(5);

pub struct Network {
    name: String,
    subnet: String,
    hosts: usize,
}

/// A network of so many hosts, all of which are reached; `None` where namespaces cannot be made.
pub fn network(hosts: usize) -> Option<Network> {
    let made = (1..=TRIES).find_map(|_| match make(hosts) {
        Ok(network) => network.works().then_some(Ok(network)),
        Err(error) => Some(Err(error)),
    });
    required("a network namespace", made.unwrap_or_else(|| Err(format!("{TRIES} networks were made, and none works"))))
}

fn make(hosts: usize) -> Result<Network, String> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("w{}x{count}", std::process::id());
    let subnet = format!("10.{}.{}", 100 + std::process::id() % 100, count % 250);
    let mut network = Network { name, subnet, hosts: 0 };
    network.make(hosts).map(|()| network)
}

const GATEWAY_MAC: &str = "02:00:00:00:00:fe";

fn mac(host: usize) -> String {
    format!("02:00:00:00:00:{host:02x}")
}

fn ip(arguments: &str) -> Result<(), String> {
    let program = program("ip").ok_or("iproute2 is not installed (scripts/install-test-services installs it)")?;
    let output = Command::new(program).args(arguments.split(' ')).output().map_err(|error| format!("ip: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("ip {arguments}: {}", String::from_utf8_lossy(&output.stderr))),
    }
}

/// Prints what `ip` shows of this.
fn show(arguments: &str) {
    let Some(program) = program("ip") else { return };
    if let Ok(output) = Command::new(program).args(arguments.split(' ')).output() {
        eprintln!("ip {arguments}:\n{}", String::from_utf8_lossy(&output.stdout));
    }
}

impl Network {
    fn make(&mut self, hosts: usize) -> Result<(), String> {
        let (bridge, gateway) = (self.bridge(), self.gateway());
        ip(&format!("link add {bridge} address {GATEWAY_MAC} type bridge"))?;
        ip(&format!("addr add {gateway}/24 dev {bridge}"))?;
        ip(&format!("addr add {}/24 dev {bridge}", self.other_gateway()))?;
        ip(&format!("link set {bridge} up"))?;
        for host in 0..hosts {
            self.hosts += 1;
            let (namespace, link, address) = (self.namespace(host), self.link(host), self.address(host));
            ip(&format!("netns add {namespace}"))?;
            let mac = mac(host);
            ip(&format!("link add {link} type veth peer name e0 address {mac} netns {namespace}"))?;
            ip(&format!("link set {link} master {bridge} up"))?;
            ip(&format!("-n {namespace} addr add {address}/24 dev e0"))?;
            ip(&format!("-n {namespace} link set e0 up"))?;
            ip(&format!("-n {namespace} link set lo up"))?;
        }
        Ok(())
    }

    /// Whether every host is reached. Where one is not, it says how the network looks.
    fn works(&self) -> bool {
        let end = Instant::now() + WORKS_AFTER_MAX;
        let cut_off = (0..self.hosts).find(|host| !self.reaches(*host, end));
        if let Some(host) = cut_off {
            eprintln!("host {host} of network {} is not reached; it is made anew", self.name);
            let namespace = self.namespace(host);
            for looks in ["-d link", "neigh", "route"] {
                show(looks);
                show(&format!("-n {namespace} {looks}"));
            }
        }
        cut_off.is_none()
    }

    /// Whether the host answers before `end` that nobody listens at its first port.
    fn reaches(&self, host: usize, end: Instant) -> bool {
        let address = SocketAddr::new(self.address(host).parse().expect("it is an address"), 1);
        let wait = || end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let answers = || TcpStream::connect_timeout(&address, wait()).map_err(|error| error.kind());
        while Instant::now() < end {
            if answers().err() == Some(ErrorKind::ConnectionRefused) {
                return true;
            }
        }
        false
    }

    /// Where services listen: the host that the others reach.
    pub fn gateway(&self) -> String {
        format!("{}.254", self.subnet)
    }

    /// Another address of that host, for a service that is to be cut off alone.
    pub fn other_gateway(&self) -> String {
        format!("{}.253", self.subnet)
    }

    pub fn address(&self, host: usize) -> String {
        format!("{}.{}", self.subnet, host + 1)
    }

    pub fn namespace(&self, host: usize) -> String {
        format!("{}h{host}", self.name)
    }

    /// Cuts a host off from everything by its own link, or heals that.
    pub fn set_link(&self, host: usize, is_up: bool) {
        let state = if is_up { "up" } else { "down" };
        ip(&format!("link set {} {state}", self.link(host))).expect("the link is ours");
    }

    /// Cuts a host off as a router far away would, or heals that: its own link stays up, and nobody is told that nothing
    /// comes through.
    pub fn set_far_link(&self, host: usize, is_up: bool) {
        self.set_neighbours();
        let place = if is_up { format!("master {}", self.bridge()) } else { "nomaster".into() };
        ip(&format!("link set {} {place}", self.link(host))).expect("the link is ours");
    }

    /// Drops in silence (`blackhole`) or refuses (`unreachable`) what the host sends to this address.
    pub fn block(&self, host: usize, address: &str, how: &str) {
        ip(&format!("-n {} route add {how} {address}/32", self.namespace(host))).expect("the namespace is ours");
    }

    pub fn unblock(&self, host: usize, address: &str) {
        ip(&format!("-n {} route del {address}/32", self.namespace(host))).expect("it was blocked");
    }

    /// Writes down which address each host has. Otherwise a host would ask for it, get no answer, and notice the cut.
    fn set_neighbours(&self) {
        let set = |at: &str, address: String, mac: &str| {
            ip(&format!("{at} {address} lladdr {mac} nud permanent")).expect("the namespaces are ours");
        };
        for host in 0..self.hosts {
            set(&format!("neigh replace dev {} to", self.bridge()), self.address(host), &mac(host));
            let at = format!("-n {} neigh replace dev e0 to", self.namespace(host));
            set(&at, self.gateway(), GATEWAY_MAC);
            set(&at, self.other_gateway(), GATEWAY_MAC);
            (0..self.hosts).filter(|other| *other != host).for_each(|other| set(&at, self.address(other), &mac(other)));
        }
    }

    fn bridge(&self) -> String {
        format!("{}b", self.name)
    }

    fn link(&self, host: usize) -> String {
        format!("{}l{host}", self.name)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for host in 0..self.hosts {
            let _ = ip(&format!("netns del {}", self.namespace(host)));
        }
        let _ = ip(&format!("link del {}", self.bridge()));
    }
}
