//! A set of networks, such as the key `http_allow` names.
//!
//! Invariant: an IPv4 address that comes as an IPv6 one (`::ffff:10.0.0.1`) is the same address.

use ipnet::IpNet;
use std::fmt;
use std::net::IpAddr;

/// Networks of IPv4 and IPv6 addresses.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Networks(Vec<IpNet>);

impl Networks {
    /// The addresses of the host itself.
    pub fn loopback() -> Networks {
        let networks = ["127.0.0.0/8", "::1/128"];
        Networks(networks.iter().filter_map(|network| network.parse().ok()).collect())
    }

    /// Networks from texts such as "10.10.62.0/24", or single addresses. The error names the first text that is neither.
    pub fn parse(texts: &[String]) -> Result<Networks, String> {
        texts.iter().map(|text| network(text.trim())).collect::<Result<_, _>>().map(Networks)
    }

    /// Whether the address is in one of the networks.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// Whether there is no network, so that no address is in them.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether some network of these is the whole Internet.
    pub fn has_everything(&self) -> bool {
        self.0.iter().any(|network| network.prefix_len() == 0)
    }

    /// Whether all of them are loopback networks.
    pub fn is_loopback_only(&self) -> bool {
        self.0.iter().all(|network| network.network().is_loopback() && network.broadcast().is_loopback())
    }
}

fn network(text: &str) -> Result<IpNet, String> {
    let address = || text.parse::<IpAddr>().ok().map(|address| IpNet::from(address.to_canonical()));
    let network = text.parse().ok().or_else(address).map(|network: IpNet| network.trunc());
    network.ok_or_else(|| format!("{text:?} is no network, such as \"10.10.62.0/24\", and no address"))
}

impl fmt::Display for Networks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self.0.iter().map(IpNet::to_string).collect();
        f.write_str(&texts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_in_the_networks_that_hold_it() {
        let texts = ["10.10.62.7/24", "192.168.1.1", "fd00::/8"].map(String::from);
        let networks = Networks::parse(&texts).unwrap();
        for inside in ["10.10.62.0", "10.10.62.255", "::ffff:10.10.62.3", "192.168.1.1", "fd12::1"] {
            assert!(networks.contains(inside.parse().unwrap()), "{inside}");
        }
        for outside in ["10.10.63.0", "192.168.1.2", "::1", "127.0.0.1", "fe80::1"] {
            assert!(!networks.contains(outside.parse().unwrap()), "{outside}");
        }
        assert_eq!(networks.to_string(), "10.10.62.0/24, 192.168.1.1/32, fd00::/8");
        assert!(Networks::loopback().is_loopback_only() && !networks.is_loopback_only());
        assert!(Networks::parse(&["127.0.0.1/33".into()]).is_err() && Networks::parse(&["localhost".into()]).is_err());
        assert!(Networks::parse(&["0.0.0.0/0".into()]).unwrap().has_everything());
    }
}
