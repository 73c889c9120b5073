//! What the cluster decides: who may call, what a call asks for, where it goes on, what its answers
//! come to. Called by `modules::cluster` and, through it, by Lua.

pub mod action;
pub mod allow;
pub mod builtin;
pub mod cast;
pub mod check;
pub mod gather;
pub mod headers;
pub mod membership;
pub mod pool;
pub mod query;
pub mod secret;
pub mod sign;
pub mod stat;
pub mod window;
pub mod wire;
