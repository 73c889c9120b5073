//! What is fuzzed: one module per target, each with `run`, which takes any bytes, leads them through
//! the code and panics where something does not hold. `fuzz_targets/` runs them with libFuzzer,
//! `tests/smoke.rs` without.

pub mod answer;
pub mod auth;
pub mod configuration;
pub mod frame;
pub mod input;
pub mod membership;
pub mod memory;
pub mod peers;
pub mod request;
pub mod retained;
pub mod ring;
pub mod workers;

/// A target's name and what it runs.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 10] = [
    ("answer", answer::run),
    ("auth", auth::run),
    ("configuration", configuration::run),
    ("frame", frame::run),
    ("membership", membership::run),
    ("peers", peers::run),
    ("request", request::run),
    ("retained", retained::run),
    ("ring", ring::run),
    ("workers", workers::run),
];
