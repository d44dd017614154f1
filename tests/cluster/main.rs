//! Several nodes with one database and one Consul: whichever node dies, no run starts twice or is missed, and a mutex holds.

#[path = "../support/mod.rs"]
mod support;

mod agents;
mod changes;
mod disasters;
mod faults;
mod heals;
mod health;
mod hosts;
mod https;
mod links;
mod output;
mod proxy;
mod reads;
mod replicas;
mod secrets;
mod store;
mod strangers;
mod together;
