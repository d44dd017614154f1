//! Parts that fail beside a daemon: its database, Consul, its disk, and what the host has of descriptors, processes and memory.
//!
//! Each trial has a job of every second. While the part is out of order the API is asked everything again and again, and
//! has to answer soon. Afterwards every second has exactly one outcome: the job ran, as it wrote down itself, or a log
//! row says why not.

mod consul;
mod damage;
mod database;
mod disk;
mod exhaustion;

use crate::support::api::Api;
use crate::support::daemon::Node;
use crate::support::outcomes::Outcomes;
use crate::support::time::{pass, second};
use crate::support::wait_to_see;
use crate::support::witness::Witness;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, spawn};
use std::time::{Duration, Instant};

/// The API answers within three seconds, whatever it says. The tests share few cores, which may cost a second more.
const ANSWER_MAX: Duration = Duration::from_secs(3 + 1);
/// For how many seconds a part is out of order, where nothing else ends it: in the short form, and with
/// `make test-faults WING_FAULTS=long`.
const FAILING_SECS: [u64; 2] = [6, 300];

/// A node and its job of every second.
struct Trial {
    node: Node,
    witness: Witness,
    id: u64,
    from: i64,
}

impl Trial {
    /// Starts the node, adds the job and waits until it runs.
    fn started(mut node: Node) -> Trial {
        node.start();
        let witness = node.witness("seen");
        let id = node.api.add_every_second(&witness.write("x"), "");
        witness.wait_more("x", 3);
        let from = witness.sorted_seconds("x")[0];
        Trial { node, witness, id, from }
    }

    /// Asks the API all the time while `act` runs; panics if an answer does not come in time.
    fn asked_while(&self, act: impl FnOnce()) {
        let ends = Arc::new(AtomicBool::new(false));
        let askers: Vec<JoinHandle<()>> =
            ASKED.iter().map(|path| asker(self.node.api.clone(), path, Arc::clone(&ends))).collect();
        act();
        ends.store(true, Ordering::Relaxed);
        askers.into_iter().for_each(|asker| asker.join().expect("the API answers in time"));
    }

    /// Waits until every second up to the last one has its outcome, and checks that none has two.
    #[track_caller]
    fn check_outcomes(&self) -> Outcomes {
        self.node.wait_health(200);
        self.witness.wait_more("x", 3);
        let last = second() - 2;
        let outcomes = || {
            let rows = self.node.api.try_rows(self.id).unwrap_or_default();
            Outcomes::of(self.id, &rows, &self.witness.read(), "x", self.from..=last)
        };
        wait_to_see("every second has its outcome", outcomes, |outcomes| outcomes.without.is_empty());
        self.witness.attempts("x");
        let outcomes = outcomes();
        assert_eq!(outcomes.doubled, [0; 0], "{outcomes:?}");
        outcomes
    }
}

/// What is asked: from memory, from the store, and of the cluster.
const ASKED: [&str; 5] = ["/health", "/cron/list", "/log/list", "/run/list", "/cluster"];

fn asker(api: Api, path: &'static str, ends: Arc<AtomicBool>) -> JoinHandle<()> {
    spawn(move || {
        while !ends.load(Ordering::Relaxed) {
            let start = Instant::now();
            let reply = api.try_get(path);
            let elapsed = start.elapsed();
            assert!(elapsed < ANSWER_MAX, "{path} took {elapsed:?}: {reply:?}");
            std::thread::sleep(Duration::from_millis(100));
        }
    })
}

/// Lets the part be out of order for a while.
fn fail_for_a_while() {
    let is_long = std::env::var("WING_FAULTS").as_deref() == Ok("long");
    pass(FAILING_SECS[usize::from(is_long)]);
}
