//! A disk under data_dir that is full, or that the kernel has made read-only after a fault.

use super::{Trial, fail_for_a_while};
use crate::support::api::Reply;
use crate::support::daemon::Node;
use crate::support::{mariadb, required, wait_to_see};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// A small disk of its own: an ext4 file system in a file.
struct Disk {
    folder: TempDir,
}

fn command(line: &str) -> Result<(), String> {
    let output = Command::new("/bin/sh").args(["-c", line]).output().map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{line}: {}", String::from_utf8_lossy(&output.stderr))),
    }
}

impl Disk {
    /// `None` where there is none to be had: only root may mount one.
    fn new() -> Option<Disk> {
        let folder = tempfile::Builder::new().prefix("wing-disk-").tempdir().expect("a folder can be made");
        let disk = Disk { folder };
        let (image, place) = (disk.image().display().to_string(), disk.place().display().to_string());
        let made = command(&format!(
            "truncate -s 32M {image} && PATH=$PATH:/sbin:/usr/sbin mkfs.ext4 -q -m 0 {image} && mkdir {place}"
        ));
        required("a disk", made.and_then(|()| disk.mount()).map(|()| disk))
    }

    fn image(&self) -> PathBuf {
        self.folder.path().join("image")
    }

    fn place(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    fn data_dir(&self) -> PathBuf {
        self.place().join("data")
    }

    fn mount(&self) -> Result<(), String> {
        let (image, place) = (self.image(), self.place());
        command(&format!("mount -o loop,errors=remount-ro {} {}", image.display(), place.display()))
    }

    /// Has the node keep its files on this disk.
    fn under(&self, node: Node) -> Node {
        let of_node = node.path("data").display().to_string();
        node.edit(|text| text.replace(&of_node, &self.data_dir().display().to_string()));
        node
    }

    fn fill(&self) {
        let fill = |size: &str| command(&format!("dd if=/dev/zero bs={size} >> {}/filling", self.place().display()));
        assert!(fill("64k").is_err() && fill("512").is_err(), "the disk has an end");
    }

    fn free(&self) {
        std::fs::remove_file(self.place().join("filling")).expect("it was filled");
    }

    /// Makes the kernel find a fault in the file system, so that nothing can be written until it is mounted anew.
    fn break_down(&self) {
        let source = format!("findmnt -no SOURCE {}", self.place().display());
        command(&format!("echo broken > /sys/fs/ext4/$(basename $({source}))/trigger_fs_error")).expect("root may");
        assert!(std::fs::write(self.place().join("any"), "").is_err(), "nothing can be written");
    }

    /// Repairs the disk, of which nobody has a file open any more.
    fn repair(&self) {
        command(&format!("umount {}", self.place().display())).expect("nobody uses it");
        // It says by 1 that it has repaired something.
        let _ = command(&format!("PATH=$PATH:/sbin:/usr/sbin fsck.ext4 -fy {}", self.image().display()));
        self.mount().expect("it was mounted before");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = command(&format!("umount -l {}", self.place().display()));
    }
}

#[test]
fn a_full_disk_holds_up_runs_until_there_is_room_and_is_told() {
    let Some(disk) = Disk::new() else { return };
    let trial = Trial::started(disk.under(Node::new("")));
    disk.fill();
    trial.asked_while(|| {
        trial.node.wait_health(503);
        fail_for_a_while();
        let health = trial.node.api.get("/health");
        assert!(health.message().contains("disk is full"), "{health:?}");
        trial.node.api.post("/cron/add", "cronSet=0 0 0 1 1 *&command=true").refused(503, "disk is full");
    });
    disk.free();
    trial.check_outcomes();
}

#[test]
fn a_daemon_that_dies_while_the_disk_is_full_starts_again_on_it() {
    let Some(disk) = Disk::new() else { return };
    let trial = Trial::started(disk.under(Node::new("")));
    // From the second start on there is the file of the former marks, whose room the next marks take.
    trial.node.kill_daemon();
    trial.node.wait_up_again();
    disk.fill();
    trial.node.kill_daemon();
    let is_told = |reply: &Option<Reply>| reply.as_ref().is_some_and(|reply| reply.status == 503);
    wait_to_see("/health answers 503", || trial.node.api.try_get("/health"), is_told);
    trial.asked_while(fail_for_a_while);
    disk.free();
    trial.check_outcomes();
}

#[test]
fn with_a_database_runs_go_on_while_the_disk_is_full_even_of_a_daemon_that_was_killed() {
    let Some(disk) = Disk::new() else { return };
    let Some(database) = mariadb::database() else { return };
    let trial = Trial::started(disk.under(Node::new(&database.toml())));
    trial.node.kill_daemon();
    trial.node.wait_up_again();
    disk.fill();
    trial.asked_while(|| trial.witness.wait_more("x", 5));
    trial.node.kill_daemon();
    trial.witness.wait_more("x", 5);
    disk.free();
    trial.check_outcomes();
}

#[test]
fn a_disk_that_may_only_be_read_holds_up_runs_until_it_is_repaired() {
    let Some(disk) = Disk::new() else { return };
    let mut trial = Trial::started(disk.under(Node::new("")));
    disk.break_down();
    trial.asked_while(|| {
        trial.node.wait_health(503);
        fail_for_a_while();
        let health = trial.node.api.get("/health");
        assert!(is_told(health.message(), &disk.data_dir()), "{health:?}");
    });
    trial.node.kill_daemon();
    trial.node.wait_said("Read-only file system");
    trial.node.kill_whole();
    disk.repair();
    trial.node.start();
    trial.check_outcomes();
}

fn is_told(message: &str, data_dir: &Path) -> bool {
    message.contains(&data_dir.display().to_string()) && (message.contains("readonly") || message.contains("I/O error"))
}
