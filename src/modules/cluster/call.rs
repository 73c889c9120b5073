//! One call to a worker or a node: what is taken from the request that asks for it.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::rc::Rc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::workers::Listener;
use super::{location, workers};
use crate::ngx::client::{Answer, Call, Endpoint, Timeouts};
use crate::ngx::request::Request;
use crate::ngx::respond::Response;
use crate::proto::cluster::headers::{self, Road, Unsendable};
use crate::proto::cluster::wire::Wanted;
use crate::proto::ipc::WorkerId;

/// Longest body of an answer, in bytes.
pub const ANSWER_MAX: usize = 16 << 20;

/// What calls of one request have in common.
#[derive(Clone)]
pub struct Draft {
    /// As the client's.
    pub method: Method,
    /// Those that go on.
    pub headers: Rc<HeaderMap>,
    /// The client's.
    pub body: Bytes,
    /// Of the location or the channel.
    pub timeouts: location::Timeouts,
}

impl Draft {
    /// From `request`, for calls that go by `road`.
    pub fn of(
        request: &Request<'_>,
        road: Road,
        body: Vec<u8>,
        timeouts: location::Timeouts,
    ) -> Result<Draft, Unsendable> {
        headers::check_method(request.method())?;
        let method = Method::from_bytes(request.method()).map_err(|_| Unsendable::Method)?;
        let all: Vec<_> = request.headers().collect();
        let mut map = HeaderMap::new();
        for (name, value) in headers::request(all.iter().copied(), road)? {
            let name = HeaderName::from_bytes(name).map_err(|_| Unsendable::Name)?;
            map.append(name, HeaderValue::from_bytes(value).map_err(|_| Unsendable::Value)?);
        }
        Ok(Draft { method, headers: Rc::new(map), body: Bytes::from(body), timeouts })
    }

    /// The call itself.
    pub fn to(&self, place: Place, target: &[u8]) -> Result<Call, Unsendable> {
        Ok(self.at(place, targeted(target)?))
    }

    /// The same where several are called for one target.
    pub fn at(&self, place: Place, target: Rc<str>) -> Call {
        let time = |milliseconds: usize| milliseconds as u64;
        Call {
            endpoint: place.endpoint,
            own: place.own,
            host: place.host,
            method: self.method.clone(),
            target,
            headers: Rc::clone(&self.headers),
            body: self.body.clone(),
            timeouts: Timeouts {
                connect: time(self.timeouts.connect),
                send: time(self.timeouts.send),
                read: time(self.timeouts.read),
            },
            max_body: ANSWER_MAX,
            wanted: Wanted::Map,
        }
    }

    /// Sets a header.
    pub fn put(&mut self, name: &'static str, value: HeaderValue) {
        Rc::make_mut(&mut self.headers).insert(name, value);
    }
}

/// Path and query as they are sent.
pub fn targeted(target: &[u8]) -> Result<Rc<str>, Unsendable> {
    let target = headers::target(target)?;
    Ok(Rc::from(std::str::from_utf8(&target).map_err(|_| Unsendable::Target)?))
}

/// Where a call goes.
#[derive(Clone)]
pub struct Place {
    endpoint: Endpoint,
    /// This worker listens there, and nobody else.
    own: bool,
    host: Rc<str>,
}

/// An address and its name.
type Host = (SocketAddr, Rc<str>);

thread_local! {
    /// The names of this node's workers, by number: they are written once.
    static HOSTS: RefCell<Vec<Option<Host>>> = RefCell::default();
}

impl Place {
    /// The first `listen ... per_worker` of worker `id`; None where there is none.
    pub fn of_worker(id: WorkerId) -> Option<Place> {
        let own = workers::is_own(id);
        let address = match workers::listener(id)? {
            Listener::Inet(address) => address,
            listener => return Some(Place { own, ..listener.into() }),
        };
        let host = HOSTS.with_borrow_mut(|hosts| {
            let number = usize::from(id.0);
            if hosts.len() <= number {
                hosts.resize(number + 1, None);
            }
            let known = hosts.get_mut(number)?;
            // a single process can be given another address
            match known {
                Some((at, host)) if *at == address => Some(Rc::clone(host)),
                _ => {
                    let host = Rc::from(address.to_string());
                    Some(Rc::clone(&known.insert((address, host)).1))
                }
            }
        });
        Some(Place { endpoint: Endpoint::Inet(address), own, host: host? })
    }
}

impl Place {
    /// The same as `call`, here.
    pub fn called(self, call: &Call) -> Call {
        Call { endpoint: self.endpoint, own: self.own, host: self.host, ..call.clone() }
    }
}

impl From<Listener> for Place {
    fn from(listener: Listener) -> Place {
        match listener {
            Listener::Inet(address) => address.into(),
            Listener::Unix(path) => Place {
                endpoint: Endpoint::Unix(PathBuf::from(std::ffi::OsString::from_vec(path))),
                own: false,
                host: "localhost".into(),
            },
        }
    }
}

impl From<SocketAddr> for Place {
    fn from(address: SocketAddr) -> Place {
        Place { endpoint: Endpoint::Inet(address), own: false, host: address.to_string().into() }
    }
}

/// An answer as the response to the request that asked for it.
pub fn response(answer: Answer) -> Response {
    let all: Vec<(&[u8], &[u8])> = answer
        .headers
        .iter()
        .map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()))
        .collect();
    let length = all.iter().find(|(name, _)| name.eq_ignore_ascii_case(b"content-length"));
    let status = answer.status.as_u16();
    match headers::answer(all.iter().copied()) {
        Ok(kept) => {
            // for HEAD, where it does not frame anything
            let kept = kept.into_iter().chain(length.copied());
            let headers = kept.map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
            Response { status, headers, body: answer.body }
        }
        Err(why) => Response::text(502, &format!("the answer cannot go on: {why}")),
    }
}

/// Whether asking twice does no more than asking once.
pub fn is_idempotent(method: &Method) -> bool {
    method.is_idempotent()
}
