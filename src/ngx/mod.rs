//! TOUCHES. All FFI: safe wrappers and trampolines, one file per nginx subsystem. Knows proto, not
//! shm; called by `modules`.
#![allow(unsafe_code)]

pub mod client;
pub mod conf;
pub mod content;
pub mod cycle;
pub mod delegate;
pub mod event;
pub mod guard;
pub mod http;
pub mod listening;
pub mod log;
pub mod lua;
pub mod membarrier;
pub mod memory;
pub mod module;
pub mod peer;
pub mod process;
pub mod request;
pub mod respond;
pub mod socket;
pub mod timer;
pub mod upstream;
pub mod value;
pub mod variable;
pub mod zone;
