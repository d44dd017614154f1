//! The time zones that this daemon knows: the host's, and the compiled-in ones for names that the host lacks.
//!
//! Not the reading of the host's files: `crate::config::zones` does that at the start, so no look-up of a zone reads a
//! file.
//!
//! Invariant: as long as a `Zones` exists, a name means the same rules.

use jiff::tz::{TimeZone, TimeZoneDatabase};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// The zones, and the one of schedules that name none.
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

    /// The zone of this name, in upper or lower case; none where neither the host nor the compiled-in zones have it.
    pub fn named(&self, name: &str) -> Option<TimeZone> {
        self.named_by_host(name).cloned().or_else(|| TimeZoneDatabase::bundled().get(name).ok())
    }

    /// The host's zone of this name.
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
