//! A connection with the call that runs on it: hyper's client over a [`Link`], moved on whenever
//! nginx reports something. No task, no queue: what hyper wakes is always the connection that is being
//! moved on, so a flag is waker enough.

use std::future::Future;
use std::pin::{Pin, pin};
use std::ptr;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Waker};

use hyper::client::conn::http1::{Builder, Connection, SendRequest};

use super::exchange::{self, Fault, Payload};
use super::link::{Link, Stream};
use super::{Answer, Call, CallError, Done, Endpoint, Stage};

/// The longest head of an answer, and the most that is read at once.
const MAX_HEAD: usize = 64 * 1024;

/// A call on its way, with the function that takes its answer.
pub(super) struct Job {
    pub(super) serial: u64,
    pub(super) call: Call,
    pub(super) done: Done,
}

struct Running {
    job: Box<Job>,
    answer: Pin<Box<dyn Future<Output = Result<Answer, Fault>>>>,
}

/// What became of a call.
pub(super) enum Outcome {
    /// Its answer, or why there is none.
    Over(Box<Job>, Result<Answer, CallError>),
    /// The peer had closed the kept-alive connection: it goes to a fresh one.
    Again(Box<Job>),
}

/// One connection.
pub(super) struct Peer {
    pub(super) endpoint: Endpoint,
    link: Rc<Link>,
    sender: SendRequest<Payload>,
    connection: Connection<Stream, Payload>,
    over: bool,
    /// It has served a call before the running one.
    used: bool,
    running: Option<Running>,
    deadline: usize,
}

/// Whether hyper wants to be asked once more: whatever it wakes is the connection being moved on.
static WOKEN: AtomicBool = AtomicBool::new(false);

// SAFETY: there is nothing behind the pointer, and an atomic flag may be set from anywhere.
static WAKER: Waker = unsafe { Waker::from_raw(RAW) };

const RAW: RawWaker = RawWaker::new(ptr::null(), &RawWakerVTable::new(|_| RAW, wake, wake, |_| ()));

fn wake(_: *const ()) {
    WOKEN.store(true, Ordering::Relaxed);
}

impl Peer {
    /// A connection over `link`; `number` is what the event handlers find.
    pub(super) fn new(
        endpoint: Endpoint,
        link: Rc<Link>,
        number: usize,
    ) -> Result<Peer, CallError> {
        link.set_number(number);
        let mut builder = Builder::new();
        builder.max_buf_size(MAX_HEAD);
        let handshake = pin!(builder.handshake(Stream(link.clone())));
        // HTTP/1 shakes no hands
        match handshake.poll(&mut Context::from_waker(&WAKER)) {
            Poll::Ready(Ok((sender, connection))) => Ok(Peer {
                endpoint,
                link,
                sender,
                connection,
                over: false,
                used: false,
                running: None,
                deadline: 0,
            }),
            Poll::Ready(Err(_)) | Poll::Pending => Err(CallError::Closed),
        }
    }

    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Whether an idle connection is as it was left.
    pub(super) fn is_quiet(&self) -> bool {
        self.link.quiet() && self.link.rearm()
    }

    /// Sends the call; what it comes to is [`Peer::advance`]'s.
    pub(super) fn begin(&mut self, mut job: Box<Job>) -> Result<(), (Box<Job>, CallError)> {
        let request = match exchange::request(&mut job.call, self.used) {
            Ok(request) => request,
            Err(reason) => return Err((job, CallError::Malformed(reason))),
        };
        self.link.begin();
        self.link.set_idle(false);
        let response = self.sender.send_request(request);
        let answer = Box::pin(exchange::answer(response, job.call.max_body));
        self.running = Some(Running { job, answer });
        Ok(())
    }

    /// Moves the call on as far as it goes. None: it waits for the peer.
    pub(super) fn advance(&mut self, now: usize) -> Option<Outcome> {
        let mut running = self.running.take()?;
        let mut cx = Context::from_waker(&WAKER);
        loop {
            WOKEN.store(false, Ordering::Relaxed);
            self.turn(&mut cx);
            if let Poll::Ready(result) = running.answer.as_mut().poll(&mut cx) {
                drop(running.answer);
                let result = result.map_err(|fault| self.failed(fault));
                if result.is_err() {
                    self.over = true;
                    if self.may_try_again(&running.job.call, &result) {
                        return Some(Outcome::Again(running.job));
                    }
                } else if !self.over && !self.sender.is_ready() {
                    // hyper has yet to notice that the exchange is complete
                    self.turn(&mut cx);
                }
                return Some(Outcome::Over(running.job, result));
            }
            if !WOKEN.load(Ordering::Relaxed) {
                break;
            }
        }
        if !self.link.rearm() {
            self.over = true;
            return Some(Outcome::Over(running.job, Err(CallError::Closed)));
        }
        if self.link.moved() {
            let timeouts = running.job.call.timeouts;
            let allowed = match self.stage() {
                Stage::Connect => timeouts.connect,
                Stage::Send => timeouts.send,
                Stage::Read => timeouts.read,
            };
            self.set_deadline(now, allowed);
        }
        self.running = Some(running);
        None
    }

    fn turn(&mut self, cx: &mut Context<'_>) {
        if !self.over {
            self.over = Pin::new(&mut self.connection).poll(cx).is_ready();
        }
    }

    fn stage(&self) -> Stage {
        match (self.link.connected(), self.link.blocked()) {
            (false, _) => Stage::Connect,
            (true, true) => Stage::Send,
            (true, false) => Stage::Read,
        }
    }

    fn set_deadline(&mut self, now: usize, milliseconds: u64) {
        let milliseconds = usize::try_from(milliseconds).unwrap_or(usize::MAX).max(1);
        self.deadline = now.saturating_add(milliseconds);
        self.link.alarm(now, milliseconds);
    }

    /// The timer went off. None: not yet, and it is set again; otherwise the stage that took too long.
    pub(super) fn expired(&mut self, now: usize) -> Option<Stage> {
        if now < self.deadline {
            self.link.alarm(now, self.deadline - now);
            return None;
        }
        Some(self.stage())
    }

    /// Takes the running call off a connection that is given up.
    pub(super) fn abandon(&mut self) -> Option<Box<Job>> {
        self.over = true;
        self.running.take().map(|running| running.job)
    }

    /// Whether the connection can serve another call.
    pub(super) fn can_serve(&self) -> bool {
        !self.over && self.running.is_none() && self.sender.is_ready()
    }

    /// Nothing runs on it for now.
    pub(super) fn rest(&mut self, now: usize, idle_timeout: u64) {
        self.used = true;
        self.link.set_idle(true);
        self.set_deadline(now, idle_timeout);
    }

    fn failed(&self, fault: Fault) -> CallError {
        match fault {
            Fault::TooLarge => CallError::TooLarge,
            Fault::Malformed(reason) => CallError::Malformed(reason.into()),
            Fault::Http(error) => match self.link.refused() {
                Some(refused) => CallError::Refused(refused),
                None if error.is_parse() || error.is_user() => {
                    CallError::Malformed(error.to_string())
                }
                None => match exchange::broken_coding(&error) {
                    Some(reason) => CallError::Malformed(reason),
                    None => CallError::Closed,
                },
            },
        }
    }

    /// Only where nothing of an answer came; a method that must not be done twice only if the
    /// peer did not read the call.
    fn may_try_again(&self, call: &Call, result: &Result<Answer, CallError>) -> bool {
        self.used
            && matches!(result, Err(CallError::Closed))
            && !self.link.received()
            && (call.method.is_idempotent() || self.link.unread())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // hyper's part holds the link, too
        self.link.close();
    }
}
