//! Refusals: a status and a reason for who asked, a line for who runs the node, a number for who
//! watches it.

use crate::modules::metrics::{self, Counted, Refused};
use crate::modules::say;
use crate::ngx::log::Level;
use crate::ngx::request::Request;
use crate::ngx::respond::Response;

/// What is refused, by the word that the log has for it; a built-in action's is its name.
fn what(kind: &str) -> Refused {
    match kind {
        "unknown channel" => Refused::Channel,
        "unknown action" => Refused::Action,
        "signed call" => Refused::Signed,
        "hub" => Refused::Hub,
        "cast" => Refused::Cast,
        "function" => Refused::Function,
        "membership" => Refused::Membership,
        _ => Refused::BuiltIn,
    }
}

/// The answer, and the line at warn.
pub fn refused(request: &Request<'_>, kind: &'static str, status: u16, why: &str) -> Response {
    refused_at(request, Level::Warn, kind, status, why)
}

/// The same with a line at another level.
pub fn refused_at(
    request: &Request<'_>,
    level: Level,
    kind: &'static str,
    status: u16,
    why: &str,
) -> Response {
    metrics::count(Counted::Refused(what(kind)));
    say::say_at(request, level, kind, &format!("{status}, {why}"));
    Response::text(status, why)
}

/// The same where no request is at hand.
pub fn refused_unasked(kind: &'static str, status: u16, why: &str) -> Response {
    metrics::count(Counted::Refused(what(kind)));
    say::say(Level::Warn, kind, &format!("{status}, {why}"));
    Response::text(status, why)
}
