//! The daemon as users know it: a process with a configuration, an HTTP API and signals. The jobs write down what happened.

#[path = "../support/mod.rs"]
mod support;

mod access;
mod api;
mod cgroups;
mod changes;
mod config;
mod connections;
mod control;
mod crash;
mod directories;
mod failing;
mod files;
mod flood;
mod health;
mod http;
mod http_budgets;
mod http_clients;
mod http_requests;
mod https;
mod limits;
mod marks;
mod misfire;
mod mutex;
mod operators;
mod outage;
mod output;
mod runs;
mod services;
mod shells;
mod shutdown;
mod signals;
mod spawning;
mod terminal;
mod unasked;
mod users;
mod zones;
