//! The road to Lua: channels that Lua made in this worker, and the content handler of the Lua module
//! that serves them. What runs there is `src/lua/`'s.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ffi::CStr;

use crate::ngx::conf::{Conf, ConfError};
use crate::ngx::content::Handler;
use crate::proto::cluster::action::check_channel;

/// Most channels that Lua makes in a worker.
const CHANNELS_MAX: usize = 1024;

thread_local! {
    /// By name.
    static CHANNELS: RefCell<BTreeSet<Vec<u8>>> = const { RefCell::new(BTreeSet::new()) };
}

/// Makes a channel known to this worker. False where it cannot have that name, or is one too many.
pub fn register(name: &[u8]) -> bool {
    check_channel(name).is_ok()
        && CHANNELS.with_borrow_mut(|channels| {
            (channels.len() < CHANNELS_MAX || channels.contains(name))
                && (channels.insert(name.to_vec()) || channels.contains(name))
        })
}

/// Whether Lua made that channel in this worker.
pub fn has(name: &[u8]) -> bool {
    CHANNELS.with_borrow(|channels| channels.contains(name))
}

/// The content handler that runs the package `ngx_cc.content` for `directive`; None where the Lua
/// module is not loaded.
pub fn handler(cf: &mut Conf<'_>, directive: &str) -> Result<Option<Handler>, ConfError> {
    if !cf.cycle().has_module("ngx_http_lua_module") {
        return Ok(None);
    }
    let text: &CStr = match directive {
        "cc_cast" => c"require('ngx_cc.content').cast()",
        _ => c"require('ngx_cc.content').invoke()",
    };
    cf.borrowed_handler(c"content_by_lua", text)
}
