//! Files under data_dir that are cut off, or hold random bytes, when the daemon starts.

use super::Trial;
use crate::support::daemon::Node;
use crate::support::mariadb;
use crate::support::process::is_alive;
use crate::support::{wait_for, wait_until};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// What happens to a file.
#[derive(Clone, Copy, Debug)]
enum Damage {
    Missing,
    Empty,
    Half,
    RandomMiddle,
    RandomWhole,
}

const ALL: [Damage; 5] = [Damage::Missing, Damage::Empty, Damage::Half, Damage::RandomMiddle, Damage::RandomWhole];

/// The same bytes in every run of the test.
fn random_bytes(count: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..count).map(|_| next()).collect()
}

fn damage(path: &Path, damage: Damage) {
    let length = std::fs::metadata(path).expect("the file is there").len();
    let file = || std::fs::OpenOptions::new().write(true).open(path).expect("root may");
    match damage {
        Damage::Missing => std::fs::remove_file(path).expect("root may"),
        Damage::Empty => file().set_len(0).expect("root may"),
        Damage::Half => file().set_len(length / 2).expect("root may"),
        Damage::RandomMiddle => {
            let bytes = random_bytes((length / 3) as usize);
            file().write_all_at(&bytes, length / 3).expect("root may");
        }
        Damage::RandomWhole => std::fs::write(path, random_bytes(length as usize)).expect("root may"),
    }
}

/// How the daemon takes the damage.
enum Taken {
    Runs,
    /// It has ended, and said this.
    Ended(String),
}

fn start(node: &mut Node) -> Taken {
    let before = node.said().len();
    node.launch();
    wait_for("the daemon runs or ends", || match node.is_over() {
        true => Some(Taken::Ended(node.said()[before..].to_string())),
        false => node.api.is_up().then_some(Taken::Runs),
    })
}

/// Without its id it is another node, which leads once the lead of the former one is surely over.
fn start_as_another_node(node: &mut Node) {
    wait_until("the daemon runs", || match start(node) {
        Taken::Runs => true,
        Taken::Ended(said) => {
            assert!(said.contains(BESIDE_ITSELF), "{said}");
            false
        }
    });
}

/// What a node without Consul says that finds that another one led just now.
const BESIDE_ITSELF: &str = "stop it and wait 10 s";

/// Damages the file of a node that was killed in the midst of its runs, in each way.
#[track_caller]
fn check_damaged(name: &str) {
    let mut trial = Trial::started(Node::new(""));
    for how in ALL {
        eprintln!("{name}: {how:?}");
        trial.witness.wait_more("x", 2);
        let daemon = trial.node.daemon_pid();
        trial.node.kill_whole();
        assert!(!is_alive(daemon));
        let path = trial.node.path("data").join(name);
        let aside = trial.node.path(&format!("{name}.good"));
        std::fs::copy(&path, &aside).expect("root may");
        damage(&path, how);
        if let Taken::Ended(said) = start(&mut trial.node) {
            if said.contains(BESIDE_ITSELF) {
                start_as_another_node(&mut trial.node);
                continue;
            }
            assert!(said.contains(name), "{name} is not named: {said}");
            assert!(
                ["remove", "restore", "move"].iter().any(|what| said.contains(what)),
                "it is not said what to do: {said}"
            );
            std::fs::copy(&aside, &path).expect("root may");
            trial.node.start();
        }
    }
    trial.check_outcomes();
}

#[test]
fn whatever_has_become_of_the_marks_nothing_is_started_twice_or_lost_in_silence() {
    check_damaged("marks");
}

#[test]
fn whatever_has_become_of_the_spool_nothing_is_started_twice_or_lost_in_silence() {
    check_damaged("spool");
}

#[test]
fn whatever_has_become_of_a_nodes_id_nothing_is_started_twice_or_lost_in_silence() {
    check_damaged("node_id");
}

#[test]
fn whatever_has_become_of_the_lock_nothing_is_started_twice_or_lost_in_silence() {
    check_damaged("lock");
}

#[test]
fn a_damaged_store_is_never_used_and_it_is_said_what_to_do() {
    check_damaged("wing-crontab.db");
}

#[test]
fn with_a_database_a_lost_data_dir_costs_no_second_run() {
    let Some(database) = mariadb::database() else { return };
    let mut trial = Trial::started(Node::new(&format!("misfire_grace = 10\n{}", database.toml())));
    for _ in 0..3 {
        trial.witness.wait_more("x", 2);
        trial.node.kill_whole();
        std::fs::remove_dir_all(trial.node.path("data")).expect("root may");
        start_as_another_node(&mut trial.node);
    }
    trial.check_outcomes();
}
