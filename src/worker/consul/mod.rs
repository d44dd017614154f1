//! Consul over its HTTP API: the service with its check, the session, the lock.
//!
//! Every call is one request with a time limit. Where Consul refuses the token and the file has another one, the
//! request is repeated once. Between two calls only the token and idle connections are kept.
//!
//! Not here: which call is made when; the election decides that.
//!
//! Invariant: the token appears in a header and nowhere else.

mod http_client;

use super::token::Token;
use crate::core::io::ports::{Consul, ConsulAnswer, ConsulError, LockState, LockValue};
use crate::core::time::bounds::{CHECK_TTL_SECS, CONSUL_CALL_MS};
use crate::model::config::ConsulConfig;
use crate::model::{Server, config::Secret};
use http_client::HttpClient;
use serde_json::{Value, json};
use std::time::Duration;
use ureq::http::Response;
use ureq::{Agent, Body, RequestBuilder};

/// Consul forgets a service whose check has failed for so long.
const FORGET_AFTER: &str = "1m";
const CALL_TIMEOUT: Duration = Duration::from_millis(CONSUL_CALL_MS);
/// Consul's answers to these calls are small; a larger one comes from another program.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// The client of one Consul agent, for one service and one lock.
#[derive(Debug)]
pub struct ConsulClient {
    http: HttpClient,
    address: String,
    token: Token,
    service_name: String,
    service_id: String,
    lock_path: String,
    server: Server,
}

/// An answer of Consul, of any status.
struct Said {
    status: u16,
    /// Consul's number for the state of the key; 0 where the answer has none.
    index: u64,
    body: String,
}

impl ConsulClient {
    /// A client of this Consul, for the node at `server`.
    pub fn new(config: &ConsulConfig, service_name: &str, lock_key: &str, server: &Server) -> ConsulClient {
        ConsulClient {
            http: HttpClient::new(config.tls.clone()),
            address: config.address.clone(),
            token: Token::new(config),
            service_name: service_name.into(),
            service_id: format!("{service_name}-{server}"),
            lock_path: format!("/v1/kv/{}", path_encoded(lock_key)),
            server: server.clone(),
        }
    }

    /// Has the files of the token and of TLS read again before the next request. This call does not block.
    pub fn read_files_again(&self) {
        self.token.read_again();
        self.http.read_again();
    }

    /// Carries the work out. Blocks for at most 3 s for each of its requests.
    pub fn carry_out(&self, work: &Consul) -> Result<ConsulAnswer, ConsulError> {
        match work {
            Consul::Register { is_leader } => self.register(*is_leader),
            Consul::Pass => self.pass(),
            Consul::CreateSession => self.create_session(),
            Consul::Acquire { session, value } => self.acquire(session, value),
            Consul::Release { session } => self.release(session),
            Consul::Leave { session } => self.leave(session.as_deref()),
            Consul::DestroySession { session } => self.destroy_session(session),
        }
    }

    /// The lock's state. Blocks until it is newer than `index`, or `wait_ms` have passed.
    pub fn watch(&self, index: u64, wait_ms: u64) -> Result<LockState, ConsulError> {
        let path = format!("{}?index={index}&wait={wait_ms}ms", self.lock_path);
        // Consul adds up to a sixteenth of the wait.
        let timeout = CALL_TIMEOUT + Duration::from_millis(wait_ms + wait_ms / 16);
        let said = self.get(&path, timeout)?;
        if said.status == 404 {
            return Ok(LockState { index: said.index, ..LockState::default() });
        }
        let said = self.expect_ok("watch the lock", said)?;
        let keys: Value = serde_json::from_str(&said.body).map_err(|error| {
            ConsulError::Unavailable(format!(
                "watch the lock: the answer of {} is not Consul's: {error}; see consul_address",
                self.address
            ))
        })?;
        let key = &keys[0];
        let value =
            key["Value"].as_str().and_then(base64_decoded).and_then(|bytes| serde_json::from_slice(&bytes).ok());
        // Where the index went back, Consul lost its state (a restart, a snapshot), so the watch begins at 0 again.
        let index = if said.index < index { 0 } else { said.index };
        Ok(LockState { index, session: key["Session"].as_str().map(String::from), value })
    }

    fn check_id(&self) -> String {
        format!("service:{}", self.service_id)
    }

    fn register(&self, is_leader: bool) -> Result<ConsulAnswer, ConsulError> {
        let (address, port) = self.server.0.rsplit_once(':').unwrap_or((&self.server.0, "0"));
        let body = json!({
            "ID": self.service_id,
            "Name": self.service_name,
            "Address": address.trim_matches(['[', ']']),
            "Port": port.parse::<u16>().unwrap_or(0),
            "Tags": [format!("isleader:{is_leader}")],
            "Check": {
                "CheckID": self.check_id(),
                "Name": "wing-crontab daemon",
                "TTL": format!("{CHECK_TTL_SECS}s"),
                // The service is registered again to change its tag. The check must be passing then, because the session
                // depends on it.
                "Status": "passing",
                "DeregisterCriticalServiceAfter": FORGET_AFTER,
            },
        });
        let said = self.put("/v1/agent/service/register", body.to_string())?;
        self.expect_ok("register the service", said).map(|_| ConsulAnswer::Done)
    }

    fn pass(&self) -> Result<ConsulAnswer, ConsulError> {
        let said = self.put(&format!("/v1/agent/check/pass/{}", path_encoded(&self.check_id())), String::new())?;
        // An agent without data on its disk forgets us with a restart: older ones answer 500 then, newer ones 404.
        if said.status == 404 || said.status == 500 && said.body.contains("TTL") {
            return Err(ConsulError::Unknown(format!("the check is not known (any more): {}", said.body.trim())));
        }
        self.expect_ok("pass the check", said).map(|_| ConsulAnswer::Done)
    }

    fn create_session(&self) -> Result<ConsulAnswer, ConsulError> {
        let body = json!({
            "Name": self.service_name,
            "LockDelay": "0s",
            "Behavior": "release",
            "Checks": ["serfHealth", self.check_id()],
        });
        let said = self.put("/v1/session/create", body.to_string())?;
        if said.status == 500 && said.body.contains("critical state") || said.body.contains("Missing check") {
            return Err(ConsulError::Unknown(format!("make a session: {}", said.body.trim())));
        }
        let said = self.expect_ok("make a session", said)?;
        let answer: Value = serde_json::from_str(&said.body).unwrap_or_default();
        match answer["ID"].as_str() {
            Some(session) => Ok(ConsulAnswer::Session(session.into())),
            None => Err(ConsulError::Unavailable(format!("make a session: Consul at {} gave none", self.address))),
        }
    }

    fn acquire(&self, session: &str, value: &LockValue) -> Result<ConsulAnswer, ConsulError> {
        let body = serde_json::to_string(value).unwrap_or_default();
        let said = self.put(&format!("{}?acquire={session}", self.lock_path), body)?;
        if said.status == 500 && said.body.contains("invalid session") {
            return Err(ConsulError::Unknown(format!("session {session} is not known (any more)")));
        }
        let said = self.expect_ok("acquire the lock", said)?;
        Ok(ConsulAnswer::Acquired(said.body.trim() == "true"))
    }

    fn release(&self, session: &str) -> Result<ConsulAnswer, ConsulError> {
        let said = self.put(&format!("{}?release={session}", self.lock_path), String::new())?;
        self.expect_ok("release the lock", said).map(|_| ConsulAnswer::Done)
    }

    /// Takes each step even where the one before has failed. What is left ends by itself, when Consul sees the check
    /// fail.
    fn leave(&self, session: Option<&str>) -> Result<ConsulAnswer, ConsulError> {
        let released = session.map(|session| self.put(&format!("{}?release={session}", self.lock_path), String::new()));
        let destroyed = session.map(|session| self.destroy_session(session));
        let path = format!("/v1/agent/service/deregister/{}", path_encoded(&self.service_id));
        self.put(&path, String::new())?;
        released.transpose()?;
        destroyed.transpose()?;
        Ok(ConsulAnswer::Done)
    }

    fn destroy_session(&self, session: &str) -> Result<ConsulAnswer, ConsulError> {
        let said = self.put(&format!("/v1/session/destroy/{session}"), String::new())?;
        self.expect_ok("end a session", said).map(|_| ConsulAnswer::Done)
    }

    fn expect_ok(&self, what: &str, said: Said) -> Result<Said, ConsulError> {
        match said.status {
            200 => Ok(said),
            status => {
                let reason: String = said.body.trim().chars().take(200).collect();
                Err(ConsulError::Unavailable(format!("{what}: Consul at {} answered {status}: {reason}", self.address)))
            }
        }
    }

    fn get(&self, path: &str, timeout: Duration) -> Result<Said, ConsulError> {
        self.ask(
            path,
            |agent, url| agent.get(url).config().timeout_global(Some(timeout)).build(),
            |request| request.call(),
        )
    }

    fn put(&self, path: &str, body: String) -> Result<Said, ConsulError> {
        let request = |agent: &Agent, url: &str| agent.put(url).config().timeout_global(Some(CALL_TIMEOUT)).build();
        self.ask(path, request, |request| request.send(&body))
    }

    /// Makes the request, and repeats it where the token was refused and the file has another one now.
    fn ask<B>(
        &self,
        path: &str,
        request: impl Fn(&Agent, &str) -> RequestBuilder<B>,
        send: impl Fn(RequestBuilder<B>) -> Result<Response<Body>, ureq::Error>,
    ) -> Result<Said, ConsulError> {
        let agent = self
            .http
            .in_force()
            .map_err(|reason| ConsulError::Unavailable(format!("ask Consul at {}: {reason}", self.address)))?;
        let url = format!("{}://{}{path}", self.http.scheme(), self.address);
        let ask = |token: &Option<Secret>| {
            let token = token.iter();
            self.said(
                path,
                send(token.fold(request(&agent, &url), |request, token| request.header("X-Consul-Token", &token.0))),
            )
        };
        let token = self.token.in_force();
        let said = ask(&token)?;
        match (said.status == 403).then(|| self.token.instead_of(token.as_ref())).flatten() {
            Some(other) => ask(&Some(other)),
            None => Ok(said),
        }
    }

    fn said(&self, path: &str, result: Result<Response<Body>, ureq::Error>) -> Result<Said, ConsulError> {
        let fail = |error: ureq::Error| {
            let path = path.split('?').next().unwrap_or_default();
            ConsulError::Unavailable(format!("ask {} for {path}: {}", self.address, self.http.told(&error)))
        };
        let mut response = result.map_err(fail)?;
        let index = response.headers().get("X-Consul-Index").and_then(|index| index.to_str().ok()?.parse().ok());
        let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string().map_err(fail)?;
        Ok(Said { status: response.status().as_u16(), index: index.unwrap_or(0), body })
    }
}

/// The text with all but letters, digits and a few signs encoded as %XX. A slash stays: lock keys may have folders.
fn path_encoded(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' | b':' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

/// The bytes of a value: Consul encodes values as base64.
fn base64_decoded(text: &str) -> Option<Vec<u8>> {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_can_be_a_path() {
        assert_eq!(path_encoded("wing-crontab-lock"), "wing-crontab-lock");
        assert_eq!(path_encoded("a/b c?d#e%"), "a/b%20c%3Fd%23e%25");
        assert_eq!(path_encoded("锁"), "%E9%94%81");
    }
}
