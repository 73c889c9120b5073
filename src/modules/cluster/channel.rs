//! Which channel a request is for.

use std::cell::RefCell;

use super::location::{Location, Timeouts};
use super::{lua, refuse, settings};
use crate::modules::http::Http;
use crate::ngx::http::context;
use crate::ngx::request::Request;
use crate::ngx::respond::Response;
use crate::ngx::value::Value;
use crate::proto::cluster::action::{UNKNOWN_CHANNEL, channel_of, shown};

/// A channel that is there.
#[derive(Clone, Debug)]
pub struct Channel {
    /// See there.
    pub name: String,
    /// Lua has made it in this worker.
    pub lua: bool,
    /// Milliseconds of each step of a call, where it has its own.
    timeout: Option<usize>,
}

impl Channel {
    /// The channel of that name.
    pub fn named(name: &[u8]) -> Option<Channel> {
        let lua = lua::has(name);
        let declared = settings().and_then(|settings| settings.channel(name));
        (lua || declared.is_some()).then(|| Channel {
            name: shown(name),
            lua,
            timeout: declared.and_then(|channel| channel.timeout),
        })
    }

    /// How long a call may take that no location makes.
    pub fn own_timeouts(&self) -> Timeouts {
        self.timeouts(&Location::default())
    }

    /// How long a call from `location` may take.
    pub fn timeouts(&self, location: &Location) -> Timeouts {
        match self.timeout {
            Some(time) => Timeouts { connect: time, send: time, read: time },
            None => location.timeouts(),
        }
    }
}

/// The channel that `named` gives, or the path's first segment.
pub fn of(request: &Request<'_>, named: Option<&Value>) -> Option<Channel> {
    match named {
        Some(value) => Channel::named(value.of_request(request)?),
        None => Channel::named(channel_of(request.path())?),
    }
}

/// The same, or the refusal.
pub fn found(request: &Request<'_>, named: Option<&Value>) -> Result<Channel, Response> {
    let unknown = || refuse::refused(request, "unknown channel", 403, UNKNOWN_CHANNEL);
    of(request, named).ok_or_else(unknown)
}

/// What a request keeps: the channel that it was found to be for, redirects included.
#[derive(Default)]
pub struct Noted(RefCell<Option<Box<str>>>);

/// Notes the channel that serves the request.
pub fn note(request: &Request<'_>, channel: &Channel) {
    if let Some(context) = context::<Http>(request) {
        context.channel.0.replace(Some(channel.name.as_str().into()));
    }
}

/// What was noted.
pub fn noted(request: &Request<'_>) -> Option<String> {
    context::<Http>(request)?.channel.0.borrow().as_deref().map(str::to_owned)
}
