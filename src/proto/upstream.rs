//! The balancer's decisions: what is an address, which peer a key belongs to, how often to try, when
//! a peer counts as failed, and how a try is told. `modules::upstream` asks, `ngx::upstream` does.

pub mod address;
pub mod failures;
pub mod rendezvous;
pub mod tries;
