//! Tests of the configuration, a line a case.

use super::*;
use crate::model::config::MysqlTls;

fn read(text: &str) -> Result<Config, String> {
    parse(text, "app.toml", |_| None)
}

#[track_caller]
fn refuse(text: &str, expect: &[&str]) {
    let error = read(text).unwrap_err();
    assert_eq!(error.lines().count(), expect.len(), "{error}");
    for (line, words) in error.lines().zip(expect) {
        assert!(line.starts_with("app.toml: ") && line.contains(words), "{line:?} does not say {words:?}");
    }
}

/// The older system's file, unchanged.
const OLDER_APP_TOML: &str = r#"
consul_address = "127.0.0.1:8500"
service_name = "wing-crontab-service"
lock_key = "wing-crontab-lock"
bind_address = "127.0.0.1:9991"
http_bind_address = "127.0.0.1:9990"
pprof_listen = "127.0.0.1:8880"
log_level=5
mysql_user = "root"
mysql_password = "123456"
mysql_host = "127.0.0.1"
mysql_port = 3306
mysql_database = "cron"
mysql_charset = "utf8"
"#;

#[test]
fn the_older_systems_file_is_taken_as_it_is() {
    let config = read(OLDER_APP_TOML).unwrap();
    assert_eq!(&*config.bind_address.0, "127.0.0.1:9991");
    assert_eq!(config.log_level, log::LevelFilter::Debug);
    assert_eq!(config.consul.unwrap().address, "127.0.0.1:8500");
    let mysql = config.mysql.unwrap();
    assert_eq!(mysql.tls, MysqlTls::Prefer);
    assert_eq!((mysql.user.as_str(), mysql.password.0.as_str(), mysql.port), ("root", "123456", 3306));
    assert!(config.pprof_listen.is_some());
}

#[test]
fn the_files_of_this_project_are_right() {
    let app = read(include_str!("../../config/app.toml")).unwrap();
    assert!(app.mysql.is_none() && app.consul.is_none());
    let cluster = read(include_str!("../../config/cluster.toml")).unwrap();
    assert!(cluster.mysql.is_some() && cluster.consul.is_some());
}

#[test]
fn every_key_is_explained_in_the_default_file() {
    let text = include_str!("../../config/app.toml");
    for key in KEYS {
        assert!(text.lines().any(|line| line.trim_start_matches(['#', ' ']).starts_with(&format!("{key} ="))), "{key}");
    }
}

#[test]
fn an_empty_file_stands_alone_with_the_embedded_store() {
    for text in ["", "mysql_host = \"\"\nconsul_address = \"\"\npprof_listen = \"\""] {
        let config = read(text).unwrap();
        assert!(config.mysql.is_none() && config.consul.is_none() && config.pprof_listen.is_none());
        assert_eq!(config.limits, Limits::default());
        assert_eq!(config.drain_timeout_ms, 10_000);
    }
}

#[test]
fn mistakes_are_named_with_what_is_expected() {
    refuse("bind_address = \"0.0.0.0:9991\"", &["bind_address: \"0.0.0.0:9991\" names every interface"]);
    refuse("bind_address = \"[::]:9991\"", &["names every interface"]);
    refuse("bind_address = \"localhost:9991\"", &["bind_address: \"localhost:9991\" is not an ip:port"]);
    refuse("http_bind_address = \"127.0.0.1:0\"", &["http_bind_address: \"127.0.0.1:0\" is not an ip:port"]);
    refuse("http_bind_address = \"127.0.0.1:9991\"", &["http_bind_address: it is the same as bind_address"]);
    refuse("pprof_listen = \"8880\"", &["pprof_listen"]);
    refuse("log_level = 6", &["log_level: 6 is out of range: a number from 0 to 5"]);
    refuse("log_level = \"5\"", &["log_level: a number from 0 to 5 is expected, not a text"]);
    refuse("service_name = 5", &["service_name: a text in quotes is expected, not a number"]);
    refuse("service_name = \"\"", &["service_name: a name"]);
    refuse("mysql_prot = 3306", &["mysql_prot: there is no such key; is mysql_port meant?"]);
    refuse("something = 1", &["something: there is no such key"]);
    refuse("[table]\nx = 1", &["table: there is no such key"]);
    refuse("mysql_host = \"h\"", &["mysql_user: it is required", "mysql_database: it is required"]);
    refuse("mysql_port = 70000", &["mysql_port: 70000"]);
    refuse("mysql_charset = \"latin1\"", &["mysql_charset"]);
    refuse("consul_address = \"consul\"", &["consul_address: \"consul\" is not a host:port"]);
    refuse("consul_address = \"https://c\"", &["consul_address: \"https://c\" is not a host:port"]);
    refuse("shell = \"sh\"", &["shell: \"sh\" is not the absolute path"]);
    refuse("shell = \"/etc/passwd\"", &["shell"]);
    refuse("time_zone = \"Mars/Base\"", &["time_zone"]);
    refuse("max_running = 0", &["max_running: 0 is out of range"]);
    refuse("max_output_bytes = 4194305", &["max_output_bytes"]);
    refuse("mysql_password_file = \"/does/not/exist\"", &["mysql_password_file: /does/not/exist"]);
    refuse("mysql_password = \"a\"\nmysql_password_file = \"/dev/null\"", &["mysql_password is given as well"]);
    refuse("labels = \"gpu\"", &["labels: a list of texts"]);
    refuse("labels = [\"gpu\", 1]", &["labels: a list of texts"]);
    refuse("kill_grace = 3601", &["kill_grace: 3601 is out of range"]);
    refuse("cluster_secret = \"s\"", &["cluster_secret: it is shorter than 16 characters"]);
    refuse("cluster_secret = \"fifteen letters\"", &["cluster_secret: it is shorter than 16 characters"]);
    refuse("cluster_secret_file = \"/dev/null\"", &["cluster_secret: it is shorter than 16 characters"]);
    refuse("log_level = ", &["line 1"]);
}

#[test]
fn a_secret_of_the_cluster_has_sixteen_characters_or_is_not_given() {
    assert!(read("cluster_secret = \"sixteen letters!\"").unwrap().cluster.secret.is_some());
    assert!(read("cluster_secret = \"\"").unwrap().cluster.secret.is_none());
    let environment = |name: &str| (name == "WING_CLUSTER_SECRET").then(|| "short".to_string());
    let error = parse("", "app.toml", environment).unwrap_err();
    assert!(error.contains("shorter than 16") && !error.contains("short\""), "{error}");
}

#[test]
fn one_error_names_all_mistakes() {
    refuse(
        "nonsense = 1\nbind_address = \"x\"\nlog_level = 9\nmax_pending = -1",
        &["nonsense", "bind_address", "max_pending", "log_level"],
    );
}

#[test]
fn secrets_come_by_file_and_by_environment_and_are_never_shown() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "s3cret\n").unwrap();
    let base = "mysql_host = \"h\"\nmysql_user = \"u\"\nmysql_database = \"d\"\n";
    let text = format!("{base}mysql_password_file = {:?}", file.path());
    assert_eq!(read(&text).unwrap().mysql.unwrap().password.0, "s3cret");
    let environment = |name: &str| (name == "WING_MYSQL_PASSWORD").then(|| "other".to_string());
    let config = parse(&text, "app.toml", environment).unwrap();
    assert!(!format!("{config:?}{}", summary(&config)).contains("other"));
    assert_eq!(config.mysql.unwrap().password.0, "other");
    for wrong in ["mysql_password = s3cret", "mysql_password = \"s3cret", "mysql_password = [\"s3cret\"]"] {
        let error = read(wrong).unwrap_err();
        assert!(!error.contains("s3cret"), "{error}");
    }
}

/// What `config/app.toml` shows as the key's default.
fn shown_default<'a>(file: &'a str, key: &str) -> &'a str {
    let line = |line: &'a str| line.trim_start_matches("# ").strip_prefix(key)?.strip_prefix(" = ");
    file.lines().find_map(line).unwrap_or_else(|| panic!("config/app.toml does not show {key}"))
}

#[test]
fn every_key_and_its_default_is_in_the_file_and_in_the_manual() {
    let file = include_str!("../../config/app.toml");
    let manual = include_str!("../../docs/operations.md");
    for key in KEYS {
        let row = manual.lines().find_map(|line| line.strip_prefix(&format!("| `{key}` | ")));
        let row = row.unwrap_or_else(|| panic!("docs/operations.md has no row for {key}"));
        let told = row.split(" | ").nth(1).unwrap().replace([',', '`'], "");
        let told = told.split(' ').next().unwrap();
        match shown_default(file, key).trim_matches('"') {
            "" => assert!(["empty", "required"].contains(&told), "{key}: docs/operations.md says {told}"),
            // A list is one word of the row.
            list if list.starts_with('[') => {
                let column = row.split(" | ").nth(1).unwrap();
                assert!(column.starts_with(&format!("`{list}`")), "{key}: config/app.toml and docs/operations.md");
            }
            shown => assert_eq!(told, shown, "{key}: config/app.toml and docs/operations.md"),
        }
    }
}
