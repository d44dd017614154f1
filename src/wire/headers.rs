//! The headers of a request: names in lower case, values as text.
//!
//! Invariant: a header that came several times is there several times, in its order.

/// The headers of one request, in their order.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// `name` is in lower case.
    pub fn add(&mut self, name: String, value: String) {
        debug_assert!(!name.bytes().any(|byte| byte.is_ascii_uppercase()), "{name}");
        self.0.push((name, value));
    }

    /// The first value of the header, whose name is given in lower case.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// All values of the header, whose name is given in lower case.
    pub fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    /// Every header, by its name in lower case and its value, in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Whether some header's name begins so.
    pub fn has_prefix(&self, prefix: &str) -> bool {
        self.0.iter().any(|(name, _)| name.starts_with(prefix))
    }
}
