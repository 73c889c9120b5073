//! Calls that Lua makes: some at a time, a semaphore when all have ended, their answers one by one.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;

use super::location::Timeouts;
use super::remote::{self, Ask, Held, Unanswered};
use crate::ngx::client::{self, Answer, Call, CallError, Pending};
use crate::ngx::lua::Semaphore;
use crate::ngx::respond::Response;
use crate::proto::cluster::wire::Wanted;

/// Most jobs of a worker at a time.
const JOBS_MAX: usize = 4096;
/// Bytes of the headers of most answers.
const LINES: usize = 256;
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
        body: Bytes,
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
    /// What its last call was made of.
    pattern: Option<Rc<Pattern>>,
}

/// A call of a job, for more of the same to others.
pub struct Pattern {
    /// Its arguments,
    pub asked: Asked,
    /// and what has come of them.
    pub call: Call,
}

/// What a call is made of, but for where it goes.
#[derive(PartialEq, Eq)]
pub struct Asked {
    /// To whom, as Lua says.
    pub kind: i32,
    /// As Lua says.
    pub method: Vec<u8>,
    /// As Lua says.
    pub target: Vec<u8>,
    /// `name: value` lines.
    pub headers: Vec<u8>,
    /// As Lua says.
    pub body: Bytes,
    /// See `api_calls`.
    pub flags: u32,
    /// Milliseconds of its steps.
    pub timeouts: Timeouts,
}

/// The pattern of a job.
pub fn pattern(job: u32) -> Option<Rc<Pattern>> {
    with(job, |job| job.pattern.clone())?
}

/// Sets it.
pub fn set_pattern(job: u32, pattern: Pattern) {
    with(job, |job| job.pattern = Some(Rc::new(pattern)));
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
        let job = Job {
            semaphore,
            outcomes: Vec::new(),
            pending: Vec::new(),
            waiting: 0,
            sealed: false,
            pattern: None,
        };
        let number = jobs.last;
        jobs.open.insert(number, job);
        jobs.last = number.wrapping_add(1) & i32::MAX as u32;
        Some(number)
    })
}

/// An outcome that a job waits for. Dropped without one it has failed: who was to tell it is no more,
/// and a light thread that waits would keep a leaving worker for ever.
pub struct Owed {
    job: u32,
    index: usize,
}

impl Owed {
    /// What `place` has made room for.
    pub fn new(job: u32, index: usize) -> Owed {
        Owed { job, index }
    }

    /// Settles it.
    pub fn settle(self, outcome: Outcome) {
        settle(self.job, self.index, outcome);
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        settle(self.job, self.index, Outcome::Failed(503, "the worker leaves".into()));
    }
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
    let call = Call { wanted: Wanted::Lines, ..call };
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
            headers: match answer.lines {
                all if !all.is_empty() => all,
                _ => lines(
                    answer.headers.iter().map(|(name, value)| (name.as_ref(), value.as_bytes())),
                ),
            },
            body: answer.body,
        },
        Err(error) => Outcome::Failed(error.status(), error.to_string()),
    }
}

impl From<Response> for Outcome {
    fn from(response: Response) -> Outcome {
        let all = response.headers.iter().map(|(name, value)| (&name[..], &value[..]));
        Outcome::Answer { status: response.status, headers: lines(all), body: response.body }
    }
}

fn lines<'h>(headers: impl Iterator<Item = (&'h [u8], &'h [u8])>) -> Vec<u8> {
    let mut lines = Vec::with_capacity(LINES);
    for (name, value) in headers {
        for part in [name, b": ", value, b"\n"] {
            lines.extend_from_slice(part);
        }
    }
    lines
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
