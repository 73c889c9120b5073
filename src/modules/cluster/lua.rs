//! The road to Lua: channels that Lua made in this worker, with the supers that it set, this node's
//! name, and the content handler of the Lua module that serves those channels. What runs there is
//! `src/lua/`'s.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::driver;
use crate::ngx::conf::{Conf, ConfError};
use crate::ngx::content::Handler;
use crate::proto::cluster::action::check_channel;
use crate::proto::cluster::allow;
use crate::shm::nodes::CHANNELS;

#[derive(Default)]
struct Road {
    /// By name; their supers, where Lua has set them.
    channels: BTreeMap<Vec<u8>, Option<Vec<SocketAddr>>>,
    /// This node's address.
    node: Option<String>,
}

thread_local! {
    static ROAD: RefCell<Road> = RefCell::default();
}

/// Makes a channel known to this worker. False where it cannot have that name, or is one too many.
pub fn register(name: &[u8]) -> bool {
    let known = ROAD.with_borrow_mut(|road| {
        let fits = check_channel(name).is_ok()
            && (road.channels.len() < CHANNELS || road.channels.contains_key(name));
        if fits {
            road.channels.entry(name.to_vec()).or_default();
        }
        fits
    });
    if known {
        driver::start();
    }
    known
}

/// Whether Lua made that channel in this worker.
pub fn has(name: &[u8]) -> bool {
    ROAD.with_borrow(|road| road.channels.contains_key(name))
}

/// Whether Lua made any.
pub fn any() -> bool {
    ROAD.with_borrow(|road| !road.channels.is_empty())
}

/// Those that it made.
pub fn names() -> Vec<String> {
    let name = |name: &Vec<u8>| String::from_utf8(name.clone()).ok();
    ROAD.with_borrow(|road| road.channels.keys().filter_map(name).collect())
}

/// Sets a channel's supers, `HOST:PORT` in numbers, separated by spaces; none: a root. False where
/// one is no address, or Lua has not made the channel.
pub fn set_supers(name: &[u8], text: &[u8]) -> bool {
    let words = text.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
    let Ok(supers) = words.map(allow::learned).collect::<Result<Vec<_>, _>>() else {
        return false;
    };
    let set = ROAD.with_borrow_mut(|road| match road.channels.get_mut(name) {
        Some(place) => {
            *place = Some(supers);
            true
        }
        None => false,
    });
    if let (true, Ok(name)) = (set, std::str::from_utf8(name)) {
        driver::set_supers(name);
    }
    set
}

/// The supers that Lua has set.
pub fn supers(name: &str) -> Option<Vec<String>> {
    ROAD.with_borrow(|road| {
        let supers = road.channels.get(name.as_bytes())?.as_ref()?;
        Some(supers.iter().map(ToString::to_string).collect())
    })
}

/// Sets this node's address, where the configuration has not. False where it is none.
pub fn set_node(text: &[u8]) -> bool {
    let Ok(address) = allow::learned(text) else { return false };
    ROAD.with_borrow_mut(|road| road.node = Some(address.to_string()));
    true
}

/// This node's address as Lua has set it.
pub fn node() -> Option<String> {
    ROAD.with_borrow(|road| road.node.clone())
}

/// The content handler that runs the package `ngx_cc.content`; None where the Lua module is not
/// loaded.
pub fn handler(cf: &mut Conf<'_>) -> Result<Option<Handler>, ConfError> {
    if !cf.cycle().has_module("ngx_http_lua_module") {
        return Ok(None);
    }
    cf.borrowed_handler(c"content_by_lua", c"require('ngx_cc.content').invoke()")
}
