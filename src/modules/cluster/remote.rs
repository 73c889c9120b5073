//! A call to another node: signed where there is a secret, repeated with what the other node wants
//! signed in, its answer checked. One time for all of it.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::{Rc, Weak};

use http::HeaderValue;

use super::call::Draft;
use super::{node, settings};
use crate::modules::core::Core;
use crate::modules::metrics::{self, Counted, Failed, Since, Timed};
use crate::ngx::client::{self, Answer, CallError, Pending};
use crate::ngx::cycle;
use crate::ngx::module::core_conf;
use crate::ngx::timer::Timer;
use crate::proto::cluster::gather::Failure;
use crate::proto::cluster::sign::{self, Receipt, TRIES};
use crate::proto::cluster::window::Nonce;

/// What is asked of whom.
pub struct Ask {
    /// The channel's name.
    pub channel: String,
    /// The node's address, its name, too.
    pub to: SocketAddr,
    /// Method, headers, body.
    pub draft: Draft,
    /// Path and query.
    pub target: Vec<u8>,
    /// Milliseconds until it has failed.
    pub time: usize,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    /// As the client says.
    #[error("{0}")]
    Call(CallError),
    /// The time is over.
    #[error("timed out")]
    Late,
    /// It could not be signed.
    #[error("the call cannot be signed: {0}")]
    Unsigned(String),
    /// Something in it cannot be sent.
    #[error("{0}")]
    Unsendable(String),
    /// Somebody answered who does not have the secret.
    #[error("the answer is not signed by the node")]
    Untrusted,
}

impl From<Unanswered> for Failure {
    fn from(why: Unanswered) -> Failure {
        match why {
            Unanswered::Late | Unanswered::Call(CallError::TimedOut(_)) => Failure::TimedOut,
            Unanswered::Call(CallError::TooLarge | CallError::Malformed(_)) => {
                Failure::Wrong("no answer that can be read".into())
            }
            Unanswered::Call(error) => Failure::Unreachable(error.to_string()),
            other => Failure::Wrong(other.to_string()),
        }
    }
}

type Done = Box<dyn FnOnce(Result<Answer, Unanswered>)>;

struct State {
    ask: Ask,
    done: Cell<Option<Done>>,
    pending: RefCell<Option<Pending>>,
    timer: RefCell<Option<Timer>>,
    tries: Cell<u32>,
    began: Since,
}

/// A call under way; dropping it cancels.
#[must_use = "dropping it cancels the call"]
pub struct Held(#[allow(dead_code)] Rc<State>);

/// Calls. `done` gets the answer, never from within this function.
pub fn call(ask: Ask, done: impl FnOnce(Result<Answer, Unanswered>) + 'static) -> Held {
    let time = ask.time;
    let state = Rc::new(State {
        ask,
        done: Cell::new(Some(Box::new(done))),
        pending: RefCell::default(),
        timer: RefCell::default(),
        tries: Cell::new(0),
        began: Since::now(),
    });
    let result = send(&state, None);
    let late = Rc::downgrade(&state);
    // what could not be sent is told from the event loop, too
    let (time, why) = match result {
        Ok(()) => (time, Unanswered::Late),
        Err(why) => (0, why),
    };
    state.timer.replace(Some(Timer::after(time, move || end(&late, Err(why)))));
    Held(state)
}

fn end(state: &Weak<State>, result: Result<Answer, Unanswered>) {
    let Some(state) = state.upgrade() else { return };
    if let Some(done) = state.done.take() {
        match &result {
            Ok(_) => state.began.observe(Timed::Rpc),
            Err(why) => metrics::count(Counted::Call(failed(why))),
        }
        let pending = state.pending.take();
        done(result);
        drop(pending);
    }
}

fn failed(why: &Unanswered) -> Failed {
    match why {
        Unanswered::Late | Unanswered::Call(CallError::TimedOut(_)) => Failed::TimedOut,
        Unanswered::Call(CallError::TooLarge | CallError::Malformed(_)) => Failed::Other,
        Unanswered::Call(_) => Failed::Unreachable,
        Unanswered::Untrusted => Failed::Untrusted,
        Unanswered::Unsigned(_) | Unanswered::Unsendable(_) => Failed::Other,
    }
}

fn send(state: &Rc<State>, nonce: Option<Nonce>) -> Result<(), Unanswered> {
    state.tries.set(state.tries.get() + 1);
    let Ask { channel, to, draft, target, .. } = &state.ask;
    let call = draft.to((*to).into(), target);
    let mut call = call.map_err(|why| Unanswered::Unsendable(why.to_string()))?;
    let mut receipt = None;
    if let Some(secrets) = settings().and_then(|settings| settings.secrets()) {
        let unsigned = |why: String| Unanswered::Unsigned(why);
        let receiver = to.to_string();
        let peers = cycle::current().and_then(core_conf::<Core>).and_then(|conf| conf.ipc.peers());
        let peers = peers.ok_or_else(|| unsigned("no table of peers".into()))?;
        let stamp = peers.next(receiver.as_bytes(), nonce, now());
        let stamp = stamp.map_err(|why| unsigned(why.to_string()))?;
        let header = |name: &str| call.headers.get(name).map_or(&b""[..], HeaderValue::as_bytes);
        let signed = sign::Call {
            cluster: settings().map_or("", |settings| settings.cluster()),
            sender: &node(),
            receiver: &receiver,
            method: call.method.as_str().as_bytes(),
            channel: channel.as_bytes(),
            target: call.target.as_bytes(),
            content_type: header("Content-Type"),
            cast: header("CC-Cast"),
            body: &call.body,
        }
        .sign(secrets, stamp);
        let (value, expected) = signed.map_err(|why| unsigned(why.to_string()))?;
        let value = HeaderValue::from_str(&value).map_err(|why| unsigned(why.to_string()))?;
        Rc::make_mut(&mut call.headers).insert(sign::AUTH, value);
        receipt = Some(expected);
    }
    let weak = Rc::downgrade(state);
    let pending = client::send(call, move |result| got(&weak, receipt, result));
    state.pending.replace(Some(pending));
    Ok(())
}

fn got(weak: &Weak<State>, receipt: Option<Receipt>, result: Result<Answer, CallError>) {
    let Some(state) = weak.upgrade() else { return };
    let answer = match result {
        Ok(answer) => answer,
        Err(error) => return end(weak, Err(Unanswered::Call(error))),
    };
    let header = |name: &str| answer.headers.get(name).map(HeaderValue::as_bytes);
    if let (Some(receipt), Some(secrets)) =
        (receipt, settings().and_then(|settings| settings.secrets()))
    {
        let auth = header(sign::AUTH).unwrap_or_default();
        let status = answer.status.as_u16();
        if !receipt.verifies(secrets, auth, status, &answer.body) {
            return end(weak, Err(Unanswered::Untrusted));
        }
        let nonce = header(sign::CHALLENGE).filter(|_| status == 401).and_then(sign::challenged);
        if let Some(nonce) = nonce.filter(|_| state.tries.get() < TRIES) {
            return match send(&state, Some(nonce)) {
                Ok(()) => {}
                Err(why) => end(weak, Err(why)),
            };
        }
    }
    end(weak, Ok(answer));
}

/// Milliseconds that go one way, the same in all processes of this machine.
pub fn now() -> u64 {
    cycle::nanoseconds() / 1_000_000
}
