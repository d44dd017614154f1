//! A host that has no descriptor, no process or no memory left for the daemon.

use super::Trial;
use crate::support::daemon::Node;
use crate::support::{wait_to_see, wait_until};
use std::io::Write;
use std::net::TcpStream;
use std::thread::spawn;

/// How many processes and threads that user may have.
const PROCESSES_MAX: usize = 60;
/// How many rows of a megabyte there are.
const LONG_ROWS: u64 = 40;
/// A user that nobody else is, so that only the node's processes count.
const USER: u32 = 54_321;

#[test]
fn a_daemon_without_a_free_descriptor_delays_runs_and_goes_on_when_it_has_some() {
    let node = Node::new("max_running = 20\n").after("ulimit -n 120");
    let trial = Trial::started(node);
    let daemon = trial.node.daemon_pid();
    // Clients that say nothing, more than there are descriptors. Some of them are not even taken.
    let connect = |_| TcpStream::connect(&trial.node.api.address).ok();
    let clients: Vec<TcpStream> = (0..200).map_while(connect).collect();
    trial.witness.wait_more("x", 3);
    drop(clients);
    trial.asked_while(|| trial.witness.wait_more("x", 3));
    trial.check_outcomes();
    assert_eq!(trial.node.daemon_pid(), daemon);
}

#[test]
fn jobs_that_take_every_process_of_the_daemons_user_delay_runs_and_are_told() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root may become another user");
        return;
    }
    let node = Node::new("max_running = 100\n");
    let folder = node.folder.path().display().to_string();
    let node = node.after(&format!(
        "cp \"$0\" {folder}/copy && chown -R {USER}:{USER} {folder} && \
         exec prlimit --nproc={PROCESSES_MAX} setpriv --reuid {USER} --regid {USER} --clear-groups {folder}/copy \"$@\""
    ));
    let trial = Trial::started(node);
    let daemon = trial.node.daemon_pid();
    // A shell that waits for a line needs no further process.
    let fifo = trial.node.path("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o666.into(), 0).expect("a pipe is made");
    let greedy = trial.node.api.add_idle(&format!("read line < {}", fifo.display()), "");
    (0..PROCESSES_MAX).for_each(|_| drop(trial.node.api.run_job(greedy)));
    let throttled = || trial.node.api.get("/cluster").ok()["nodes"][0]["throttled"].clone();
    trial.asked_while(|| {
        wait_to_see("the node says that it can start nothing", throttled, |throttled| *throttled == true);
        let open = std::fs::OpenOptions::new().read(true).write(true).open(&fifo).expect("the pipe is there");
        wait_until("no shell waits any more", || {
            (&open).write_all(&[b'\n'; PROCESSES_MAX]).expect("the pipe takes lines");
            trial.node.api.runs().iter().all(|run| run["cron_id"] != greedy)
        });
        wait_to_see("the processes are free again", throttled, |throttled| *throttled == false);
    });
    trial.check_outcomes();
    assert_eq!(trial.node.daemon_pid(), daemon);
    assert!(trial.node.said().contains("Resource temporarily unavailable"), "{}", trial.node.said());
}

#[test]
fn many_long_answers_at_once_fit_into_little_memory() {
    let node = Node::new("max_output_bytes = 1000000\n").after("ulimit -v 1200000");
    let trial = Trial::started(node);
    let long = trial.node.api.add_idle("head -c 1000000 /dev/zero | tr '\\0' x", "");
    (0..LONG_ROWS).for_each(|_| drop(trial.node.api.run_job(long)));
    let total = || trial.node.api.get(&format!("/log/list?cron_id={long}&limit=1")).ok()["total"].as_u64();
    wait_to_see("all long rows", total, |total| *total == Some(LONG_ROWS));
    let ask = |_| {
        let api = trial.node.api.clone();
        spawn(move || api.try_get("/log/list?limit=10000").map(|reply| reply.status))
    };
    let clients: Vec<_> = (0..24).map(ask).collect();
    for client in clients {
        let status = client.join().expect("it only asks");
        assert!(matches!(status, None | Some(200 | 503)), "{status:?}");
    }
    // Where an allocation failed, another daemon has gone on with the work.
    trial.node.wait_up_again();
    trial.check_outcomes();
}
