//! The parameters in a request's body, which is a form or a JSON object.
//!
//! The body's type (Content-Type) says which, with one exception: `curl -d '{..}'` sends JSON with the type of a form.
//! So a form that is a JSON object is read as one. No real form is, because no parameter's name begins with a brace.
//!
//! Not the meaning of parameters: that is `params`.
//!
//! Invariant: a body is read whole or refused.

use super::json;
use crate::model::command::CallError;
use crate::wire::http::Request;
use serde_json::{Map, Value};

#[derive(Debug)]
pub enum Body<'a> {
    None,
    Form(&'a [u8]),
    Object(Map<String, Value>),
}

/// Reads the body. A body without a type counts as a form, because tools that give no type send forms.
pub fn read(request: &Request) -> Result<Body<'_>, CallError> {
    let is_post = request.method == "POST";
    let body = request.body.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&request.body);
    if let Some(coding) = request.content_encoding.as_deref().filter(|coding| !is_plain(coding) && !body.is_empty()) {
        let message = format!("a body with Content-Encoding {coding} is not read here; send it as it is");
        return Err(CallError { status: 415, message });
    }
    let content_type = request.content_type.as_deref().filter(|kind| !kind.trim().is_empty()).unwrap_or(FORM);
    let kind = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match kind.as_str() {
        _ if body.trim_ascii().is_empty() => Ok(Body::None),
        FORM => match json::parse(body) {
            Ok(Value::Object(object)) => Ok(Body::Object(object)),
            Err(error) if body.trim_ascii_start().starts_with(b"{") => {
                Err(CallError::bad(format!("the body is no form, and not a JSON object: {error}")))
            }
            // A form in the body of a GET is ignored, as in the older system.
            Ok(_) | Err(_) => Ok(if is_post { Body::Form(&request.body) } else { Body::None }),
        },
        kind if kind == JSON || kind.ends_with("+json") => object(body).map(Body::Object),
        kind if is_post => {
            let message =
                format!("{kind} is not read here; send {FORM} (curl -d or --data-urlencode, and not -F) or {JSON}");
            Err(CallError { status: 415, message })
        }
        _ => Ok(Body::None),
    }
}

const FORM: &str = "application/x-www-form-urlencoded";
const JSON: &str = "application/json";

/// Whether this Content-Encoding says that nothing was done to the body.
fn is_plain(coding: &str) -> bool {
    coding.is_empty() || coding.eq_ignore_ascii_case("identity")
}

fn object(body: &[u8]) -> Result<Map<String, Value>, CallError> {
    let value = json::parse(body).map_err(|error| CallError::bad(format!("the body is not JSON: {error}")))?;
    let kind = match value {
        Value::Object(object) => return Ok(object),
        Value::Array(_) => "array",
        Value::String(_) => "text",
        Value::Number(_) => "number",
        Value::Bool(_) | Value::Null => "value",
    };
    Err(CallError::bad(format!(
        "the body is a JSON {kind}; an object of parameters is expected, such as {{\"cronSet\": \"@daily\", \"command\": \"date\"}}"
    )))
}
