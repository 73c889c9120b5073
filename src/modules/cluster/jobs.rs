//! Calls that Lua makes: some at a time, a semaphore when all have ended, their answers one by one.

use std::cell::RefCell;
use std::collections::BTreeMap;

use http::HeaderMap;

use super::remote::{self, Ask, Held, Unanswered};
use crate::ngx::client::{self, Answer, Call, CallError, Pending};
use crate::ngx::lua::Semaphore;
use crate::ngx::respond::Response;

/// Most jobs of a worker at a time.
const JOBS_MAX: usize = 4096;
/// Most calls of a job.
const CALLS_MAX: usize = 2048;

/// What came of a call.
pub enum Outcome {
    /// Nothing yet.
    Waiting,
    /// An answer.
    Answer {
        /// Its status.
        status: u16,
        /// `name: value` lines.
        headers: Vec<u8>,
        /// Its body.
        body: bytes::Bytes,
    },
    /// None, the status that stands for it, and why.
    Failed(u16, String),
}

/// A call under way; dropping it cancels.
#[allow(dead_code)]
enum Way {
    Plain(Pending),
    Signed(Held),
}

/// Calls that Lua waits for together.
struct Job {
    semaphore: Semaphore,
    outcomes: Vec<Outcome>,
    pending: Vec<Option<Way>>,
    waiting: usize,
    /// No more calls come: the semaphore is posted when none is under way.
    sealed: bool,
}

#[derive(Default)]
struct Jobs {
    last: u32,
    open: BTreeMap<u32, Job>,
}

thread_local! {
    static JOBS: RefCell<Jobs> = RefCell::default();
}

fn with<R>(number: u32, f: impl FnOnce(&mut Job) -> R) -> Option<R> {
    JOBS.with_borrow_mut(|jobs| jobs.open.get_mut(&number).map(f))
}

/// A new job, its number. None when there are too many.
pub fn begin(semaphore: Semaphore) -> Option<u32> {
    JOBS.with_borrow_mut(|jobs| {
        if jobs.open.len() >= JOBS_MAX {
            return None;
        }
        while jobs.last == 0 || jobs.open.contains_key(&jobs.last) {
            jobs.last = jobs.last.wrapping_add(1) & i32::MAX as u32;
        }
        let job =
            Job { semaphore, outcomes: Vec::new(), pending: Vec::new(), waiting: 0, sealed: false };
        let number = jobs.last;
        jobs.open.insert(number, job);
        jobs.last = number.wrapping_add(1) & i32::MAX as u32;
        Some(number)
    })
}

/// Room for one more outcome; its index. None when there are too many, or no such job.
pub fn place(job: u32) -> Option<usize> {
    with(job, |job| {
        let index = job.outcomes.len();
        (index < CALLS_MAX && !job.sealed).then(|| {
            job.outcomes.push(Outcome::Waiting);
            job.pending.push(None);
            job.waiting += 1;
            index
        })
    })?
}

/// Sends a call whose outcome goes there.
pub fn call(job: u32, index: usize, call: Call) {
    let pending = client::send(call, move |result| settle(job, index, of(result)));
    hold(job, index, Way::Plain(pending));
}

/// The same to a node of the cluster, signed where there is a secret.
pub fn ask(job: u32, index: usize, ask: Ask) {
    let held = remote::call(ask, move |result| {
        settle(
            job,
            index,
            match result {
                Ok(answer) => of(Ok(answer)),
                Err(Unanswered::Call(error)) => of(Err(error)),
                Err(why @ Unanswered::Late) => Outcome::Failed(504, why.to_string()),
                Err(why) => Outcome::Failed(502, why.to_string()),
            },
        );
    });
    hold(job, index, Way::Signed(held));
}

/// Ends with the job.
fn hold(job: u32, index: usize, pending: Way) {
    let mut pending = Some(pending);
    with(job, |job| {
        if let Some(place) = job.pending.get_mut(index) {
            *place = pending.take();
        }
    });
}

fn of(result: Result<Answer, CallError>) -> Outcome {
    match result {
        Ok(answer) => Outcome::Answer {
            status: answer.status.as_u16(),
            headers: lines(&answer.headers),
            body: answer.body,
        },
        Err(error) => Outcome::Failed(error.status(), error.to_string()),
    }
}

impl From<Response> for Outcome {
    fn from(response: Response) -> Outcome {
        let line = |(name, value): &(Vec<u8>, Vec<u8>)| [name, &b": "[..], value, b"\n"].concat();
        Outcome::Answer {
            status: response.status,
            headers: response.headers.iter().flat_map(line).collect(),
            body: response.body,
        }
    }
}

fn lines(headers: &HeaderMap) -> Vec<u8> {
    let line = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\n"].concat()
    };
    headers.iter().flat_map(line).collect()
}

/// One outcome is there. Wakes Lua when it was the last.
pub fn settle(job: u32, index: usize, outcome: Outcome) {
    let ended = with(job, |job| {
        let place = job.outcomes.get_mut(index)?;
        if !matches!(place, Outcome::Waiting) {
            return None;
        }
        *place = outcome;
        job.waiting -= 1;
        if job.waiting == 0 && job.sealed {
            job.semaphore.post();
        }
        job.pending.get_mut(index)?.take()
    });
    // outside of the borrow: it tells the client
    drop(ended);
}

/// No more calls come: how many are under way. 0: the semaphore will not be posted.
pub fn seal(job: u32) -> Option<usize> {
    with(job, |job| {
        job.sealed = true;
        job.waiting
    })
}

/// Looks at an outcome.
pub fn outcome<R>(job: u32, index: usize, look: impl FnOnce(&Outcome) -> R) -> Option<R> {
    with(job, |job| job.outcomes.get(index).map(look))?
}

/// Forgets a job; what is under way is cancelled, and its semaphore is not posted any more.
pub fn end(job: u32) {
    let job = JOBS.with_borrow_mut(|jobs| jobs.open.remove(&job));
    drop(job);
}

/// Forgets all.
pub fn clear() {
    let jobs = JOBS.take();
    drop(jobs);
}
