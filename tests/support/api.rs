//! The HTTP API as a client sees it.

use serde_json::Value;

const FORM: &str = "application/x-www-form-urlencoded";

/// An answer: the HTTP status and the JSON body.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub body: Value,
}

/// None where the answer breaks off or is no JSON.
fn read(mut answer: ureq::http::Response<ureq::Body>) -> Option<Reply> {
    let text = answer.body_mut().with_config().limit(1 << 30).read_to_string().ok()?;
    Some(Reply { status: answer.status().as_u16(), body: serde_json::from_str(&text).ok()? })
}

impl Reply {
    #[track_caller]
    pub fn ok(self) -> Value {
        assert_eq!(self.status, 200, "{}", self.body);
        assert_eq!(self.body["code"], 200);
        assert_eq!(self.body["message"], "ok");
        self.body["data"].clone()
    }

    #[track_caller]
    pub fn message(&self) -> &str {
        self.body["message"].as_str().unwrap_or_else(|| panic!("no message: {}", self.body))
    }

    /// Checks that it is a refusal with this status, and that its message has these words.
    #[track_caller]
    pub fn refused(self, status: u16, words: &str) {
        assert_eq!(self.status, status, "{}", self.body);
        assert_eq!(self.body["code"], status);
        let message = self.body["message"].as_str().unwrap_or_default();
        assert!(message.contains(words), "{message:?} does not say {words:?}");
    }
}

/// A node's API, by its address.
#[derive(Clone, Debug)]
pub struct Api {
    pub address: String,
}

impl Api {
    pub fn get(&self, path: &str) -> Reply {
        self.ask(
            ureq::get(format!("http://{}{path}", self.address)).config().http_status_as_error(false).build().call(),
        )
    }

    /// The answer; none where nobody answers.
    pub fn try_get(&self, path: &str) -> Option<Reply> {
        let request = ureq::get(format!("http://{}{path}", self.address)).config().http_status_as_error(false).build();
        read(request.call().ok()?)
    }

    /// The same as `post`; none where nobody answers.
    pub fn try_post(&self, path: &str, body: &str) -> Option<Reply> {
        let request = ureq::post(format!("http://{}{path}", self.address))
            .header("Content-Type", FORM)
            .config()
            .http_status_as_error(false)
            .build();
        read(request.send(body).ok()?)
    }

    /// Posts exactly what `curl -d` sends.
    pub fn post(&self, path: &str, body: &str) -> Reply {
        self.post_of(FORM, path, body.as_bytes())
    }

    pub fn post_json(&self, path: &str, body: &Value) -> Reply {
        self.post_of("application/json", path, body.to_string().as_bytes())
    }

    /// Posts a body of this type.
    pub fn post_of(&self, content_type: &str, path: &str, body: &[u8]) -> Reply {
        let request = ureq::post(format!("http://{}{path}", self.address)).header("Content-Type", content_type);
        self.ask(request.config().http_status_as_error(false).build().send(body))
    }

    /// As `post`, with a header Idempotency-Key.
    pub fn post_as(&self, key: &str, path: &str, body: &str) -> Reply {
        let request = ureq::post(format!("http://{}{path}", self.address))
            .header("Content-Type", FORM)
            .header("Idempotency-Key", key)
            .config()
            .http_status_as_error(false)
            .build();
        self.ask(request.send(body))
    }

    fn ask(&self, answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Reply {
        let mut answer = answer.unwrap_or_else(|error| panic!("ask {}: {error}", self.address));
        let text = answer.body_mut().with_config().limit(1 << 30).read_to_string().expect("the body arrives");
        let body = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        Reply { status: answer.status().as_u16(), body }
    }

    /// Whether it answers a read well.
    pub fn is_up(&self) -> bool {
        ureq::get(format!("http://{}/log/list?limit=1", self.address)).call().is_ok()
    }
}
