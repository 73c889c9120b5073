//! `cc_invoke`: an action in the worker that was reached.

use super::channel::{self, Channel};
use super::hub::Whom;
use super::location::{Location, Serves};
use super::{builtin, function, refuse, signed};
use crate::modules::http::Http;
use crate::modules::say;
use crate::ngx::content::{ContentHandler, Outcome};
use crate::ngx::log::Level;
use crate::ngx::request::Request;
use crate::ngx::value::Value;
use crate::proto::cluster::action;
use crate::proto::cluster::builtin::BuiltIn;
use crate::proto::cluster::query;

/// The content handler.
pub struct Invoke;

impl ContentHandler for Invoke {
    fn handle(request: &Request<'_>) -> Outcome {
        served(request, |request, location, serves, channel| match signed::is(request) {
            true => signed::serve(request, location, channel, Whom::Me),
            false => run(request, location, serves, channel),
        })
    }
}

/// Finds the location and the channel, and goes on with `then`.
pub fn served(
    request: &Request<'_>,
    then: fn(&Request<'_>, &Location, &Serves, &Channel) -> Outcome,
) -> Outcome {
    let location = request.location::<Http>().map(|conf| &conf.cluster);
    let Some((location, serves)) = location.and_then(|conf| Some((conf, conf.serves.as_ref()?)))
    else {
        return request.refuse(500);
    };
    match channel::found(request, serves.channel.as_ref()) {
        Ok(channel) => {
            channel::note(request, &channel);
            then(request, location, serves, &channel)
        }
        Err(response) => request.respond(response),
    }
}

/// Runs the action here.
pub fn run(
    request: &Request<'_>,
    location: &Location,
    serves: &Serves,
    channel: &Channel,
) -> Outcome {
    if let Some(action) = function::named(channel, Some(location), request.query()) {
        return function::serve(request, channel, channel.timeouts(location), action);
    }
    // Lua looks for its own actions, and for ours
    if let Some(handler) = serves.lua.filter(|_| channel.lua) {
        return request.hand_over(handler);
    }
    let known = |name: &[u8]| BuiltIn::named(name).is_some() || location.action(name).is_some();
    let Some(found) = action::first(request.query(), known) else {
        let reason = action::unknown(request.query());
        let level = Level::Info;
        return request.respond(refuse::refused_at(request, level, "unknown action", 404, &reason));
    };
    match (BuiltIn::named(&found.name), location.action(&found.name)) {
        (Some(action), _) => builtin::serve(request, location, channel, action),
        (None, Some(uri)) => by_uri(request, uri),
        (None, None) => request.refuse(404),
    }
}

/// nginx's own handlers at `uri`.
fn by_uri(request: &Request<'_>, uri: &Value) -> Outcome {
    match target_of(request, uri) {
        Some((path, args)) => request.redirect(&path, &args),
        None => request.refuse(500),
    }
}

/// The path and the arguments that `uri` means for the request, whose own arguments follow. None
/// where that is no URI.
pub fn target_of(request: &Request<'_>, uri: &Value) -> Option<(Vec<u8>, Vec<u8>)> {
    let uri = uri.of_request(request)?;
    if !matches!(uri, [b'/' | b'@', ..]) {
        let uri = action::shown(uri);
        let why = format!("invalid URI \"{uri}\"");
        say::say_at(request, Level::Err, "cc_action", &why);
        return None;
    }
    let (path, first) = query::split(uri);
    let args = [first, request.query()];
    let args: Vec<&[u8]> = args.into_iter().filter(|args| !args.is_empty()).collect();
    Some((path.to_vec(), args.join(&b"&"[..])))
}
