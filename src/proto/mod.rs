//! DECIDES. Plain data in, plain data out: no I/O, no clock, no nginx, no shared memory. Called by
//! every other floor, knows none of them.
#![forbid(unsafe_code)]

pub mod cluster;
pub mod ipc;
pub mod lifecycle;
pub mod listen;
pub mod preload;
pub mod status;
pub mod upstream;
pub mod zone;
