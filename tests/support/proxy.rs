//! Real proxies before nodes of the test: nginx with the configuration that comes with the program, and HAProxy.

use super::api::Api;
use super::{Service, free_port, program, required, wait_until};

pub struct Proxy {
    pub api: Api,
    // The proxy ends with it, and its folder is removed.
    _service: Service,
}

/// Starts HAProxy before this API. `None` where there is none.
pub fn haproxy(api: &Api) -> Option<Proxy> {
    haproxy_with(api, "")
}

/// The same, with these words at the end of the line that names the API.
pub fn haproxy_with(api: &Api, words: &str) -> Option<Proxy> {
    let Some(program) = program("haproxy") else {
        eprintln!("SKIPPED: haproxy is not installed");
        return None;
    };
    let address = format!("127.0.0.1:{}", free_port());
    let file = format!(
        "defaults\n mode http\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n\
         listen api\n bind {address}\n option httpchk GET /health\n option forwardfor\n server one {} check {words}\n",
        api.address
    );
    let folder = tempfile::Builder::new().prefix("wing-haproxy-").tempdir().expect("a folder can be made").keep();
    std::fs::write(folder.join("haproxy.cfg"), file).expect("the folder takes a file");
    let command = [&program.display().to_string(), "-db", "-f", "haproxy.cfg"];
    let service = Service::start(&folder, &command).expect("a shell starts");
    let proxy = Proxy { api: Api { address }, _service: service };
    wait_until("HAProxy finds the node well", || proxy.api.try_get("/health").is_some_and(|reply| reply.status == 200));
    Some(proxy)
}

/// Starts nginx before these APIs; `edit` changes its configuration. `None` where there is no nginx.
pub fn proxy(apis: &[&Api], edit: impl FnOnce(String) -> String) -> Option<Proxy> {
    let nginx = program("nginx").ok_or("it is not installed (scripts/install-test-services installs it)".to_string());
    let nginx = required("nginx", nginx)?.display().to_string();
    let address = format!("127.0.0.1:{}", free_port());
    let file = edit(include_str!("../../config/nginx.conf").into());
    let is_server = |line: &&str| line.trim_start().starts_with("server 10.");
    let options = file.lines().find(is_server).and_then(|line| line.split_once(":9990")).expect("it names servers").1;
    let servers: String = apis.iter().map(|api| format!("server {}{options}\n", api.address)).collect();
    let file: String = file.lines().filter(|line| !is_server(line)).map(|line| format!("{line}\n")).collect();
    let file = file
        .replacen("upstream wing.crontab.com {", &format!("upstream wing.crontab.com {{\n{servers}"), 1)
        .replace("listen 80;", &format!("listen {address};"));
    let folder = tempfile::Builder::new().prefix("wing-nginx-").tempdir().expect("a folder can be made").keep();
    let own = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|name| format!("{name}_temp_path {name};"));
    let whole = format!(
        "daemon off; master_process off; pid pid; error_log stderr;\nevents {{}}\nhttp {{ access_log off; {}\n{file}}}\n",
        own.concat()
    );
    std::fs::write(folder.join("nginx.conf"), whole).expect("the folder takes a file");
    let prefix = folder.display().to_string();
    let command = [&nginx, "-e", "stderr", "-p", &prefix, "-c", "nginx.conf"];
    let service = Service::start(&folder, &command).expect("a shell starts");
    wait_until("nginx listens", || std::net::TcpStream::connect(&address).is_ok());
    Some(Proxy { api: Api { address }, _service: service })
}
