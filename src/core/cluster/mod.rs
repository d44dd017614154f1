//! The node among others: who leads, whom this node follows, and who follows it.
//!
//! Not the leader's decisions about runs and jobs.

pub mod election;
pub mod follower;
pub mod lookup;
pub mod roster;
