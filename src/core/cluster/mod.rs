//! The cluster, as one node sees it: the election, this node's link to its leader, and a leader's roster of nodes.
//!
//! Not the leader's decisions about runs and jobs.
//!
//! Invariant: nothing in here decides which node may write to the store: the epoch decides that.

pub mod election;
pub mod follower;
pub mod lookup;
pub mod roster;
