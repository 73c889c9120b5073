#![doc = include_str!("README.md")]

pub mod proto;
pub mod shm;

#[cfg(feature = "nginx")]
pub mod lua;
#[cfg(feature = "nginx")]
pub mod modules;
#[cfg(feature = "nginx")]
pub mod ngx;
