//! Clients in use: curl, openssl, wget, Python, and the proxies nginx and HAProxy with https behind them.

use crate::support::certificates::{Authority, RSA};
use crate::support::daemon::finish;
use crate::support::https::{Https, counted};
use crate::support::proxy::{haproxy_with, proxy};
use crate::support::{free_port, program, required};
use std::io::Write;
use std::process::{Command, Stdio};

/// Lets the list of log rows be some megabytes long.
pub fn add_large_rows(https: &Https, rows: usize) {
    let database = https.node.database();
    let sql = "INSERT INTO log (cron_id, time, output, use_time) VALUES (7, ?, ?, 0)";
    for at in 0..rows {
        database.execute(sql, rusqlite::params![at, "x".repeat(1_000_000)]).unwrap();
    }
}

#[test]
fn curl_uses_the_whole_api() {
    let debug = format!("127.0.0.1:{}", free_port());
    let Some(https) = Https::started(&format!("pprof_listen = \"{debug}\"\n")) else { return };
    let id = https.post("/cron/add", "cronSet=@yearly&command=true").ok()["id"].as_u64().unwrap();
    https.post(&format!("/cron/stop/{id}"), "").ok();
    let who = https.get("/whoami").ok();
    assert_eq!((&who["name"], &who["by"]), (&"127.0.0.1".into(), &"address".into()));
    let form = ["-d", "cronSet=@yearly&command=true"];
    for more in [&["-H", "Transfer-Encoding: chunked"][..], &["-H", "Expect: 100-continue"], &["--http1.0"]] {
        https.say(&[more, &form, &["-f"]].concat(), "/cron/add");
    }
    let body = https.folder.path().join("body");
    std::fs::write(&body, format!("cronSet=@yearly&command=true&remark={}", "x".repeat(200_000))).unwrap();
    let large = https.say(&["-X", "POST", "-T", body.to_str().unwrap()], "/cron/add");
    assert!(large.contains("remark"), "200 kB are read, and are too long for a remark: {large}");
    add_large_rows(&https, 5);
    for version in ["1.2", "1.3"] {
        let only = ["--tls-max", version, "--tlsv1.2"];
        assert!(5_000_000 < https.say(&only, "/log/list?limit=5").len(), "TLS {version}");
        assert!(5_000_000 < https.say(&[&only[..], &["--compressed"]].concat(), "/log/list?limit=5").len());
    }
    assert!(https.say(&["-I"], "/cron/list").starts_with("HTTP/1.1 200 OK\r\n"));
    // The same connection for all of them.
    let before = counted(&debug, "http_tls_handshakes");
    let (list, again) = (https.url("/cron/list"), https.url("/health"));
    https.say(&[&list, &again, &list, &again], "/log/list?limit=5");
    assert_eq!(counted(&debug, "http_tls_handshakes"), before + 1);
    // The socket needs no TLS.
    let socket = https.node.path("data/api.sock");
    let socket = ["-sS", "-f", "--unix-socket", socket.to_str().unwrap(), "http://localhost/whoami"];
    let (code, said, _) = finish(Command::new(program("curl").unwrap()).args(socket));
    assert!(code == Some(0) && said.contains("\"by\":\"socket\""), "{said}");
}

#[test]
fn a_chain_is_sent_whole_and_another_authoritys_client_refuses_it() {
    let Some(https) = Https::started("") else { return };
    let (code, _, said) = finish(&mut https.curl(&["--cacert", "/dev/null"], "/whoami"));
    assert!(code.is_some_and(|code| code != 0), "{said}");
    let other = Authority::new(https.folder.path(), "other").unwrap();
    let (code, _, said) = finish(&mut https.curl(&["--cacert", other.certificate().to_str().unwrap()], "/whoami"));
    assert_eq!(code, Some(60), "{said}");
    // A client that knows the root alone has to be sent what is between.
    let between = https.authority.intermediate("between");
    let issued = between.issue("below", RSA, 365);
    let chain = [&issued.cert, &between.certificate()].map(|path| std::fs::read_to_string(path).unwrap()).concat();
    std::fs::write(&issued.cert, chain).unwrap();
    issued.replace(&https.issued);
    https.node.signal(rustix::process::Signal::HUP);
    https.node.wait_said("new connections get this certificate");
    https.get("/whoami").ok();
}

/// What `openssl s_client` prints when this is its input.
fn s_client(https: &Https, arguments: &[&str], input: &[u8]) -> (bool, String) {
    let mut client = Command::new(program("openssl").expect("it was found"))
        .args(["s_client", "-connect", &https.node.api.address, "-CAfile"])
        .arg(https.authority.certificate())
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A client whose handshake fails reads no more of it.
    let _ = client.stdin.as_mut().unwrap().write_all(input);
    let output = client.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn openssl_gets_the_versions_and_the_protocol_that_are_spoken() {
    let Some(https) = Https::with(RSA, "") else { return };
    let pipelined = b"GET /whoami HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(50);
    let last = b"GET /whoami HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let requests = [&pipelined[..], last].concat();
    for (version, name) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let strict = ["-ign_eof", "-verify_return_error", "-alpn", "h2,http/1.1", version];
        let (is_well, said) = s_client(&https, &strict, &requests);
        assert!(is_well && said.contains("ALPN protocol: http/1.1") && said.contains(name), "{said}");
        assert_eq!(said.matches("HTTP/1.1 200 OK").count(), 51, "{said}");
        assert_eq!(said.matches("\"by\":\"address\"").count(), 51, "{said}");
    }
    for refused in [&["-alpn", "h2"][..], &["-tls1_1"], &["-tls1_2", "-cipher", "AES128-SHA"]] {
        let (is_well, said) = s_client(&https, refused, last);
        assert!(!is_well && said.contains("alert"), "{refused:?}: {said}");
    }
    // Some clients name no protocol, some no host.
    assert!(s_client(&https, &["-ign_eof", "-noservername"], last).1.contains("HTTP/1.1 200 OK"));
}

const PYTHON: &str = r#"
import http.client, json, socket, ssl, sys, time
host, port = sys.argv[1].split(":")
context = ssl.create_default_context(cafile=sys.argv[2])
connection = http.client.HTTPSConnection(host, int(port), timeout=60, context=context)
def ask(method, path, body=None, **more):
    connection.request(method, path, body, **more)
    answer = connection.getresponse()
    return answer.status, answer.read()
for at in range(5):
    form = iter([b"cronSet=@yearly&", b"command=", b"true" * 500])
    status, body = ask("POST", "/cron/add", form, encode_chunked=True, headers={"Transfer-Encoding": "chunked"})
    assert status == 200, body
assert len(json.loads(ask("GET", "/cron/list")[1])["data"]) == 5
# An end that is not announced (close_notify) raises here.
def opened():
    raw = socket.create_connection((host, int(port)), timeout=60)
    return context.wrap_socket(raw, server_hostname="localhost", suppress_ragged_eofs=False)
def rest(stream):
    whole = b""
    while True:
        part = stream.recv(1 << 16)
        if not part: return whole
        whole += part
for head in (b"GET /log/list?limit=5 HTTP/1.0\r\n\r\n", b"GET /log/list?limit=5 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"):
    stream = opened()
    for byte in head: stream.send(bytes([byte]))
    time.sleep(0.5)
    assert len(rest(stream)) > 5000000
# A request behind which the client says that no more comes.
incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
raw = socket.create_connection((host, int(port)), timeout=60)
def pump(act):
    while True:
        try: return act()
        except ssl.SSLWantReadError:
            raw.sendall(outgoing.read())
            incoming.write(raw.recv(1 << 16))
pump(tls.do_handshake)
tls.write(b"GET /whoami HTTP/1.1\r\nHost: localhost\r\n\r\n" * 3)
try: tls.unwrap()
except ssl.SSLWantReadError: pass
raw.sendall(outgoing.read())
while True:
    part = raw.recv(1 << 16)
    if not part: break
    incoming.write(part)
incoming.write_eof()
answers = b""
try:
    while True: answers += tls.read(1 << 16)
except ssl.SSLZeroReturnError: pass
assert answers.count(b"200 OK") == 3, answers
# Records that come in two halves, and many requests in one.
stream = opened()
stream.send(b"GET /whoami HTTP/1.1\r\nHost: localhost\r\n\r\n" * 300)
answers = b""
while answers.count(b"\"by\":\"address\"") < 300: answers += stream.recv(1 << 16)
print("well")
"#;

#[test]
fn python_reads_each_answer_to_its_announced_end() {
    let Some(https) = Https::started("") else { return };
    let Some(python) = required("Python", program("python3").ok_or("it is not installed".to_string())) else { return };
    add_large_rows(&https, 5);
    let mut command = Command::new(python);
    command.args(["-c", PYTHON, &https.node.api.address]).arg(https.authority.certificate());
    let (code, said, errors) = finish(&mut command);
    assert_eq!((code, said.as_str()), (Some(0), "well\n"), "{errors}");
}

#[test]
fn wget_is_answered() {
    let Some(https) = Https::started("") else { return };
    let Some(wget) = program("wget") else { return eprintln!("SKIPPED: wget is not installed") };
    let mut command = Command::new(wget);
    command.arg("-qO-").arg(format!("--ca-certificate={}", https.authority.certificate().display()));
    let (code, said, errors) = finish(command.arg(https.url("/whoami")));
    assert!(code == Some(0) && said.contains("\"by\":\"address\""), "{said}{errors}");
}

#[test]
fn proxies_pass_requests_on_by_https() {
    let Some(https) = Https::started("") else { return };
    add_large_rows(&https, 5);
    let trusted = https.authority.certificate().display().to_string();
    let haproxy = haproxy_with(&https.node.api, &format!("ssl verify required ca-file {trusted} check-ssl"));
    let verified = format!(
        "proxy_ssl_verify on; proxy_ssl_trusted_certificate {trusted}; proxy_ssl_name localhost; proxy_pass https://"
    );
    let nginx = proxy(&[&https.node.api], |config| config.replace("proxy_pass http://", &verified));
    for proxy in haproxy.iter().chain(&nginx) {
        let who = proxy.api.get("/whoami").ok();
        assert_eq!(who["name"], "127.0.0.1", "the proxy says for whom it asks");
        proxy.api.add_idle("true", "");
        let origin = |origin: &str| {
            let asked = ureq::post(format!("http://{}/cron/add", proxy.api.address)).header("Origin", origin);
            let asked = asked.config().http_status_as_error(false).build();
            asked.send_form([("cronSet", "@yearly"), ("command", "true")]).unwrap().status().as_u16()
        };
        assert_eq!(origin("http://evil.example"), 403);
        let rows = proxy.api.get("/log/list?limit=5").ok();
        assert_eq!(rows["list"].as_array().unwrap().len(), 5, "5 MB come through");
    }
}
