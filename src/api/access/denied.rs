//! A request that the door turns away.
//!
//! Invariant: the message says what would let the caller in.

/// Why a request is not carried out, and a header that says more.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Denied {
    pub status: u16,
    pub message: String,
    pub header: Option<(&'static str, String)>,
}

impl Denied {
    /// 403: known or not, the caller may not do this.
    pub fn forbidden(message: impl Into<String>) -> Denied {
        Denied { status: 403, message: message.into(), header: None }
    }

    /// The token was taken out while its answer went on.
    pub fn token_gone() -> Denied {
        Denied::unauthorized("this token is not in force any more")
    }

    /// 401: the token is missing, malformed or unknown.
    pub fn unauthorized(message: &str) -> Denied {
        let challenge = "Bearer realm=\"wing-crontab\"".to_string();
        Denied { status: 401, message: message.into(), header: Some(("WWW-Authenticate", challenge)) }
    }
}
