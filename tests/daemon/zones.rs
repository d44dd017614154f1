//! Time zones: the host's data count first, and the compiled-in data where the host has none. `next`, `/cron/list` and
//! the runs agree.

use crate::support::daemon::{BINARY, Node, finish};
use crate::support::required;
use crate::support::time::second;
use std::path::Path;
use std::process::Command;

/// An offset east of UTC that no real zone has.
const ODD_SECS: i64 = (5 * 60 + 17) * 60;
const ODD_RULE: &str = "<+0517>-5:17";

/// A zone file (RFC 9636, version 2) with one rule.
fn zone_file(offset_secs: i64, rule: &str) -> Vec<u8> {
    let counts = [0, 0, 0, 0, 1, 4_u32];
    let header: Vec<u8> = [&b"TZif2"[..], &[0; 15]].concat();
    let counts: Vec<u8> = counts.iter().flat_map(|count| count.to_be_bytes()).collect();
    let block = [&header, &counts, &(offset_secs as i32).to_be_bytes()[..], &[0, 0], b"ODD\0"].concat();
    [&block, &block, format!("\n{rule}\n").as_bytes()].concat()
}

/// Zone data that only this test has: Berlin with an odd rule, and a zone of an invented name.
fn odd_data(folder: &Path) -> String {
    let data = folder.join("zoneinfo");
    for name in ["Europe/Berlin", "Mars/Base"] {
        std::fs::create_dir_all(data.join(name).parent().unwrap()).unwrap();
        std::fs::write(data.join(name), zone_file(ODD_SECS, ODD_RULE)).unwrap();
    }
    data.to_str().unwrap().into()
}

/// The next second after `after` at which a clock so far east of UTC shows half past two.
fn next_half_past_two(offset_secs: i64, after: i64) -> i64 {
    let until = (9_000 - offset_secs - after).rem_euclid(86_400);
    after + if until == 0 { 86_400 } else { until }
}

/// `wing-crontab ARGUMENTS` under these variables.
fn told(environment: &[(&str, &str)], arguments: &[&str]) -> (Option<i32>, String, String) {
    finish(Command::new(BINARY).args(arguments).env_remove("TZDIR").envs(environment.iter().copied()))
}

fn next(environment: &[(&str, &str)], arguments: &[&str]) -> (String, String) {
    let rest = ["-n", "1", "--from", "2026-01-01T00:00:00Z"];
    let (code, stdout, stderr) = told(environment, &[&["next"], arguments, &rest].concat());
    assert_eq!(code, Some(0), "{stderr}");
    (stdout, stderr)
}

fn next_time(node: &Node, id: u64) -> i64 {
    node.api.job(id)["next_time"].as_i64().unwrap()
}

/// Checks that the list shows the next half past two as the job's next run. The time may pass it meanwhile.
#[track_caller]
fn is_due_at_half_past_two(node: &Node, id: u64, offset_secs: i64) {
    let before = second();
    let shown = next_time(node, id);
    let expect = [before, second()].map(|now| next_half_past_two(offset_secs, now));
    assert!(expect.contains(&shown), "{shown} is not one of {expect:?}");
}

/// Every second of this hour and of the next, on a clock so far east of UTC.
fn this_hour(offset_secs: i64) -> String {
    let hour = (second() + offset_secs).rem_euclid(86_400) / 3_600;
    format!("* * {hour},{} * * *", (hour + 1) % 24)
}

#[test]
fn the_hosts_rules_count_before_the_compiled_in_ones_in_next_in_the_list_and_for_runs() {
    let mut node = Node::new("time_zone = \"Mars/Base\"\n");
    let data = odd_data(node.folder.path());
    let odd = ("2026-01-02T02:30:00+05:17\n".to_string(), String::new());
    for arguments in [
        &["TZ=Europe/Berlin 0 30 2 * * *"][..],
        &["TZ=europe/berlin 0 30 2 * * *"],
        &["0 30 2 * * *", "--tz", "Mars/Base"],
    ] {
        assert_eq!(next(&[("TZDIR", &data)], arguments), odd, "{arguments:?}");
    }
    let (others, _) = next(&[("TZDIR", &data)], &["TZ=Asia/Tokyo 0 30 2 * * *"]);
    assert_eq!(
        others, "2026-01-02T02:30:00+09:00\n",
        "the compiled-in data serve where the host's data have no such zone"
    );
    node = node.env("TZDIR", &data);
    node.start();
    let named = node.api.add("TZ=Europe/Berlin 0 30 2 * * *", "true", "");
    let unnamed = node.api.add("0 30 2 * * *", "true", "");
    is_due_at_half_past_two(&node, named, ODD_SECS);
    is_due_at_half_past_two(&node, unnamed, ODD_SECS);
    for zone in ["TZ=Europe/Berlin ", ""] {
        let id = node.api.add(&format!("{zone}{}", this_hour(ODD_SECS)), "true", "");
        node.api.wait_for_rows(id, "ok", 1);
    }
}

#[test]
fn an_update_of_the_hosts_data_counts_from_the_next_start_on() {
    let mut node = Node::new("");
    let data = odd_data(node.folder.path());
    node = node.env("TZDIR", &data).env("TZ", "Europe/Berlin");
    node.start();
    let named = node.api.add("TZ=Mars/Base 0 30 2 * * *", "true", "");
    let unnamed = node.api.add("0 30 2 * * *", "true", "");
    let other_secs = (-3 * 60 - 33) * 60;
    for name in ["Europe/Berlin", "Mars/Base"] {
        std::fs::write(format!("{data}/{name}"), zone_file(other_secs, "<-0333>3:33")).unwrap();
    }
    is_due_at_half_past_two(&node, named, ODD_SECS);
    is_due_at_half_past_two(&node, unnamed, ODD_SECS);
    assert!(node.stop().success());
    node.start();
    is_due_at_half_past_two(&node, named, other_secs);
    is_due_at_half_past_two(&node, unnamed, other_secs);
}

/// A shell line to run before the program, in a mount namespace of its own: it hides the host's zone data.
const HIDDEN: &str = "for folder in /usr/share/zoneinfo /usr/share/lib/zoneinfo /etc/zoneinfo; do \
                      [ ! -d $folder ] || mount -t tmpfs none $folder || exit 9; done";

fn can_hide() -> bool {
    let (code, _, stderr) = finish(Command::new("unshare").args(["-m", "/bin/sh", "-c", HIDDEN]));
    required("a mount namespace", if code == Some(0) { Ok(()) } else { Err(stderr) }).is_some()
}

#[test]
fn the_compiled_in_data_serve_where_the_host_has_none() {
    if !can_hide() {
        return;
    }
    let berlin = "TZ=Europe/Berlin 0 30 2 * * *";
    let script = format!("{HIDDEN}\nexec {BINARY} \"$@\"");
    let hidden = |arguments: &[&str]| {
        finish(
            Command::new("unshare")
                .args(["-m", "/bin/sh", "-c", &script, "sh"])
                .args(arguments)
                .env("TZ", "Asia/Tokyo"),
        )
    };
    let (code, stdout, stderr) = hidden(&["next", berlin, "-n", "1", "--from", "2026-07-01T00:00:00Z"]);
    assert_eq!((code, stdout.as_str(), stderr.as_str()), (Some(0), "2026-07-01T02:30:00+02:00\n", ""));
    let mut node = Node::new("").env("TZ", "Asia/Tokyo").with_own_mounts(HIDDEN);
    let (code, stdout, stderr) = hidden(&["--check-config", "--config", node.config().to_str().unwrap()]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains("Asia/Tokyo") && stdout.contains("compiled in"), "{stdout}");
    node.start();
    let unnamed = node.api.add("0 30 2 * * *", "true", "");
    is_due_at_half_past_two(&node, unnamed, 9 * 3_600);
    let id = node.api.add(&format!("TZ=Asia/Kathmandu {}", this_hour((5 * 60 + 45) * 60)), "true", "");
    node.api.wait_for_rows(id, "ok", 1);
}

#[test]
fn a_zone_in_the_environment_may_have_every_form_that_the_host_knows() {
    let folder = tempfile::tempdir().unwrap();
    let data = odd_data(folder.path());
    let file = format!("{data}/Europe/Berlin");
    for (zone, offset) in [
        ("Europe/Berlin", "+05:17"),
        (":Europe/Berlin", "+05:17"),
        (&file, "+05:17"),
        ("/gone/zoneinfo/Asia/Tokyo", "+09:00"),
        ("EST5EDT,M3.2.0,M11.1.0", "-05:00"),
        ("Asia/Tokyo", "+09:00"),
        ("", "+00:00"),
    ] {
        let (stdout, stderr) = next(&[("TZ", zone), ("TZDIR", &data)], &["0 30 2 * * *"]);
        assert!(stdout.ends_with(&format!("T02:30:00{offset}\n")), "TZ={zone}: {stdout}");
        assert_eq!(stderr, "", "TZ={zone}");
    }
}

#[test]
fn an_unknown_zone_in_the_environment_is_warned_of_and_utc_serves() {
    let environment = [("TZ", "Europe/Berlinn")];
    let (stdout, stderr) = next(&environment, &["0 30 2 * * *"]);
    assert_eq!(stdout, "2026-01-01T02:30:00+00:00\n");
    assert!(stderr.contains("TZ=Europe/Berlinn") && stderr.contains("UTC"), "{stderr}");
    let mut node = Node::new("").env("TZ", "Europe/Berlinn");
    let config = node.config();
    let arguments = ["--check-config", "--config", config.to_str().unwrap()];
    let (code, stdout, stderr) = told(&environment, &arguments);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains("time zone: UTC"), "{stdout}");
    assert!(stderr.contains("TZ=Europe/Berlinn") && stderr.contains("UTC"), "{stderr}");
    node.start();
    node.wait_said("TZ=Europe/Berlinn");
    assert_eq!(node.said().matches("TZ=Europe/Berlinn").count(), 1, "once: {}", node.said());
    let id = node.api.add("0 30 2 * * *", "true", "");
    is_due_at_half_past_two(&node, id, 0);
    node.edit(|text| format!("{text}time_zone = \"Europe/Berlinn\"\n"));
    let (code, _, stderr) = told(&[("TZ", "UTC")], &arguments);
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("time_zone: \"Europe/Berlinn\"") && stderr.contains("compiled in"), "{stderr}");
}

#[test]
fn check_config_shows_the_zone_in_force_and_where_its_data_come_from() {
    let node = Node::new("");
    let data = odd_data(node.folder.path());
    std::fs::write(node.path("zoneinfo/tzdata.zi"), "# version 2099z\n").unwrap();
    let config = node.config();
    let check = |zone| {
        let environment = [("TZ", zone), ("TZDIR", data.as_str())];
        let (code, stdout, stderr) = told(&environment, &["--check-config", "--config", config.to_str().unwrap()]);
        assert_eq!((code, stderr.as_str()), (Some(0), ""));
        stdout.lines().find(|line| line.starts_with("time zone: ")).expect("it is shown").to_string()
            + stdout.lines().find(|line| line.starts_with("zone data: ")).expect("they are shown")
    };
    let told = check("Europe/Berlin");
    assert!(told.contains("Europe/Berlin") && told.contains(&format!("{data}/Europe/Berlin")), "{told}");
    assert!(told.contains("TZ") && told.contains("2099z"), "{told}");
    let told = check("Asia/Tokyo");
    assert!(told.contains("Asia/Tokyo") && told.contains("compiled in"), "{told}");
    node.edit(|text| format!("{text}time_zone = \"Mars/Base\"\n"));
    let told = check("Asia/Tokyo");
    assert!(told.contains("time_zone") && told.contains(&format!("{data}/Mars/Base")), "{told}");
}

#[test]
fn unusable_zone_data_are_warned_of_and_the_compiled_in_data_serve() {
    let folder = tempfile::tempdir().unwrap();
    let data = odd_data(folder.path());
    std::fs::write(format!("{data}/Europe/Berlin"), "TZif2 and nothing of it").unwrap();
    let berlin = ["TZ=Europe/Berlin 0 30 2 * * *"];
    let (stdout, stderr) = next(&[("TZDIR", &data), ("TZ", "UTC")], &berlin);
    assert_eq!(stdout, "2026-01-01T02:30:00+01:00\n");
    assert!(stderr.contains(&format!("{data}/Europe/Berlin")), "{stderr}");
    let empty = folder.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let (stdout, stderr) = next(&[("TZDIR", empty.to_str().unwrap()), ("TZ", "UTC")], &berlin);
    assert_eq!(stdout, "2026-01-01T02:30:00+01:00\n");
    assert!(stderr.contains(&format!("TZDIR={}", empty.display())), "{stderr}");
}
