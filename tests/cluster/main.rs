//! Several nodes with one database and one Consul: nothing starts twice, nothing is missed, a mutex holds, whoever dies.

#[path = "../support/mod.rs"]
mod support;

mod agents;
mod changes;
mod copies;
mod disasters;
mod faults;
mod heals;
mod health;
mod hosts;
mod links;
mod output;
mod proxy;
mod reads;
mod store;
mod together;
