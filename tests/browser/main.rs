//! What a web page can do to a daemon through the browser of somebody who may use it: nothing.
//!
//! A real Chromium opens a page of another site, which tries every call that changes something in every way that a page has.
//! The browser's host may use the API without a token, so nothing but the rules about other sites stands in its way.

#[path = "../support/mod.rs"]
mod support;

mod chromium;
mod site;

use chromium::Chromium;
use site::Site;
use support::api::Api;
use support::certificates::{Authority, ECDSA};
use support::daemon::{Node, counters};
use support::{free_port, network, proxy, wait_for, wait_until};

/// The calls that change something, with `ID` and `KEY` for a job and a run of it.
const CHANGES: [&str; 14] = [
    "GET /cron/stop/ID",
    "GET /cron/start/ID",
    "GET /cron/delete/ID",
    "POST /cron/stop/ID",
    "POST /cron/start/ID",
    "POST /cron/delete/ID",
    "POST /cron/add?cronSet=0+0+0+1+1+*&command=evil",
    "POST /cron/update?id=ID&cronSet=0+0+0+1+1+*&command=evil",
    "POST /cron/run/ID",
    "POST /run/kill/KEY",
    "POST /cluster/pause",
    "POST /cluster/resume",
    "POST /cluster/drain?server=SERVER",
    "POST /cron/add",
];

/// A node with a job whose run lasts, and everything that a page could change about it.
struct Target {
    node: Node,
    debug: String,
    id: u64,
    key: String,
    before: String,
}

impl Target {
    fn new(mut node: Node, debug: String) -> Target {
        node.start();
        Target::prepared(node, debug)
    }

    fn prepared(node: Node, debug: String) -> Target {
        let id = node.api.add_idle("sleep 300", "");
        let key = node.api.run_job(id);
        wait_until("the run has begun", || node.api.get("/run/list").body.to_string().contains("running"));
        let before = state(&node);
        Target { node, debug, id, key, before }
    }

    fn on_loopback() -> Target {
        let debug = format!("127.0.0.1:{}", free_port());
        let node = Node::new(&format!("pprof_listen = \"{debug}\"\n"));
        Target::new(node, debug)
    }

    fn calls(&self) -> Vec<String> {
        let put_in = |call: &&str| {
            call.replace("ID", &self.id.to_string()).replace("KEY", &self.key).replace("SERVER", &self.node.server)
        };
        CHANGES.iter().map(put_in).collect()
    }

    /// Has the browser open the site's page, and checks that its requests came here and that nothing came of them.
    fn attack(&self, browser: &Chromium, site: &Site, page: &str) {
        let refused = || counters(&self.debug).get("http_refused").copied().unwrap_or(0);
        let before = refused();
        browser.open(page);
        let sent = wait_for("the page has tried everything", || site.attempts());
        assert!(80 < sent, "the page has sent {sent} requests");
        wait_until("they were refused", || {
            assert_eq!(state(&self.node), self.before, "a page has changed something");
            before + sent <= refused()
        });
        assert_eq!(state(&self.node), self.before, "a page has changed something");
    }
}

/// Everything that a page could change.
fn state(node: &Node) -> String {
    let jobs = node.api.get("/cron/list").body.to_string();
    let runs = node.api.get("/run/list").body["data"]["list"].as_array().map_or(0, Vec::len);
    let cluster = node.api.get("/cluster").body;
    format!("{jobs} {runs} {} {}", cluster["data"]["paused"], cluster["data"]["nodes"][0]["state"])
}

#[test]
fn a_page_from_another_port_of_this_host_changes_nothing() {
    let Some(browser) = Chromium::new(&[]) else { return };
    let target = Target::on_loopback();
    let site = Site::new("127.0.0.1:0", &target.node.api.address, &target.calls(), None);
    target.attack(&browser, &site, &format!("http://{}/", site.address));
}

#[test]
fn a_page_changes_nothing_by_https() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let Some(authority) = Authority::new(folder.path(), "authority") else { return };
    let Some(browser) = Chromium::new(&[]) else { return };
    let debug = format!("127.0.0.1:{}", free_port());
    let lines = authority.issue("node", ECDSA, 365).toml();
    let mut node = Node::new(&format!("pprof_listen = \"{debug}\"\n{lines}"));
    node.launch();
    let own = format!("https://{}", node.api.address);
    // The test itself asks by plain http.
    let Some(proxy) = proxy::haproxy_with(&node.api, "ssl verify none") else { return };
    node.api = proxy.api.clone();
    let target = Target::prepared(node, debug);
    let site = Site::new("127.0.0.1:0", &own, &target.calls(), None);
    target.attack(&browser, &site, &format!("http://{}/", site.address));
    assert_ne!(counters(&target.debug)["http_tls_handshakes"], 0);
}

#[test]
fn a_page_of_another_name_changes_nothing() {
    let Some(browser) = Chromium::new(&["MAP evil.example 127.0.0.1"]) else { return };
    let target = Target::on_loopback();
    let site = Site::new("127.0.0.1:0", &target.node.api.address, &target.calls(), None);
    let port = site.address.rsplit(':').next().unwrap();
    target.attack(&browser, &site, &format!("http://evil.example:{port}/"));
}

#[test]
fn a_page_whose_own_name_leads_here_changes_nothing() {
    let target = Target::on_loopback();
    // The site hands on what its page asks of its own name: to browser and daemon it is as if the name had another address by then.
    let site = Site::new("127.0.0.1:0", "rebound.example", &target.calls(), Some(&target.node.api.address));
    let Some(browser) = Chromium::new(&["MAP rebound.example 127.0.0.1"]) else { return };
    let port = site.address.rsplit(':').next().unwrap();
    target.attack(&browser, &site, &format!("http://rebound.example:{port}/"));
}

#[test]
fn a_page_on_a_network_without_https_changes_nothing() {
    let Some(network) = network::network(1) else { return };
    let Some(browser) = Chromium::new(&[]) else { return };
    let address = network.address(0);
    let debug = format!("{address}:{}", free_port());
    let node = Node::in_namespace(&network.namespace(0), &address, &format!("pprof_listen = \"{debug}\"\n"));
    let target = Target::new(node, debug);
    let site = Site::new(&format!("{}:0", network.gateway()), &target.node.api.address, &target.calls(), None);
    target.attack(&browser, &site, &format!("http://{}/", site.address));
}

#[test]
fn a_page_changes_nothing_through_a_proxy() {
    let target = Target::on_loopback();
    let Some(proxy) = proxy::proxy(&[&target.node.api], |file| file) else { return };
    let Some(browser) = Chromium::new(&[]) else { return };
    let Api { address } = &proxy.api;
    let site = Site::new("127.0.0.1:0", address, &target.calls(), None);
    target.attack(&browser, &site, &format!("http://{}/", site.address));
}
