//! The daemon's own files: those under data_dir. Whoever may write one of them commands the daemon, so each one is made
//! for its owner alone, whatever the umask is, and is checked when it is opened.
//!
//! Not here: what the files say; each file's reader checks that.
//!
//! Invariants: a file that is opened here is a regular file of the daemon's user, and nobody else may read or write it
//! from now on. No file is read further than its reader allows.

use rustix::fs::OFlags;
use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// The bits of a mode that belong to others than the owner, and those of them that allow changes.
const OTHERS: u32 = 0o077;
const OTHERS_WRITE: u32 = 0o022;
/// The bits of a folder's mode by which everybody may write it, and by which only owners may rename what is in it.
const ALL_WRITE: u32 = 0o002;
const STICKY: u32 = 0o1000;

/// Makes data_dir where it is missing, and keeps others out of it and of what is in it. Answers warnings: what others
/// could write until now. Error: something in it belongs to another user, or cannot be changed.
pub fn close_to_others(data_dir: &Path) -> Result<Vec<String>, String> {
    let fail = |what: &str, error: io::Error| format!("{what} data_dir {}: {error}", data_dir.display());
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(data_dir);
    made.map_err(|error| fail("create", error))?;
    let metadata = fs::metadata(data_dir).map_err(|error| fail("look at", error))?;
    let mut warnings: Vec<String> = movable(data_dir).into_iter().collect();
    close(data_dir, &metadata, &mut warnings)?;
    for entry in fs::read_dir(data_dir).map_err(|error| fail("read", error))? {
        let path = entry.map_err(|error| fail("read", error))?.path();
        match fs::metadata(&path) {
            Ok(metadata) => close(&path, &metadata, &mut warnings)?,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(fail("look at what is in", error)),
        }
    }
    Ok(warnings)
}

/// A warning where every user of the host may rename data_dir, and put another folder in its place: they may write its
/// parent. In a folder with the sticky bit, such as /tmp, they may not do that.
fn movable(data_dir: &Path) -> Option<String> {
    let parent = fs::canonicalize(data_dir).ok()?.parent()?.to_path_buf();
    let mode = fs::metadata(&parent).ok()?.mode();
    (mode & (ALL_WRITE | STICKY) == ALL_WRITE).then(|| {
        format!(
            "every user may rename data_dir {}, for {} is open to all; chmod o-w it",
            data_dir.display(),
            parent.display()
        )
    })
}

fn close(path: &Path, metadata: &Metadata, warnings: &mut Vec<String>) -> Result<(), String> {
    let name = path.display();
    let own = rustix::process::geteuid().as_raw();
    if metadata.uid() != own {
        return Err(format!(
            "{name} belongs to user {}, and this daemon runs as user {own}: whoever may write there commands the daemon; \
             change its owner (chown), or run the daemon as that user",
            metadata.uid()
        ));
    }
    if !(metadata.is_file() || metadata.is_dir()) || metadata.mode() & OTHERS == 0 {
        return Ok(());
    }
    if metadata.mode() & OTHERS_WRITE != 0 {
        warnings.push(format!(
            "{name} could be written by other users (mode {:o}) until now: look whether it is as you left it",
            metadata.mode() & 0o7777
        ));
    }
    let mode = metadata.mode() & 0o7700;
    fs::set_permissions(path, Permissions::from_mode(mode))
        .map_err(|error| format!("close {name} to other users: {error}"))
}

/// Opens a file for reading and writing; makes it where it is missing.
pub fn open(path: &Path) -> io::Result<File> {
    check(options().write(true).create(true).truncate(false).open(path)?)
}

/// Makes a new file for reading and writing; one that is there is removed first.
pub fn make_anew(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    check(options().write(true).create_new(true).open(path)?)
}

/// Makes the file with this text, or leaves none: after a crash of the host as well.
pub fn write_whole(path: &Path, text: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = make_anew(&temporary)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

/// The whole file; none where it does not exist. `InvalidData`: it has more than `bytes_max` bytes.
pub fn read(path: &Path, bytes_max: usize) -> io::Result<Option<Vec<u8>>> {
    let file = match options().open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        file => check(file?)?,
    };
    let too_long = || io::Error::new(ErrorKind::InvalidData, format!("it has more than {bytes_max} bytes"));
    if bytes_max as u64 <= file.metadata()?.len().saturating_sub(1) {
        return Err(too_long());
    }
    let mut bytes = Vec::new();
    file.take(bytes_max as u64 + 1).read_to_end(&mut bytes)?;
    if bytes_max < bytes.len() { Err(too_long()) } else { Ok(Some(bytes)) }
}

/// Keeps others out of a file that another part of the program has made.
pub fn tighten(path: &Path) -> io::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(0o600))
}

/// Neither a link that leads elsewhere nor a pipe that never opens: the name is in our folder, but it may be of old.
fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).mode(0o600).custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY).bits() as i32);
    options
}

fn check(file: File) -> io::Result<File> {
    let metadata = file.metadata()?;
    let refuse = |reason: String| Err(io::Error::new(ErrorKind::PermissionDenied, reason));
    if !metadata.is_file() {
        return refuse("it is not a regular file".into());
    }
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return refuse(format!("it belongs to user {}, not to the daemon's", metadata.uid()));
    }
    if metadata.mode() & OTHERS != 0 {
        file.set_permissions(Permissions::from_mode(0o600))?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn a_folder_and_its_files_are_closed_to_others_and_said_where_these_could_write() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        assert_eq!(close_to_others(&data), Ok(Vec::new()));
        assert_eq!(mode(&data), 0o700);
        let files = [("read", 0o644), ("written", 0o666), ("closed", 0o600)];
        for (name, mode) in files {
            fs::write(data.join(name), "").unwrap();
            fs::set_permissions(data.join(name), Permissions::from_mode(mode)).unwrap();
        }
        fs::create_dir(data.join("output")).unwrap();
        fs::set_permissions(&data, Permissions::from_mode(0o777)).unwrap();
        let warnings = close_to_others(&data).unwrap();
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(warnings[0].contains("(mode 777)") && warnings[1].contains("written"), "{warnings:?}");
        files.iter().for_each(|(name, _)| assert_eq!(mode(&data.join(name)), 0o600));
        assert_eq!((mode(&data), mode(&data.join("output"))), (0o700, 0o700));
        assert_eq!(close_to_others(&data), Ok(Vec::new()));
    }

    #[test]
    fn a_folder_that_all_may_write_and_rename_in_is_warned_of() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        for (mode, is_warned_of) in [(0o755, false), (0o775, false), (0o777, true), (0o1777, false)] {
            fs::set_permissions(folder.path(), Permissions::from_mode(mode)).unwrap();
            let warnings = close_to_others(&data).unwrap();
            assert_eq!(warnings.len(), usize::from(is_warned_of), "{mode:o}: {warnings:?}");
            assert!(warnings.iter().all(|warning| warning.contains("may rename data_dir")), "{warnings:?}");
        }
    }

    #[test]
    fn neither_a_link_nor_a_pipe_nor_a_folder_is_opened_and_no_file_is_read_too_far() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("file"), "12345").unwrap();
        std::os::unix::fs::symlink(path("file"), path("link")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, path("pipe"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        for name in ["link", "pipe", "."] {
            assert!(open(&path(name)).is_err() && read(&path(name), 9).is_err(), "{name}");
        }
        assert_eq!(read(&path("none"), 9).unwrap(), None);
        assert_eq!(read(&path("file"), 5).unwrap().unwrap(), b"12345");
        assert_eq!(read(&path("file"), 4).unwrap_err().kind(), ErrorKind::InvalidData);
        assert_eq!(mode(&path("file")), 0o600);
        make_anew(&path("link")).unwrap();
        assert_eq!(fs::read(path("file")).unwrap(), b"12345", "the link is gone, and not its file");
    }
}
