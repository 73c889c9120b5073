//! The one border between nginx's C frames and Rust: a panic stops here, is logged and becomes the
//! callback's error value. A panic that crossed it in the master would orphan every worker.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::ngx::log::{self, Level};

/// Runs one callback; a panic is logged at alert with `noun` and answered with `failed`.
pub fn guard<R>(noun: &str, failed: R, callback: impl FnOnce() -> R) -> R {
    match catch_unwind(AssertUnwindSafe(callback)) {
        Ok(value) => value,
        Err(panic) => {
            log::cycle(Level::Alert, format_args!("cc: {noun}: panic: {}", reason(&*panic)));
            failed
        }
    }
}

fn reason(panic: &(dyn Any + Send)) -> &str {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (None, Some(text)) => text,
        (None, None) => "unknown reason",
    }
}
