//! `$cc_generation`, `$cc_channel`, `$cc_router`, `$cc_node`.

use super::{channel, node, workers};
use crate::modules::http::Http;
use crate::modules::ipc::worker;
use crate::ngx::conf::{Conf, ConfResult};
use crate::ngx::request::Request;
use crate::ngx::variable::{self, Variable};

/// Adds them.
pub fn add(cf: &mut Conf<'_>) -> ConfResult {
    variable::add::<Generation>(cf)?;
    variable::add::<Channel>(cf)?;
    variable::add::<Router>(cf)?;
    variable::add::<Node>(cf)
}

/// The count of configuration loads.
pub struct Generation;

impl Variable for Generation {
    const NAME: &'static str = "cc_generation";

    fn get(_: &Request<'_>) -> Option<String> {
        worker::with(|worker| worker.me().seat.generation.0.to_string())
    }
}

/// The channel that the request is for, where there is such a channel.
pub struct Channel;

impl Variable for Channel {
    const NAME: &'static str = "cc_channel";

    fn get(request: &Request<'_>) -> Option<String> {
        if let Some(name) = channel::noted(request) {
            return Some(name);
        }
        let serves = request.location::<Http>().and_then(|conf| conf.cluster.serves.as_ref());
        let name = serves.and_then(|serves| serves.channel.as_ref());
        channel::of(request, name).map(|channel| channel.name)
    }
}

/// The router's worker id.
pub struct Router;

impl Variable for Router {
    const NAME: &'static str = "cc_router";

    fn get(_: &Request<'_>) -> Option<String> {
        workers::router().map(|router| router.seat.worker.0.to_string())
    }
}

/// The address under which other nodes reach this one's hub.
pub struct Node;

impl Variable for Node {
    const NAME: &'static str = "cc_node";

    fn get(_: &Request<'_>) -> Option<String> {
        Some(node())
    }
}
