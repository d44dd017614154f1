//! wing-crontab: a distributed crontab, exact to the second.

pub mod core;
pub mod model;
