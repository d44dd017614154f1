//! Home: data_dir and the store's file, as they were when the daemon started. Where one of them was removed or replaced
//! since, what is written goes to files that no name leads to, and is lost with the daemon. So each statement for the
//! store asks here first.
//!
//! Not here: the modes and owners of the files; see `own_files`.
//!
//! Invariant: after a start with a store in data_dir, no start goes on with an empty one unless the operator wants it.

use super::own_files;
use rustix::fs::{fstat, stat};
use std::fs;
use std::io::{self, ErrorKind, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// The embedded store's file in data_dir.
pub const STORE: &str = "wing-crontab.db";
/// This file says that data_dir had an embedded store with something in it.
const HAD_STORE: &str = "had_store";
/// The header of a SQLite file is so long. Its number of the last migration, 0 in a new file, begins at `VERSION_AT`.
const HEADER_BYTES: u64 = 100;
const VERSION_AT: u64 = 60;

/// A file's device and inode: they stay for as long as the file does.
type Identity = (u64, u64);

/// The places that must stay what they are.
#[derive(Debug)]
pub struct Home {
    places: Vec<(PathBuf, Identity)>,
    /// Until the store has its first migration, in which case this is gone: the embedded store, and the file to make.
    new_store: Option<(PathBuf, PathBuf)>,
    has_noted_store: AtomicBool,
    is_lost: AtomicBool,
}

impl Home {
    /// `lock` is the locked file in data_dir. Makes the embedded store's file where it is missing. Errors: data_dir was
    /// replaced since the guardian locked it, or it had a store that is missing or empty now.
    pub fn open(data_dir: &Path, lock: &impl AsFd, has_store: bool) -> Result<Home, String> {
        let fail = |error: io::Error| format!("look at data_dir {}: {error}", data_dir.display());
        let locked = fstat(lock).map(|stat| (stat.st_dev, stat.st_ino)).map_err(|error| fail(error.into()))?;
        if identity(&data_dir.join("lock")) != Some(locked) {
            return Err(format!(
                "data_dir {} was removed or replaced while wing-crontab ran: put it back, or stop wing-crontab and start it anew",
                data_dir.display()
            ));
        }
        let mut paths = vec![data_dir.to_path_buf(), data_dir.join("lock")];
        let new_store = has_store.then(|| (data_dir.join(STORE), data_dir.join(HAD_STORE)));
        if let Some((store, had_store)) = &new_store {
            require_store(store, had_store)?;
            paths.push(store.clone());
        }
        let known = |path: PathBuf| {
            let identity = identity(&path).ok_or_else(|| fail(ErrorKind::NotFound.into()))?;
            Ok((path, identity))
        };
        let places = paths.into_iter().map(known).collect::<Result<_, String>>()?;
        Ok(Home { places, new_store, has_noted_store: AtomicBool::new(false), is_lost: AtomicBool::new(false) })
    }

    /// Error: what was removed or replaced. The log tells it once.
    pub fn check(&self) -> Result<(), String> {
        let lost = self.places.iter().find(|(path, known)| identity(path) != Some(*known));
        let was_lost = self.is_lost.swap(lost.is_some(), Ordering::Relaxed);
        let Some((path, _)) = lost else {
            if was_lost {
                log::info!("data_dir is again what it was at the start");
            }
            self.note_store();
            return Ok(());
        };
        let reason = format!(
            "{} was removed or replaced while this daemon runs, so what it writes would be lost: put the former one back, or \
             stop this daemon and restore a backup",
            path.display()
        );
        if !was_lost {
            log::error!("{reason}; until then no change is taken and nothing new is started");
        }
        Err(reason)
    }

    /// Makes the file that says that there is a store, once there is one.
    fn note_store(&self) {
        let Some((store, had_store)) = &self.new_store else { return };
        if self.has_noted_store.load(Ordering::Relaxed) || is_empty(store) {
            return;
        }
        match own_files::open(had_store) {
            Ok(_) => self.has_noted_store.store(true, Ordering::Relaxed),
            Err(error) => log::warn!("make {}: {error}", had_store.display()),
        }
    }
}

/// Makes the store's file where data_dir never had one.
fn require_store(store: &Path, had_store: &Path) -> Result<(), String> {
    if had_store.exists() && is_empty(store) {
        return Err(format!(
            "{} is missing or empty, and this data_dir had one with jobs and log: restore it, or remove {} as well to begin \
             with an empty one",
            store.display(),
            had_store.display()
        ));
    }
    // A link to a file on another disk may stay one.
    if store.exists() { Ok(()) } else { own_files::open(store).map(drop) }
        .map_err(|error| format!("make {}: {error}", store.display()))
}

/// Whether the store has no migration yet. One may be in the write-ahead log alone; but beside an empty file SQLite
/// throws a log away.
fn is_empty(store: &Path) -> bool {
    let has_bytes = |path: &Path| fs::metadata(path).is_ok_and(|metadata| metadata.len() != 0);
    if has_bytes(store) && has_bytes(&PathBuf::from(format!("{}-wal", store.display()))) {
        return false;
    }
    let Ok(file) = fs::File::open(store) else { return true };
    let mut version = [0; 4];
    let mut header = Vec::new();
    let has_header =
        (&file).take(HEADER_BYTES).read_to_end(&mut header).is_ok_and(|count| count as u64 == HEADER_BYTES);
    !has_header || file.read_exact_at(&mut version, VERSION_AT).is_err() || version == [0; 4]
}

fn identity(path: &Path) -> Option<Identity> {
    stat(path).ok().map(|stat| (stat.st_dev, stat.st_ino))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home(data_dir: &Path) -> Result<Home, String> {
        let lock = own_files::open(&data_dir.join("lock")).unwrap();
        Home::open(data_dir, &lock, true)
    }

    #[test]
    fn a_place_that_is_removed_or_replaced_is_told_until_the_former_one_is_back() {
        let folder = tempfile::tempdir().unwrap();
        let home = home(folder.path()).unwrap();
        assert_eq!(home.check(), Ok(()));
        let (store, aside) = (folder.path().join(STORE), folder.path().join("aside"));
        fs::rename(&store, &aside).unwrap();
        assert!(home.check().unwrap_err().contains(STORE));
        fs::write(&store, "another").unwrap();
        assert!(home.check().is_err());
        fs::rename(&aside, &store).unwrap();
        assert_eq!(home.check(), Ok(()));
    }

    #[test]
    fn a_data_dir_that_is_not_the_locked_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let lock = own_files::open(&folder.path().join("lock")).unwrap();
        own_files::make_anew(&folder.path().join("lock")).unwrap();
        assert!(Home::open(folder.path(), &lock, false).unwrap_err().contains("replaced"));
    }

    #[test]
    fn a_store_that_was_there_is_missed() {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join(STORE);
        home(folder.path()).unwrap().check().unwrap();
        home(folder.path()).unwrap();
        let mut text = vec![0; 4_096];
        fs::write(&store, &text).unwrap();
        home(folder.path()).unwrap().check().unwrap();
        home(folder.path()).expect("there never was a migration");
        text[VERSION_AT as usize + 3] = 1;
        fs::write(&store, &text).unwrap();
        home(folder.path()).unwrap().check().unwrap();
        fs::write(&store, "").unwrap();
        assert!(home(folder.path()).unwrap_err().contains("is missing or empty"));
        fs::remove_file(&store).unwrap();
        assert!(home(folder.path()).unwrap_err().contains(HAD_STORE));
        fs::remove_file(folder.path().join(HAD_STORE)).unwrap();
        home(folder.path()).unwrap();
    }
}
