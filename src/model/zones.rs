//! The time zones that this daemon knows: the host's, and for a name that the host lacks the compiled-in ones.
//!
//! Not the reading of the host's files: `crate::config::zones` does that before anything starts, so that no look-up of
//! a zone touches a file.
//!
//! Invariant: one `Zones` gives the same rules for a name at all times.

use jiff::tz::{TimeZone, TimeZoneDatabase};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

#[derive(Clone)]
pub struct Zones {
    /// The zone of schedules that name none.
    pub own: TimeZone,
    /// The host's zones, by their names in lower case.
    of_host: Arc<BTreeMap<String, TimeZone>>,
}

impl Zones {
    /// The zones of a host, by their names in lower case. `own` is UTC until it is set.
    pub fn of(host: BTreeMap<String, TimeZone>) -> Zones {
        Zones { own: TimeZone::UTC, of_host: Arc::new(host) }
    }

    /// The zone of this name, whatever its case; none where neither the host nor the compiled-in zones have it.
    pub fn named(&self, name: &str) -> Option<TimeZone> {
        self.named_by_host(name).cloned().or_else(|| TimeZoneDatabase::bundled().get(name).ok())
    }

    pub fn named_by_host(&self, name: &str) -> Option<&TimeZone> {
        self.of_host.get(&name.to_ascii_lowercase())
    }
}

/// Only the compiled-in zones.
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
