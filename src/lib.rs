#![doc = include_str!("README.md")]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic))]

pub mod proto;
pub mod shm;

#[cfg(feature = "nginx")]
pub mod lua;
#[cfg(feature = "nginx")]
pub mod modules;
#[cfg(feature = "nginx")]
pub mod ngx;
