//! The time zones that this daemon knows: the host's, and where it has none of a name, ours, which are compiled in.
//!
//! Plain data, read before anything starts (by `crate::config::zones`), so that looking a zone up touches no file: not the
//! place that knows where they came from.
//!
//! Invariant: the same value finds the same rules for ever.

use jiff::tz::{TimeZone, TimeZoneDatabase};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

#[derive(Clone)]
pub struct Zones {
    /// That of schedules that name none.
    pub own: TimeZone,
    /// The host's, by their names in lower case.
    of_host: Arc<BTreeMap<String, TimeZone>>,
}

impl Zones {
    /// Those of a host, by their names in lower case; UTC is its own until that is set.
    pub fn of(host: BTreeMap<String, TimeZone>) -> Zones {
        Zones { own: TimeZone::UTC, of_host: Arc::new(host) }
    }

    /// The zone of this name, in upper or lower case.
    pub fn named(&self, name: &str) -> Option<TimeZone> {
        self.named_by_host(name).cloned().or_else(|| TimeZoneDatabase::bundled().get(name).ok())
    }

    pub fn named_by_host(&self, name: &str) -> Option<&TimeZone> {
        self.of_host.get(&name.to_ascii_lowercase())
    }
}

/// No host's, so what is compiled in.
impl Default for Zones {
    fn default() -> Zones {
        Zones::of(BTreeMap::new())
    }
}

impl fmt::Debug for Zones {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Zones({:?}, {} of the host)", self.own, self.of_host.len())
    }
}
