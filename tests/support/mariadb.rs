//! A real MariaDB. Most tests share one server and have a database each; a test that stops it has a server of its own.

use super::{Service, free_port, program, required, wait_for, wait_until};
use mysql::prelude::Queryable;
use mysql::{Conn, OptsBuilder};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};
use wing_crontab::model::config::{MysqlConfig, MysqlTls, Secret};
use wing_crontab::model::tls::TlsFiles;

pub struct Server {
    folder: PathBuf,
    host: String,
    pub port: u16,
    /// Beside those that every server has.
    options: Vec<String>,
    service: Option<Service>,
}

/// A database on a server.
#[derive(Clone, Debug)]
pub struct Database {
    pub host: String,
    pub port: u16,
    pub name: String,
    pub user: String,
}

/// A fresh, empty database on the server that the tests of this process share.
pub fn database() -> Option<Database> {
    static SHARED: OnceLock<Result<Server, String>> = OnceLock::new();
    let server = SHARED.get_or_init(|| Server::new("127.0.0.1")).as_ref().map_err(String::clone);
    required("MariaDB", server).map(|server| server.database("utf8mb4"))
}

/// A server that the test may stop.
pub fn server() -> Option<Server> {
    required("MariaDB", Server::new("127.0.0.1"))
}

/// A server at this address of the host, for nodes in namespaces of their own.
pub fn server_at(host: &str) -> Option<Server> {
    required("MariaDB", Server::new(host))
}

/// A server of the test with these options.
pub fn server_with(options: Vec<String>) -> Option<Server> {
    required("MariaDB", Server::with("127.0.0.1", options))
}

impl Server {
    fn new(host: &str) -> Result<Server, String> {
        Server::with(host, Vec::new())
    }

    fn with(host: &str, options: Vec<String>) -> Result<Server, String> {
        let missing = "it is not installed (scripts/install-test-services installs it)";
        let install = program("mariadb-install-db").ok_or(missing)?;
        let folder = tempfile::Builder::new().prefix("wing-mariadb-").tempdir().map_err(|error| error.to_string())?;
        // The service removes it.
        let folder = folder.keep();
        // When several run at once, its bootstrap may die of a fault of its own: one at a time, and a second attempt.
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let one = ONE_AT_A_TIME.lock();
        install_into(&install, &folder).or_else(|_| install_into(&install, &folder))?;
        drop(one);
        let mut server = Server { folder, host: host.into(), port: free_port(), options, service: None };
        server.start();
        Ok(server)
    }

    pub fn start(&mut self) {
        let mariadbd = program("mariadbd").expect("mariadbd is beside mariadb-install-db");
        let options = [
            mariadbd.display().to_string(),
            "--no-defaults".into(),
            "--user=root".into(),
            format!("--datadir={}", self.folder.join("data").display()),
            format!("--tmpdir={}", self.folder.join("tmp").display()),
            format!("--socket={}", self.folder.join("socket").display()),
            format!("--port={}", self.port),
            format!("--bind-address={}", self.host),
            "--skip-name-resolve".into(),
            "--character-set-server=utf8mb4".into(),
            "--innodb-buffer-pool-size=64M".into(),
        ];
        let options: Vec<&str> = options.iter().chain(&self.options).map(String::as_str).collect();
        self.service = Some(Service::start(&self.folder, &options).expect("a shell starts"));
        wait_for("MariaDB answers", || self.connect(None).ok());
    }

    /// Ends the server; `start` brings it back with its data.
    pub fn stop(&mut self, is_gentle: bool) {
        if let Some(service) = self.service.take() {
            service.stop(is_gentle);
        }
    }

    pub fn pid(&self) -> u32 {
        self.service.as_ref().expect("it runs").pid()
    }

    pub fn database(&self, charset: &str) -> Database {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("cron_{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let mut conn = self.connect(None).expect("the server has just answered");
        conn.query_drop(format!("CREATE DATABASE {name} CHARACTER SET {charset}")).expect("root may make a database");
        Database { host: self.host.clone(), port: self.port, name, user: "root".into() }
    }

    /// A database for nodes on other hosts: of a user who may come from anywhere, which root may not.
    pub fn database_for_hosts(&self) -> Database {
        let mut conn = self.connect(None).expect("the server has just answered");
        conn.query_drop("CREATE USER 'node'@'%'").expect("root may make a user");
        conn.query_drop("GRANT ALL ON *.* TO 'node'@'%'").expect("root may grant");
        Database { user: "node".into(), ..self.database("utf8mb4") }
    }

    /// Runs a statement as root, by the server's own socket, which needs no TLS.
    pub fn run(&self, statement: &str) {
        let mut conn = self.connect(None).expect("the server has just answered");
        conn.query_drop(statement).unwrap_or_else(|error| panic!("{statement}: {error}"));
    }

    fn connect(&self, database: Option<&str>) -> mysql::Result<Conn> {
        let socket = self.folder.join("socket").display().to_string();
        Conn::new(OptsBuilder::new().socket(Some(socket)).user(Some("root")).db_name(database))
    }
}

fn install_into(install: &Path, folder: &Path) -> Result<(), String> {
    let (data, temporary) = (folder.join("data"), folder.join("tmp"));
    let _ = std::fs::remove_dir_all(&data);
    std::fs::create_dir_all(&temporary).map_err(|error| error.to_string())?;
    let output = Command::new(install)
        .args(["--no-defaults", "--user=root", "--auth-root-authentication-method=normal"])
        .arg(format!("--datadir={}", data.display()))
        .arg(format!("--tmpdir={}", temporary.display()))
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("mariadb-install-db: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("mariadb-install-db: {}", String::from_utf8_lossy(&output.stderr))),
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.service.take());
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Database {
    pub fn connect(&self) -> Conn {
        connect(&self.host, self.port, Some(&self.name)).expect("the database is there")
    }

    /// Runs statements, one after the other.
    pub fn run(&self, statements: &[&str]) {
        let mut conn = self.connect();
        for statement in statements {
            conn.query_drop(statement).unwrap_or_else(|error| panic!("{statement}: {error}"));
        }
    }

    /// The same database for a user who may do everything in it, and is no administrator.
    pub fn for_a_user(&self) -> Database {
        let user = format!("owner_{}", self.name);
        self.run(&[
            &format!("CREATE USER IF NOT EXISTS '{user}'@'%'"),
            &format!("GRANT ALL ON `{}`.* TO '{user}'@'%'", self.name),
        ]);
        Database { user, ..self.clone() }
    }

    /// The same database for a user who may read and write rows of the present tables, and nothing else.
    pub fn limited(&self) -> Database {
        let user = format!("user_{}", self.name);
        let mut conn = self.connect();
        conn.query_drop(format!("CREATE USER '{user}'@'%'")).expect("root may make a user");
        let limited = Database { user, ..self.clone() };
        limited.tables().iter().for_each(|table| limited.allow("SELECT, INSERT, UPDATE, DELETE", table));
        limited
    }

    pub fn tables(&self) -> Vec<String> {
        self.connect().query("SHOW TABLES").expect("root may look")
    }

    /// Gives the user rights on a table, from now on.
    pub fn allow(&self, rights: &str, table: &str) {
        self.run(&[&format!("GRANT {rights} ON `{table}` TO '{}'@'%'", self.user)]);
    }

    pub fn forbid(&self, rights: &str, table: &str) {
        self.run(&[&format!("REVOKE {rights} ON `{table}` FROM '{}'@'%'", self.user)]);
    }

    /// The connections that nodes have to it.
    pub fn connections(&self) -> Vec<u64> {
        connections_but(&mut self.connect())
    }

    /// Opens connections to the server, as this user, until it takes no more.
    fn take_connections(&self) -> Vec<Conn> {
        let options = || OptsBuilder::new().ip_or_hostname(Some(&self.host)).tcp_port(self.port).user(Some(&self.user));
        std::iter::from_fn(|| Conn::new(options().prefer_socket(false)).ok()).collect()
    }

    /// Ends every connection that nodes have to it.
    pub fn end_connections(&self) {
        end_connections_but(&mut self.connect());
    }

    /// Lets this user, who is no administrator, have no connection: others take all that there are. Administrators have
    /// one more, `administrator`. The connections are free again when what it gives is dropped.
    pub fn without_connections(&self, administrator: &mut Conn) -> Vec<Conn> {
        administrator.query_drop("SET GLOBAL max_connections = 10").expect("root may set it");
        let mut taken = self.take_connections();
        wait_until("the nodes have none", || {
            end_connections_but(administrator);
            taken.extend(self.take_connections());
            connections_but(administrator).is_empty()
        });
        taken
    }

    pub fn config(&self) -> MysqlConfig {
        MysqlConfig {
            user: self.user.clone(),
            password: Secret::default(),
            host: self.host.clone(),
            port: self.port,
            database: self.name.clone(),
            tls: MysqlTls::default(),
            tls_files: TlsFiles::default(),
        }
    }

    /// The keys of app.toml.
    pub fn toml(&self) -> String {
        format!(
            "mysql_host = \"{}\"\nmysql_port = {}\nmysql_user = \"{}\"\nmysql_password = \"\"\nmysql_database = \"{}\"\nmysql_charset = \"utf8\"\n",
            self.host, self.port, self.user, self.name
        )
    }
}

/// The connections to the database of this one, without itself.
fn connections_but(conn: &mut Conn) -> Vec<u64> {
    let others = "SELECT id FROM information_schema.processlist WHERE db = DATABASE() AND id <> CONNECTION_ID()";
    conn.query(others).expect("root may look")
}

fn end_connections_but(conn: &mut Conn) {
    // Some may have gone by themselves.
    connections_but(conn).iter().for_each(|id| drop(conn.query_drop(format!("KILL {id}"))));
}

fn connect(host: &str, port: u16, database: Option<&str>) -> mysql::Result<Conn> {
    let options = OptsBuilder::new().ip_or_hostname(Some(host)).tcp_port(port).user(Some("root"));
    Conn::new(options.prefer_socket(false).db_name(database))
}
