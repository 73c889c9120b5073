//! Plays a cluster in one thread: up to 1,000 nodes with the real membership, a network with latency,
//! loss, cuts and refusals, a virtual clock. All from one seed, which is printed when something is
//! not as it should be.
//!
//! `world` is the nodes and the clock, `network` what is between them, `check` what must hold once it
//! is quiet, `cases` single stories, `chaos` random ones. `CC_SIM_SEED=n` plays one run of the chaos,
//! `CC_SIM_RUNS=n` so many.

mod cases;
mod chaos;
mod check;
mod network;
mod scale;
mod world;
