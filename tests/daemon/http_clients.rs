//! The API as clients in use speak it: curl, wget, Python, Node and Go, and nginx and HAProxy between.

use crate::support::daemon::{Node, finish};
use crate::support::proxy::{Proxy, haproxy, proxy};
use crate::support::{program, required};
use serde_json::Value;
use std::path::PathBuf;
use std::process::Command;

/// A client that is skipped, aloud, where the host does not have it.
fn client(name: &str) -> Option<PathBuf> {
    required(name, program(name).ok_or("it is not installed".to_string()))
}

/// A client that need not be there, also not under CI.
fn rare_client(name: &str) -> Option<PathBuf> {
    let found = program(name);
    if found.is_none() {
        eprintln!("SKIPPED: {name} is not installed");
    }
    found
}

/// What a client says on stdout; it has to end well.
#[track_caller]
fn said(command: &mut Command) -> String {
    let (code, out, err) = finish(command);
    assert_eq!(code, Some(0), "{command:?}: {out}{err}");
    out
}

struct Curl<'a> {
    program: PathBuf,
    node: &'a Node,
}

impl Curl<'_> {
    fn command(&self, arguments: &[&str], path: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["-sS", "--max-time", "60", "-q"]).args(arguments);
        command.arg(format!("http://{}{path}", self.node.api.address));
        command
    }

    #[track_caller]
    fn say(&self, arguments: &[&str], path: &str) -> String {
        said(&mut self.command(arguments, path))
    }

    /// The status of the answer.
    #[track_caller]
    fn status(&self, arguments: &[&str], path: &str) -> String {
        self.say(&[&["-o", "/dev/null", "-w", "%{http_code}"], arguments].concat(), path)
    }
}

#[test]
fn plain_curl_works_as_the_older_systems_manual_has_it() {
    let node = Node::started("");
    let Some(program) = client("curl") else { return };
    let curl = Curl { program, node: &node };
    let form = "cronSet=0 0 0 1 1 *&command=php -v&remark=&stop=0&start_time=0&end_time=0&is_mutex=1";
    let added: Value = serde_json::from_str(&curl.say(&["-X", "POST", "-d", form], "/cron/add")).unwrap();
    let id = added["data"]["id"].as_u64().expect("it is added");
    let form = format!("id={id}&{form}");
    for (arguments, path) in [
        (&["-X", "POST", "-d", &form][..], "/cron/update".to_string()),
        (&[], format!("/cron/stop/{id}")),
        (&[], format!("/cron/start/{id}")),
        (&[], "/cron/list".into()),
        (&[], "/log/list?limit=1".into()),
        (&[], format!("/cron/delete/{id}")),
    ] {
        let answer: Value = serde_json::from_str(&curl.say(arguments, &path)).unwrap();
        assert_eq!((&answer["code"], &answer["message"]), (&200.into(), &"ok".into()), "{path}: {answer}");
    }
}

#[test]
fn curl_may_use_what_it_can() {
    let node = Node::started("");
    let Some(program) = client("curl") else { return };
    let curl = Curl { program, node: &node };
    for _ in 0..10 {
        node.api.add_idle(&"x".repeat(2_000), "");
    }
    let form = ["-d", "cronSet=@yearly&command=true"];
    for headers in [&["-H", "Transfer-Encoding: chunked"][..], &["-H", "Expect: 100-continue"], &["--http1.0"]] {
        assert_eq!(curl.status(&[headers, &form].concat(), "/cron/add"), "200", "{headers:?}");
    }
    assert_eq!(curl.status(&["-F", "cronSet=x", "-F", "command=true"], "/cron/add"), "415");
    assert_eq!(curl.status(&["-H", "Host:"], "/cron/list"), "400");
    assert_eq!(curl.status(&["-H", "Content-Encoding: gzip", "-d", "x"], "/cron/add"), "415");
    assert!(curl.say(&["-I"], "/cron/list").starts_with("HTTP/1.1 200 OK\r\n"));
    assert!(curl.say(&["-i", "-X", "OPTIONS"], "/cron/add").contains("\r\nAllow: POST, OPTIONS\r\n"));
    let plain = curl.say(&[], "/cron/list");
    assert_eq!(curl.say(&["--compressed"], "/cron/list"), plain);
    let bytes: usize =
        curl.say(&["--compressed", "-o", "/dev/null", "-w", "%{size_download}"], "/cron/list").parse().unwrap();
    assert!(bytes < plain.len() / 5, "{bytes} of {}", plain.len());
    assert_eq!(curl.say(&["--path-as-is"], "//cron/list").matches("\"code\":404").count(), 1);
    let body = node.path("body");
    std::fs::write(&body, form[1]).unwrap();
    let upload = ["-X", "POST", "-T", body.to_str().unwrap(), "-H", "Transfer-Encoding: chunked"];
    assert_eq!(curl.status(&upload, "/cron/add"), "200");
}

#[test]
fn wget_is_answered() {
    let node = Node::started("");
    let Some(wget) = rare_client("wget") else { return };
    let url = |path: &str| format!("http://{}{path}", node.api.address);
    let mut post = Command::new(&wget);
    let added = said(post.args(["-qO-", "--post-data", "cronSet=@yearly&command=true"]).arg(url("/cron/add")));
    assert!(added.contains("\"code\":200"), "{added}");
    let list = said(Command::new(&wget).args(["-qO-"]).arg(url("/cron/list")));
    assert!(list.contains("\"command\":\"true\""), "{list}");
    said(Command::new(&wget).args(["-q", "--spider"]).arg(url("/cron/list")));
}

const PYTHON: &str = r#"
import gzip, http.client, json, sys
connection = http.client.HTTPConnection(sys.argv[1], timeout=60)
def ask(method, path, body=None, **more):
    connection.request(method, path, body, **more)
    answer = connection.getresponse()
    return answer.status, answer.read(), answer
form = [b"cronSet=@yearly&", b"command=", b"true" * 500]
for at in range(5):
    status, body, answer = ask("POST", "/cron/add", iter(form), encode_chunked=True, headers={"Transfer-Encoding": "chunked"})
    assert status == 200, body
status, body, answer = ask("HEAD", "/cron/list")
assert (status, body) == (200, b"") and int(answer.headers["Content-Length"]) > 10000, answer.headers
status, body, answer = ask("GET", "/cron/list", headers={"Accept-Encoding": "gzip"})
assert answer.headers["Content-Encoding"] == "gzip" and len(json.loads(gzip.decompress(body))["data"]) == 5
status, body, answer = ask("OPTIONS", "/health")
assert (status, body, answer.headers["Allow"]) == (204, b"", "GET, HEAD, OPTIONS")
status, body, answer = ask("HEAD", "/none")
assert (status, body) == (404, b"")
status, body, answer = ask("GET", "/health")
assert json.loads(body)["code"] == 200 and answer.headers["Date"].endswith(" GMT")
print("well")
"#;

#[test]
fn python_keeps_one_connection_through_all_of_it() {
    let node = Node::started("");
    let Some(python) = client("python3") else { return };
    assert_eq!(said(Command::new(python).args(["-c", PYTHON, &node.api.address])), "well\n");
}

const NODE: &str = r#"
const assert = require("assert"), http = require("http"), base = "http://" + process.argv[1];
(async () => {
    const list = async () => (await (await fetch(base + "/cron/list")).json()).data;
    const body = new URLSearchParams({ cronSet: "@yearly", command: "true".repeat(500) });
    for (let at = 0; at < 3; at++) assert.equal((await fetch(base + "/cron/add", { method: "POST", body })).status, 200);
    assert.equal((await list()).length, 3);
    assert.equal((await fetch(base + "/cron/list")).headers.get("content-encoding"), "gzip");
    assert.equal((await fetch(base + "/cron/list", { method: "HEAD" })).status, 200);
    const form = new FormData();
    form.append("cronSet", "@yearly");
    assert.equal((await fetch(base + "/cron/add", { method: "POST", body: form })).status, 415);
    const status = await new Promise((resolve, reject) => {
        const request = http.request(base + "/cron/add", { method: "POST" }, answer => resolve(answer.resume().statusCode));
        request.on("error", reject);
        request.write("cronSet=@yearly&");
        request.end("command=true");
    });
    assert.equal(status, 200, "in chunks");
    console.log("well");
    process.exit(0);
})();
"#;

#[test]
fn node_is_answered() {
    let node = Node::started("");
    let Some(program) = rare_client("node") else { return };
    assert_eq!(said(Command::new(program).args(["-e", NODE, &node.api.address])), "well\n");
}

const GO: &str = r#"
package main

import ("fmt"; "io"; "net/http"; "net/url"; "os"; "strings")

func main() {
    base := "http://" + os.Args[1]
    form := url.Values{"cronSet": {"@yearly"}, "command": {strings.Repeat("true", 500)}}
    for at := 0; at < 3; at++ {
        answer, err := http.PostForm(base + "/cron/add", form)
        if err != nil || answer.StatusCode != 200 { panic(fmt.Sprint(err, answer)) }
        io.Copy(io.Discard, answer.Body)
        answer.Body.Close()
    }
    chunked := io.MultiReader(strings.NewReader("cronSet=@yearly&"), strings.NewReader("command=true"))
    answer, err := http.Post(base + "/cron/add", "application/x-www-form-urlencoded", chunked)
    if err != nil || answer.StatusCode != 200 { panic(fmt.Sprint(err, answer)) }
    answer, err = http.Get(base + "/cron/list")
    if err != nil || !answer.Uncompressed { panic(fmt.Sprint(err, answer)) }
    body, err := io.ReadAll(answer.Body)
    if err != nil || strings.Count(string(body), "cron_set") != 4 { panic(string(body)) }
    answer, err = http.Head(base + "/cron/list")
    if err != nil || answer.StatusCode != 200 { panic(fmt.Sprint(err, answer)) }
    fmt.Println("well")
}
"#;

#[test]
fn go_is_answered() {
    let node = Node::started("");
    let Some(program) = rare_client("go") else { return };
    let source = node.path("main.go");
    std::fs::write(&source, GO).unwrap();
    assert_eq!(said(Command::new(program).arg("run").args([source.to_str().unwrap(), &node.api.address])), "well\n");
}

/// What a proxy has to pass on, asked by curl.
fn check_through(proxy: &Proxy, node: &Node) {
    let Some(program) = client("curl") else { return };
    for _ in 0..10 {
        node.api.add_idle(&"x".repeat(2_000), "");
    }
    let ask = |arguments: &[&str], path: &str| {
        let mut command = Command::new(&program);
        command.args(["-sS", "-q", "--max-time", "60"]).args(arguments);
        said(command.arg(format!("http://{}{path}", proxy.api.address)))
    };
    let status = ["-o", "/dev/null", "-w", "%{http_code}"];
    let chunked = ["-H", "Transfer-Encoding: chunked", "-d", "cronSet=@yearly&command=true"];
    assert_eq!(ask(&[&status[..], &chunked].concat(), "/cron/add"), "200");
    assert!(ask(&["-I"], "/cron/list").starts_with("HTTP/1.1 200 OK\r\n"));
    let plain = ask(&[], "/cron/list");
    assert_eq!((ask(&["--compressed"], "/cron/list"), plain.matches("\"cron_set\"").count()), (plain.clone(), 11));
    assert_eq!(ask(&[&status[..], &["-F", "a=b"]].concat(), "/cron/add"), "415");
    assert_eq!(ask(&[&status[..], &["-X", "OPTIONS"]].concat(), "/cron/list"), "204");
    let large = format!("remark={}", "x".repeat(100_000));
    assert_eq!(ask(&[&status[..], &["-d", &large]].concat(), "/cron/add"), "400");
}

#[test]
fn nginx_passes_all_of_it_on() {
    let node = Node::started("");
    let Some(proxy) = proxy(&[&node.api], |config| config) else { return };
    check_through(&proxy, &node);
}

#[test]
fn haproxy_passes_all_of_it_on() {
    let node = Node::started("");
    let Some(proxy) = haproxy(&node.api) else { return };
    check_through(&proxy, &node);
}
