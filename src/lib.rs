//! wing-crontab: a distributed crontab, exact to the second.

pub mod api;
pub mod config;
pub mod core;
pub mod model;
pub mod wire;
pub mod worker;
