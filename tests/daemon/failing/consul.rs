//! Consul that hangs, is gone, or has an agent that answers 500 because it knows no server.

use super::{Trial, fail_for_a_while};
use crate::support::consul::{Agent, Names};
use crate::support::daemon::Node;
use crate::support::{consul, mariadb, wait_until};

/// A node in a cluster, with an agent of Consul on its host, and a server elsewhere.
fn started() -> Option<(Agent, Agent, Trial)> {
    let (server, database) = (consul::own_agent()?, mariadb::database()?);
    let agent = server.client()?;
    let trial = Trial::started(Node::new(&format!("{}{}", database.toml(), agent.toml(&Names::new()))));
    Some((server, agent, trial))
}

#[test]
fn a_consul_that_hangs_or_is_gone_holds_up_no_answer_and_no_run() {
    let Some((_server, mut agent, trial)) = started() else { return };
    agent.set_hanging(true);
    trial.asked_while(fail_for_a_while);
    agent.set_hanging(false);
    trial.check_outcomes();
    agent.stop();
    trial.asked_while(fail_for_a_while);
    agent.start();
    trial.check_outcomes();
}

#[test]
fn an_agent_of_consul_that_knows_no_server_holds_up_no_answer_and_no_run() {
    let Some((mut server, agent, trial)) = started() else { return };
    server.stop();
    // From now on it answers 500.
    wait_until("the agent finds no leader", || agent.get("/v1/kv/any?consistent").is_none());
    trial.asked_while(fail_for_a_while);
    server.start();
    trial.check_outcomes();
}
