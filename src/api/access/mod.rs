//! The door: who sends a request, and whether they may have what they ask for.
//!
//! Two questions, in this order. `Door::admit`: is the caller known, by a token, by an address in `http_allow`, or by the
//! Unix socket? `permit`: is the caller's level enough for the command?
//!
//! A token in `Authorization: Bearer` proves that no web page made a browser ask: a browser does not add it by itself. All
//! other TCP requests are held to the rules of `browser` as well.
//!
//! Not the tokens' file, and not a socket: the reactor has them.
//!
//! Invariant: no answer before `admit` tells anything about jobs, runs or nodes.

mod address;
mod browser;
mod denied;
mod tries;

pub use denied::Denied;

use crate::model::Mono;
use crate::model::access::{AccessConfig, Caller, Level, Proof, Token, Tokens};
use crate::model::command::Command;
use crate::wire::headers::Headers;
use crate::wire::http::Request;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use browser::Site;
use std::net::IpAddr;
use tries::FailedTries;

/// How a request has come to this node.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Arrival {
    Tcp {
        /// The other end of the connection.
        from: IpAddr,
        /// The address of ours that it has connected to.
        to: IpAddr,
        /// The connection speaks https.
        is_tls: bool,
    },
    /// The Unix socket, from a process of this user.
    Socket { uid: u32 },
}

/// What the door knows.
#[derive(Debug)]
pub struct Door {
    config: AccessConfig,
    /// The user that this daemon runs as.
    own_uid: u32,
    tries: FailedTries,
}

impl Door {
    /// A door with this configuration, of a daemon that runs as the user `own_uid`.
    pub fn new(config: AccessConfig, own_uid: u32) -> Door {
        Door { config, own_uid, tries: FailedTries::default() }
    }

    /// The tokens that hold from now on.
    pub fn set_tokens(&mut self, tokens: Tokens) {
        self.config.tokens = tokens;
    }

    /// Whether the caller would still be let in. For answers that go on for long.
    pub fn is_known(&self, caller: &Caller) -> bool {
        caller.token.as_ref().is_none_or(|token| self.config.tokens.has(token))
    }

    /// How many tries with a wrong token there were.
    pub fn failed_tries(&self) -> u64 {
        self.tries.count()
    }

    /// Who sends this request. The error says why nobody is let in by it, and what would be.
    pub fn admit(&mut self, request: &Request, arrival: Arrival, now: Mono) -> Result<Caller, Denied> {
        let (from, to, is_tls) = match arrival {
            Arrival::Socket { uid } => return self.admit_user(uid),
            Arrival::Tcp { from, to, is_tls } => (from.to_canonical(), to.to_canonical(), is_tls),
        };
        let client = address::client(&request.headers, from, &self.config.trusted_proxies)?;
        let caller = match credentials(&request.headers)? {
            Some((by, secret)) => self.admit_token(by, &secret, client, now)?,
            None => self.admit_address(&request.headers, from, client)?,
        };
        if caller.by != Proof::Token {
            let site = Site { to, is_https: is_tls && !self.is_forwarded(&request.headers, from) };
            browser::refuse_other_sites(request, site, &self.config.hosts)?;
        }
        Ok(caller)
    }

    /// Whether a proxy of ours has passed the request on: then nobody knows by which scheme the client has asked the proxy.
    fn is_forwarded(&self, headers: &Headers, from: IpAddr) -> bool {
        self.config.trusted_proxies.contains(from) && headers.get("x-forwarded-for").is_some()
    }

    fn admit_user(&self, uid: u32) -> Result<Caller, Denied> {
        if uid != 0 && uid != self.own_uid {
            return Err(Denied::forbidden(format!(
                "user {uid} may not use this socket; root and the daemon's user {} may",
                self.own_uid
            )));
        }
        Ok(Caller { name: format!("uid:{uid}").into(), level: Level::Admin, by: Proof::Socket, token: None })
    }

    fn admit_token(&mut self, by: Proof, secret: &[u8], client: IpAddr, now: Mono) -> Result<Caller, Denied> {
        if let Some(wait_secs) = self.tries.must_wait_secs(client, now) {
            return Err(Denied {
                status: 429,
                message: format!("too many wrong tokens came from {client}: try again in {wait_secs} s"),
                header: Some(("Retry-After", wait_secs.to_string())),
            });
        }
        let Some(token) = self.config.tokens.find(secret).cloned() else {
            self.tries.failed(client, now);
            return Err(Denied::unauthorized("this token is not known here: see http_tokens_file"));
        };
        self.tries.succeeded(client);
        Ok(caller_of(token, by))
    }

    fn admit_address(&self, headers: &Headers, from: IpAddr, client: IpAddr) -> Result<Caller, Denied> {
        if from.is_loopback() && address::is_hidden(headers, self.config.trusted_proxies.contains(from)) {
            return Err(Denied::forbidden(format!(
                "a proxy on {from} passes this request on and does not say for whom, or is not believed: name it in \
                 http_trusted_proxies and have it send X-Forwarded-For, or send a token (Authorization: Bearer)"
            )));
        }
        if !self.config.allow.contains(client) {
            return Err(Denied::forbidden(format!(
                "{client} may not use this API without a token: send one (Authorization: Bearer TOKEN, see http_tokens_file), \
                 or name its network in http_allow, such as http_allow = [\"{client}\"]"
            )));
        }
        Ok(Caller { name: client.to_string().into(), level: Level::Admin, by: Proof::Address, token: None })
    }
}

/// Whether the caller's level is enough for the command, and the request one that may change something.
pub(super) fn permit(caller: &Caller, command: &Command, request: &Request) -> Result<(), Denied> {
    let needed = level_of(command);
    if needed == Level::Read {
        return Ok(());
    }
    if caller.by == Proof::Password {
        return Err(Denied::forbidden(
            "Basic authorization may only read, for a browser sends it by itself: send Authorization: Bearer TOKEN",
        ));
    }
    if caller.level < needed {
        return Err(Denied::forbidden(format!(
            "this takes the level {needed}; the token {} has the level {}",
            caller.name, caller.level
        )));
    }
    if request.method == "GET" && caller.by == Proof::Address {
        browser::refuse_browsers(&request.headers)?;
    }
    Ok(())
}

fn level_of(command: &Command) -> Level {
    match command {
        Command::AddJob(..) | Command::UpdateJob(..) | Command::DeleteJob(_) => Level::Admin,
        Command::StopJob(_)
        | Command::StartJob(_)
        | Command::DrainNode(_)
        | Command::RunJob(..)
        | Command::KillRun(_)
        | Command::Pause(_) => Level::Operate,
        Command::ListJobs(_)
        | Command::ListLogs(_)
        | Command::ListRuns { .. }
        | Command::ReadOutput(_)
        | Command::ShowCluster
        | Command::ShowHealth => Level::Read,
    }
}

fn caller_of(token: Token, by: Proof) -> Caller {
    let level = if by == Proof::Password { Level::Read } else { token.level };
    Caller { name: token.name.clone(), level, by, token: Some(token) }
}

/// The token of the header Authorization, if there is one.
fn credentials(headers: &Headers) -> Result<Option<(Proof, Vec<u8>)>, Denied> {
    let mut values = headers.all("authorization");
    let Some(value) = values.next() else { return Ok(None) };
    let wrong = || {
        Denied::unauthorized("Authorization: `Bearer TOKEN`, or `Basic` with the token as password, is expected, once")
    };
    let (scheme, rest) = value.split_once(' ').ok_or_else(wrong)?;
    if values.next().is_some() {
        return Err(wrong());
    }
    if scheme.eq_ignore_ascii_case("bearer") {
        return Ok(Some((Proof::Token, rest.trim().as_bytes().to_vec())));
    }
    if scheme.eq_ignore_ascii_case("basic") {
        let pair = STANDARD.decode(rest.trim()).map_err(|_| wrong())?;
        let colon = pair.iter().position(|byte| *byte == b':').ok_or_else(wrong)?;
        return Ok(Some((Proof::Password, pair[colon + 1..].to_vec())));
    }
    Err(wrong())
}

#[cfg(test)]
mod tests;
