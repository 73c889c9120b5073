//! Signed calls of other nodes: checked by the worker that they reach, sent on to the worker that
//! they are for, and their answers signed. In between they are requests like others, whoever serves
//! them.

use crate::modules::http::Http;
use crate::ngx::content::Outcome;
use crate::ngx::request::Request;
use crate::ngx::respond::Response;
use crate::proto::cluster::check::{Incoming, Me, Proof, check};
use crate::proto::cluster::sign::{self, Receipt};
use crate::proto::cluster::window::Stamp;

use super::channel::Channel;
use super::hub::{Asker, Way, Whom};
use super::location::{Location, Timeouts};
use super::proof::{Caller, Hop, Origin};
use super::{node, proof, refuse, remote, settings};

/// Whether the request is signed and was not yet checked by a worker of this node.
pub fn is(request: &Request<'_>) -> bool {
    request.header(sign::AUTH).is_some() && matches!(Hop::of(request), Some(None))
}

/// Serves it; a hub's is for the router, others are for this worker.
pub fn serve(request: &Request<'_>, location: &Location, channel: &Channel, whom: Whom) -> Outcome {
    let (channel, timeouts) = (channel.clone(), channel.timeouts(location));
    request.read_body::<Http>(move |parked, body| {
        let wait = parked.wait();
        let checked = wait.with(|request| checked(request, &channel, body, timeouts));
        match checked {
            None => {}
            Some((Err(response), receipt)) => parked.respond(signed(response, receipt.as_ref())),
            Some((Ok(way), receipt)) => {
                way.go(
                    Asker::Signed(
                        parked,
                        Box::new(move |response| signed(response, receipt.as_ref())),
                    ),
                    whom,
                );
            }
        }
    })
}

type Checked = (Result<Way, Response>, Option<Receipt>);

fn checked(request: &Request<'_>, channel: &Channel, body: Vec<u8>, timeouts: Timeouts) -> Checked {
    let refused = |status, why: &str| refuse::refused(request, "signed call", status, why);
    let Some(settings) = settings() else { return (Err(refused(503, "no configuration")), None) };
    let own = node();
    let me = Me { cluster: settings.cluster(), node: &own, secrets: settings.secrets() };
    let target = request.target();
    let incoming = Incoming {
        auth: request.header(sign::AUTH),
        cast: request.header("CC-Cast"),
        local: false,
        method: request.method(),
        channel: channel.name.as_bytes(),
        target: &target,
        content_type: request.header("Content-Type").unwrap_or_default(),
        body: &body,
    };
    let admit = |sender: &str, stamp: Stamp| {
        let mut fresh = [0; 16];
        getrandom::fill(&mut fresh).ok()?;
        proof::peers()?.admit(sender.as_bytes(), stamp, remote::now(), fresh).ok()
    };
    match check(me, incoming, admit) {
        Proof::Refused(why) => (Err(refused(why.status(), &why.to_string())), None),
        Proof::Challenged { nonce, receipt } => {
            let mut response = Response::text(401, "sign this in");
            let nonce = sign::challenge(&nonce).into_bytes();
            response.headers.push((sign::CHALLENGE.into(), nonce));
            (Err(response), Some(receipt))
        }
        Proof::Signed { sender, receipt, .. } => {
            let ip = proof::caller(request).ip;
            let caller = Caller { origin: Origin::Node(sender.into()), ip };
            (Way::from(request, caller, body, timeouts), Some(receipt))
        }
        Proof::Local { .. } | Proof::Anybody => (Err(refused(403, "not signed")), None),
    }
}

fn signed(mut response: Response, receipt: Option<&Receipt>) -> Response {
    let secrets = settings().and_then(|settings| settings.secrets());
    if let Some((secrets, receipt)) = secrets.zip(receipt)
        && let Some(header) = receipt.sign(secrets, response.status, &response.body)
    {
        response.headers.push((sign::AUTH.into(), header.into_bytes()));
    }
    response
}
