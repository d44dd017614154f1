//! The keys about the services that a node uses: MySQL and Consul.
//!
//! Not whether they answer: the daemon's start finds that out.
//!
//! Invariant: a service that is named has all that it takes to reach it.

use super::reader::Reader;
use super::secrets::{secret, secret_and_file};
use super::tls;
use crate::model::config::{Config, ConsulConfig, MysqlConfig};
use crate::model::tls::TlsFiles;

/// Consul; none where the node stands alone. Mistakes are left with the reader.
pub fn consul(reader: &mut Reader, environment: &dyn Fn(&str) -> Option<String>) -> Option<ConsulConfig> {
    let (token, token_file) =
        secret_and_file(reader, environment, ["consul_token", "consul_token_file", "WING_CONSUL_TOKEN"]);
    let text = reader.text("consul_address").filter(|text| !text.is_empty())?;
    let (is_https, address) = match text.strip_prefix("https://") {
        Some(address) => (true, address),
        None => (false, text.strip_prefix("http://").unwrap_or(&text)),
    };
    let address = address.trim_end_matches('/');
    let tls = tls::consul(reader, is_https);
    let port = address.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
    if !port.is_some_and(|(host, port)| !host.is_empty() && port != 0 && !host.contains(['/', ' '])) {
        reader.mistake(
            "consul_address",
            &format!("{text:?} is not a host:port, such as \"127.0.0.1:8500\" or, by TLS, \"https://127.0.0.1:8501\""),
        );
    }
    let token = token.filter(|token| !token.0.is_empty());
    Some(ConsulConfig { address: address.into(), tls, token, token_file })
}

/// The database; none where the store is the embedded one. Mistakes are left with the reader.
pub fn mysql(reader: &mut Reader, environment: &dyn Fn(&str) -> Option<String>) -> Option<MysqlConfig> {
    let password = secret(reader, environment, ["mysql_password", "mysql_password_file", "WING_MYSQL_PASSWORD"]);
    let (user, database) = (reader.text("mysql_user"), reader.text("mysql_database"));
    let port = reader.integer("mysql_port", 1, 65_535).unwrap_or(3_306) as u16;
    let charset = reader.text("mysql_charset").filter(|text| !text.is_empty()).unwrap_or_else(|| "utf8".into());
    if !["utf8", "utf8mb3", "utf8mb4"].contains(&charset.as_str()) {
        reader.mistake(
            "mysql_charset",
            &format!("{charset:?} lacks characters that outputs may have; \"utf8\" or \"utf8mb4\" is expected"),
        );
    }
    let host = reader.text("mysql_host").filter(|host| !host.is_empty())?;
    for (key, value) in [("mysql_user", &user), ("mysql_database", &database)] {
        if value.as_ref().is_none_or(|value| value.is_empty()) {
            reader.mistake(key, "it is required where mysql_host is set");
        }
    }
    let password = password.unwrap_or_default();
    let (tls, tls_files) = tls::mysql(reader);
    Some(MysqlConfig { user: user?, password, host, port, database: database?, tls, tls_files })
}

/// The store and Consul, each in some words for people, without a secret.
pub fn summary(config: &Config) -> (String, String) {
    let store = match &config.mysql {
        Some(mysql) => {
            let tls = tls_told(mysql.tls.name(), &mysql.tls_files);
            format!("MySQL {}@{}:{}/{} (TLS: {tls})", mysql.user, mysql.host, mysql.port, mysql.database)
        }
        None => format!("embedded, {}", config.data_dir.join("wing-crontab.db").display()),
    };
    let consul = match &config.consul {
        Some(ConsulConfig { address, tls: Some(files), .. }) => {
            format!("https://{address} (TLS: {})", tls_told("verify", files))
        }
        Some(ConsulConfig { address, tls: None, .. }) => address.clone(),
        None => "none: this node stands alone".into(),
    };
    (store, consul)
}

/// Such as "verify, CAs of /etc/ssl/cert.pem, shows /etc/wing/cert.pem".
fn tls_told(how: &str, files: &TlsFiles) -> String {
    let ca = files.ca.as_ref().map(|ca| format!(", CAs of {}", ca.display()));
    let cert = files.identity.as_ref().map(|identity| format!(", shows {}", identity.cert.display()));
    format!("{how}{}{}", ca.unwrap_or_default(), cert.unwrap_or_default())
}
