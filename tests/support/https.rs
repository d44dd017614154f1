//! A node whose API speaks https, asked by curl.

use super::api::Reply;
use super::certificates::{Authority, ECDSA, Issued};
use super::daemon::{Node, counters, finish};
use super::{program, required, wait_until};
use std::path::PathBuf;
use std::process::Command;
use tempfile::TempDir;

/// A counter, by its name.
pub fn counted(debug: &str, name: &str) -> u64 {
    counters(debug).get(name).copied().unwrap_or(0)
}

/// A node that speaks https, with an authority of its own.
pub struct Https {
    pub node: Node,
    pub authority: Authority,
    pub issued: Issued,
    pub folder: TempDir,
    curl: PathBuf,
}

impl Https {
    /// Started, with an ECDSA key. None where there is no `openssl` or no `curl`.
    pub fn started(extra: &str) -> Option<Https> {
        Https::with(ECDSA, extra)
    }

    /// The same with another kind of key.
    pub fn with(kind: &[&str], extra: &str) -> Option<Https> {
        let curl = required("curl", program("curl").ok_or("it is not installed".to_string()))?;
        let folder = tempfile::Builder::new().prefix("wing-https-").tempdir().expect("a folder can be made");
        let authority = Authority::new(folder.path(), "authority")?;
        let issued = authority.issue("node", kind, 365);
        let mut node = Node::new(&format!("{}{extra}", issued.toml()));
        node.launch();
        let https = Https { node, authority, issued, folder, curl };
        https.wait_up();
        Some(https)
    }

    pub fn wait_up(&self) {
        wait_until("the API answers by https", || finish(&mut self.curl(&["-f"], "/log/list?limit=1")).0 == Some(0));
    }

    pub fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.node.api.address)
    }

    /// curl, which trusts the node's authority.
    pub fn curl(&self, arguments: &[&str], path: &str) -> Command {
        let mut command = Command::new(&self.curl);
        command.args(["-q", "-sS", "--max-time", "60", "--cacert"]).arg(self.authority.certificate());
        command.args(arguments).arg(self.url(path));
        command
    }

    /// What curl prints; it has to end well.
    #[track_caller]
    pub fn say(&self, arguments: &[&str], path: &str) -> String {
        let mut command = self.curl(arguments, path);
        let (code, out, err) = finish(&mut command);
        assert_eq!(code, Some(0), "{command:?}: {out}{err}");
        out
    }

    #[track_caller]
    pub fn get(&self, path: &str) -> Reply {
        self.ask(&[], path)
    }

    /// Posts this form.
    #[track_caller]
    pub fn post(&self, path: &str, form: &str) -> Reply {
        self.ask(&["-d", form], path)
    }

    #[track_caller]
    fn ask(&self, arguments: &[&str], path: &str) -> Reply {
        let said = self.say(&[&["-w", "\n%{http_code}"], arguments].concat(), path);
        let (body, status) = said.rsplit_once('\n').expect("the status stands on a line of its own");
        Reply { status: status.parse().unwrap(), body: serde_json::from_str(body).expect("an answer is JSON") }
    }

    /// Adds a job of every second; gives its id.
    #[track_caller]
    pub fn add_every_second(&self, command: &str) -> u64 {
        let form = super::jobs::form(&[("cronSet", "* * * * * *"), ("command", command)]);
        self.post("/cron/add", &form).ok()["id"].as_u64().expect("it has an id")
    }
}
