//! TLS to MySQL and to Consul, with the real servers, right and wrong certificates, and a listener on the way.

#[path = "../support/mod.rs"]
mod support;

mod config;
mod consul;
mod listener;
mod mysql;
