//! The folder of a daemon's control groups: where it is, and whether groups can be made in it.
//!
//! It is made below the group in which the guardian was started, and named after the data_dir: so no two
//! daemons have the same one, and a guardian that is started elsewhere finds the folder of an earlier one. Where systemd
//! has delegated its unit's group (`Delegate=yes`), the guardian moves into a group `daemon` below it first, because a
//! group whose members have controllers must have no process itself. Otherwise no controllers are switched on, and
//! nothing is moved.
//!
//! Not here: the groups of the runs.
//!
//! Invariants: no process but this one is ever moved; a folder that was set up has been tried with a process.

use super::super::program::Program;
use super::place::{self, Mount};
use super::{Cgroups, entry, read};
use rustix::fs::{AtFlags, Mode, OFlags, openat, unlinkat};
use rustix::process::{Pid, WaitOptions, waitpid};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// How the names of such folders begin.
const FOLDER: &str = "wing-crontab-";
/// Where the guardian and the daemon are in a delegated group.
const DAEMON: &str = "daemon";
/// The group in which a process is tried.
const TRIED: &str = "try";
/// The most groups of the host in which folders of earlier daemons are searched.
const SEARCHED_MAX: usize = 10_000;
/// The extended attributes by which systemd says that it has delegated a group.
const DELEGATED: [&str; 2] = ["trusted.delegate", "user.delegate"];

/// The name of the folder for this data_dir: equal for equal ones. A copied data_dir has another one, and so has one that
/// was made anew, where its file system notes when a folder was made.
fn folder_name(data_dir: &Path) -> io::Result<String> {
    let folder = fs::metadata(data_dir)?;
    let text = format!("{} {} {:?}", folder.dev(), folder.ino(), folder.created().ok());
    Ok(format!("{FOLDER}{:x}-{:08x}", folder.ino(), crc32fast::hash(text.as_bytes())))
}

/// The cgroup2 file system, and the group of this process.
fn here() -> Result<(Mount, PathBuf), String> {
    let text = |path: &str| fs::read_to_string(path).map_err(|error| format!("read {path}: {error}"));
    let mount = place::mount(&text("/proc/self/mountinfo")?).ok_or("no cgroup2 file system is mounted")?;
    let cgroup = text("/proc/self/cgroup")?;
    let group = place::own(&cgroup).ok_or("this process is in no group of cgroup2")?;
    let folder = place::folder(&mount, group).ok_or_else(|| {
        format!("the group of this process ({}) is not to be seen in {}", group.display(), mount.point.display())
    })?;
    Ok((mount, folder))
}

/// Makes the folder for the groups of this data_dir's runs, and tries it. Answers it with a line about it for people. Error:
/// why runs have no groups here.
pub fn set_up(data_dir: &Path) -> Result<(Cgroups, String), String> {
    if !entry::IS_THERE {
        return Err("this build cannot start a program in a group".into());
    }
    let name = folder_name(data_dir).map_err(|error| format!("look at {}: {error}", data_dir.display()))?;
    let (mount, own) = here()?;
    let own = leave_run(own)?;
    let base = delegated(&own, &mount);
    if base.as_ref() == Some(&own) {
        enter(&own.join(DAEMON))?;
    }
    let base = match base {
        Some(base) => {
            // An error means that other processes are in the group: then its runs have no memory controller.
            let _ = fs::write(base.join("cgroup.subtree_control"), "+memory");
            base
        }
        None => own,
    };
    let path = base.join(&name);
    make(&path)?;
    // As above. Where the group has no such controller, there is none for the runs.
    let _ = fs::write(path.join("cgroup.subtree_control"), "+memory");
    let opened = open(&path).map_err(|error| format!("open {}: {error}", path.display()))?;
    let mut cgroups = Cgroups { folders: vec![opened] };
    if let Err(error) = try_out(&cgroups) {
        let _ = fs::remove_dir(path.join(TRIED));
        let _ = fs::remove_dir(&path);
        return Err(format!("start a process in a group below {}: {error}", path.display()));
    }
    let former = search(&mount.point, &name).into_iter().filter(|former| *former != path);
    cgroups.folders.extend(former.filter_map(|former| open(&former).ok()));
    let has_memory = read(&cgroups.folders[0], "cgroup.subtree_control").is_ok_and(|text| text.contains("memory"));
    let memory = if has_memory { "with" } else { "without" };
    Ok((cgroups, format!("runs have control groups, {memory} the memory controller, below {}", path.display())))
}

/// Removes what nobody uses: empty groups, and the folders of earlier daemons. `is_last`: the own folder as well.
pub fn remove_unused(cgroups: &mut Cgroups, is_last: bool) {
    for name in cgroups.names() {
        cgroups.remove(&name);
    }
    for folder in cgroups.folders.drain(usize::from(!is_last).min(cgroups.folders.len())..) {
        let path = fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&folder)));
        // One in which something still runs stays.
        let _ = path.and_then(fs::remove_dir);
    }
}

/// A guardian that a run of another one starts must not be in that run's group, and neither must its daemon: it leaves
/// the run's group for the one around the other's folder. Answers the group that it is in now.
fn leave_run(own: PathBuf) -> Result<PathBuf, String> {
    let is_folder =
        |path: &&Path| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(FOLDER.as_bytes()));
    let Some(outer) = own.ancestors().filter(is_folder).last().and_then(Path::parent) else { return Ok(own) };
    let tries = [outer.to_path_buf(), outer.join(DAEMON)];
    let entered = tries.iter().find(|group| fs::write(group.join("cgroup.procs"), "0").is_ok());
    entered.cloned().ok_or_else(|| {
        format!("a run of another wing-crontab has started this one, and it cannot leave {}", own.display())
    })
}

/// The group that systemd has delegated to us: our own, or the one above it.
fn delegated(own: &Path, mount: &Mount) -> Option<PathBuf> {
    let is_delegated = |path: &&Path| {
        DELEGATED.iter().any(|name| {
            let mut value = [0; 8];
            rustix::fs::getxattr(*path, *name, &mut value).is_ok_and(|count| value[..count] == *b"1")
        })
    };
    let above = own.parent().filter(|above| above.starts_with(&mount.point));
    [Some(own), above].into_iter().flatten().find(is_delegated).map(Path::to_path_buf)
}

fn enter(group: &Path) -> Result<(), String> {
    make(group)?;
    fs::write(group.join("cgroup.procs"), "0").map_err(|error| format!("go into {}: {error}", group.display()))
}

fn make(group: &Path) -> Result<(), String> {
    match fs::create_dir(group) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(format!("make {}: {error}", group.display())),
        _ => Ok(()),
    }
}

fn open(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(openat(rustix::fs::CWD, path, flags, Mode::empty())?)
}

/// Starts a process in a group, and looks at all that a run's group must have.
fn try_out(cgroups: &Cgroups) -> io::Result<()> {
    // An earlier guardian may have died in this function.
    cgroups.remove(TRIED);
    let group = cgroups.make(TRIED)?;
    let mut program = Program::new("/proc/self/exe", "wing-crontab");
    program.arguments.push("--version".into());
    let null = || fs::File::options().read(true).write(true).open("/dev/null");
    let pid = Cgroups::start(&program, null()?, null()?, &group)?;
    rustix::io::retry_on_intr(|| waitpid(Pid::from_raw(pid as i32), WaitOptions::empty()))?;
    let folder = &cgroups.folders[0];
    // The kernel has it from 5.14 on.
    rustix::fs::accessat(folder, format!("{TRIED}/cgroup.kill"), rustix::fs::Access::WRITE_OK, AtFlags::EACCESS)?;
    read(folder, &format!("{TRIED}/cgroup.events"))?;
    unlinkat(folder, TRIED, AtFlags::REMOVEDIR)?;
    Ok(())
}

/// The folders of this name anywhere below.
fn search(point: &Path, name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut groups = vec![point.to_path_buf()];
    let mut at = 0;
    while let Some(group) = groups.get(at).cloned() {
        let entries = fs::read_dir(&group).into_iter().flatten().flatten();
        for folder in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            if folder.file_name() == name {
                found.push(folder.path());
            } else if !folder.file_name().as_encoded_bytes().starts_with(FOLDER.as_bytes())
                && groups.len() < SEARCHED_MAX
            {
                groups.push(folder.path());
            }
        }
        at += 1;
    }
    found
}
