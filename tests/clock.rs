//! A real clock that is set forward and back, by a second and by an hour, under a daemon.
//!
//! The clock of this host is left alone: the daemon runs in a virtual machine of its own, with the host's kernel image and
//! no disk. `make test-clock` runs this; it needs QEMU and a kernel image, and takes a minute.

#[path = "support/mod.rs"]
mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use support::daemon::BINARY;
use support::outcomes::Outcomes;
use support::program;
use support::row::Row;
use support::witness::Witness;

/// What the machine does: it is its first process. It prints what the job wrote, the log rows, and the daemon's own log.
const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
ip link set lo up
date -s @1800000000
cd /root
wing-crontab --config app.toml 2> log &
until wget -q -O - http://127.0.0.1:9990/health > answer; do sleep 1; done
set_clock() { date -s @$(($(date +%s) + $1)); sleep $2; }
wget -q -O - --post-data 'cronSet=* * * * * *&misfire=skip&command=echo+x+$WING_RUN_KEY%23$WING_ATTEMPT+$WING_SCHEDULED_AT+0+>>+/root/seen' http://127.0.0.1:9990/cron/add
sleep 6
set_clock 1 6
set_clock -1 6
set_clock 3600 8
set_clock -3600 8
wc -l < seen > /root/back
set_clock 3600 8
echo; echo BACK $(cat back)
sed 's/^/SEEN /' seen
echo "ROWS $(wget -q -O - 'http://127.0.0.1:9990/log/list?limit=1000')"
sed 's/^/LOG /' log
poweroff -f
"#;
const CONFIG: &str =
    "bind_address = \"127.0.0.1:9991\"\nhttp_bind_address = \"127.0.0.1:9990\"\ndata_dir = \"/root/data\"\n";
/// For so long the machine may run: it is emulated.
const PATIENCE_SECS: &str = "240";

/// Copies a program of this host and the libraries that it needs to the same places below `root`.
fn install(root: &Path, program: &Path, at: &str) {
    let copy = |from: &Path, at: &Path| {
        let to = root.join(at.strip_prefix("/").unwrap_or(at));
        std::fs::create_dir_all(to.parent().expect("it is below the root")).expect("the folder takes it");
        std::fs::copy(from, to).unwrap_or_else(|error| panic!("copy {}: {error}", from.display()));
    };
    copy(program, Path::new(at));
    let listed = Command::new("ldd").arg(program).output().expect("ldd is there");
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let paths = listed.split_whitespace().filter(|word| word.starts_with('/'));
    paths.for_each(|path| copy(Path::new(path), Path::new(path)));
}

/// The newest kernel image of this host.
fn kernel() -> Option<PathBuf> {
    let images = std::fs::read_dir("/boot").ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    images.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-"))).max()
}

/// Runs the machine to its end; gives what it printed.
fn machine() -> String {
    let qemu = program("qemu-system-x86_64").expect("QEMU is needed: Debian's qemu-system-x86");
    let kernel = kernel().expect("a kernel image is needed: Debian's linux-image-cloud-amd64");
    let busybox = program("busybox").expect("busybox is needed: Debian's busybox");
    let folder = tempfile::tempdir().expect("a folder can be made");
    let root = folder.path().join("root");
    install(&root, &busybox, "/bin/busybox");
    install(&root, Path::new(BINARY), "/bin/wing-crontab");
    for (name, text) in [("init", INIT), ("root/app.toml", CONFIG), ("etc/passwd", "root:x:0:0::/root:/bin/sh\n")] {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().expect("it is below the root")).expect("the folder takes it");
        std::fs::write(path, text).expect("the folder takes it");
    }
    ["proc", "sys", "dev", "tmp"].iter().for_each(|name| std::fs::create_dir(root.join(name)).expect("it is new"));
    let image = folder.path().join("image");
    let pack = format!("chmod 755 init && find . | {} cpio -o -H newc > {}", busybox.display(), image.display());
    let packed = Command::new("/bin/sh").args(["-c", &pack]).current_dir(&root).stderr(Stdio::null()).status();
    assert!(packed.expect("a shell starts").success());
    let mut command = Command::new("timeout");
    command.arg(PATIENCE_SECS).arg(qemu).args(["-nographic", "-no-reboot", "-nic", "none", "-m", "768", "-kernel"]);
    command.arg(kernel).arg("-initrd").arg(image).args(["-append", "console=ttyS0 quiet panic=1"]);
    let output = command.stdin(Stdio::null()).output().expect("QEMU starts");
    String::from_utf8_lossy(&output.stdout).replace('\r', "")
}

fn lines<'a>(printed: &'a str, word: &'a str) -> impl Iterator<Item = &'a str> {
    printed.lines().filter_map(move |line| line.strip_prefix(word)?.strip_prefix(' '))
}

#[test]
#[ignore = "it needs QEMU and a kernel image; `make test-clock` runs it"]
fn a_clock_that_is_set_doubles_no_run_and_leaves_no_second_without_outcome() {
    let printed = machine();
    let folder = tempfile::tempdir().expect("a folder can be made");
    let witness = Witness::new(folder.path(), "seen");
    let seen: String = lines(&printed, "SEEN").map(|line| format!("{line}\n")).collect();
    std::fs::write(&witness.path, &seen).expect("the folder takes it");
    let rows = lines(&printed, "ROWS").next().unwrap_or_else(|| panic!("no rows: {printed}"));
    let rows: serde_json::Value = serde_json::from_str(rows).expect("the answer is JSON");
    let rows: Vec<Row> = rows["data"]["list"].as_array().expect("a list").iter().cloned().map(Row).collect();
    let log: Vec<&str> = lines(&printed, "LOG").collect();
    witness.attempts("x");
    let seconds = witness.sorted_seconds("x");
    let (first, last) = (seconds[0], *seconds.last().expect("it ran"));
    let outcomes = Outcomes::of(1, &rows, &witness.read(), "x", first..=last);
    println!("{} runs from {first} to {last}", seconds.len());
    assert!(first + 3_600 < last, "the clock was set an hour forward: {seconds:?}");
    assert_eq!((outcomes.without.len(), outcomes.doubled.len()), (0, 0), "{:?}, {log:?}", outcomes.without);
    let before: usize = lines(&printed, "BACK").next().and_then(|count| count.parse().ok()).expect("a count");
    assert!(before < seconds.len(), "no run after the clock had caught up again");
    assert!(log.iter().any(|line| line.contains("the clock was set back")), "{log:#?}");
}
