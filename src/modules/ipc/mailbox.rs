//! What has arrived for this worker: records in its rings and on its line, and notes to itself.
//! Hands out one message at a time, up to a budget per turn of the event loop.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::rings::Reader;
use super::sending::Letter;
use crate::ngx::socket;
use crate::proto::ipc::assemble::{Assembled, Assembler, Message};
use crate::proto::ipc::frame::{Kind, RECORD};
use crate::proto::ipc::outbox::Refused;
use crate::proto::ipc::{Pid, Seat};
use crate::shm::slots::Counter;

/// Messages that a receiver takes in one turn of the event loop, so that a flood starves nobody.
const BUDGET: usize = 256;
/// Bytes that it takes in one turn.
const BUDGET_BYTES: usize = 256 << 10;

/// A message taken out of the mailbox; its bytes stay in place until the next is taken.
#[derive(Clone, Copy)]
pub struct Taken {
    /// A message, a call, or an answer to one.
    pub kind: Kind,
    /// The number of the call, for all but messages.
    pub call: u32,
    /// The process that sent it.
    pub sender: Pid,
    /// The sender's seat.
    pub seat: Seat,
    /// Address and length of the name.
    pub name: (*const u8, usize),
    /// Address and length of the data.
    pub data: (*const u8, usize),
    /// Whether this worker sent it to itself.
    pub note: bool,
}

impl Taken {
    fn of(message: &Message<'_>, note: bool) -> Taken {
        Taken {
            kind: message.kind,
            call: message.call,
            sender: message.sender,
            seat: message.seat,
            name: (message.name.as_ptr(), message.name.len()),
            data: (message.data.as_ptr(), message.data.len()),
            note,
        }
    }
}

/// What came out of the mailbox.
pub enum Next {
    /// A message for a handler.
    Mail(Taken),
    /// A worker of another generation, and the send end of its line.
    Hello(Seat, OwnedFd),
    /// A message that no handler may see, and what to count it as.
    Dropped(Counter),
    /// The budget of this turn is used up.
    Later,
    /// Nothing is there.
    Empty,
}

/// A message to oneself.
struct Note {
    kind: Kind,
    call: u32,
    name: Box<[u8]>,
    data: Box<[u8]>,
}

impl Note {
    fn size(&self) -> usize {
        self.name.len() + self.data.len() + size_of::<Note>()
    }
}

/// The mailbox of one worker.
pub struct Mailbox {
    me: (Pid, Seat),
    rings: Option<Reader>,
    line: OwnedFd,
    line_ready: bool,
    record: Box<[u8]>,
    assembler: Assembler,
    notes: VecDeque<Note>,
    note_bytes: usize,
    /// The note that was handed out last.
    note: Option<Note>,
    notes_next: bool,
    budget: (usize, usize),
}

impl Mailbox {
    /// Of the process `pid` in `seat`, whose mail comes by `rings` and on `line`; messages of at
    /// most `max` bytes.
    pub fn new(pid: Pid, seat: Seat, line: OwnedFd, rings: Option<Reader>, max: usize) -> Mailbox {
        Mailbox {
            me: (pid, seat),
            rings,
            line,
            line_ready: true,
            record: vec![0; RECORD].into(),
            assembler: Assembler::new(max),
            notes: VecDeque::new(),
            note_bytes: 0,
            note: None,
            notes_next: false,
            budget: (BUDGET, BUDGET_BYTES),
        }
    }

    /// The end to watch.
    pub fn line(&self) -> BorrowedFd<'_> {
        self.line.as_fd()
    }

    /// Something can be read from the line.
    pub fn line_is_ready(&mut self) {
        self.line_ready = true;
    }

    /// A new turn of the event loop has begun.
    pub fn new_turn(&mut self) {
        self.budget = (BUDGET, BUDGET_BYTES);
    }

    /// Notes that wait, and their bytes.
    pub fn notes(&self) -> (usize, usize) {
        (self.notes.len(), self.note_bytes)
    }

    /// A message to oneself is queued like any other, up to `limit` bytes.
    pub fn note(&mut self, letter: Letter<'_>, limit: usize) -> Result<(), Refused> {
        let Letter { kind, call, name, data } = letter;
        let note = Note { kind, call, name: name.into(), data: data.into() };
        if self.note_bytes + note.size() > limit {
            return Err(Refused::Full);
        }
        self.note_bytes += note.size();
        self.notes.push_back(note);
        Ok(())
    }

    /// Takes what comes next; the bytes of the message before are gone.
    #[inline]
    pub fn take(&mut self) -> Next {
        self.assembler.release();
        self.note = None;
        if self.budget.0 == 0 || self.budget.1 == 0 {
            return Next::Later;
        }
        // by turns, so that neither a flood from outside nor one from within holds the other up
        self.notes_next = !self.notes_next;
        let next = match self.notes_next.then(|| self.take_note()).flatten() {
            Some(note) => Next::Mail(note),
            None => self.take_record(),
        };
        let next = match next {
            Next::Empty => self.take_note().map_or(Next::Empty, Next::Mail),
            next => next,
        };
        if let Next::Mail(taken) = &next {
            self.budget.0 -= 1;
            self.budget.1 = self.budget.1.saturating_sub(taken.data.1);
        }
        next
    }

    fn take_note(&mut self) -> Option<Taken> {
        let note = self.note.insert(self.notes.pop_front()?);
        self.note_bytes -= note.size();
        let Note { kind, call, name, data } = note;
        let (sender, seat) = self.me;
        Some(Taken::of(&Message { kind: *kind, call: *call, sender, seat, name, data }, true))
    }

    fn take_record(&mut self) -> Next {
        if let Some(rings) = &mut self.rings {
            while rings.ready() {
                let record = rings.record().unwrap_or_default();
                if let Some(next) = handed_on(self.assembler.accept(record, self.me.0), None) {
                    return next;
                }
            }
        }
        while self.line_ready {
            // no error but EAGAIN can come, or the end after a hang-up: this process holds the
            // other end, too
            let Ok((length, passed)) = socket::receive(self.line.as_fd(), &mut self.record) else {
                self.line_ready = false;
                break;
            };
            let record = self.record.get(..length).unwrap_or_default();
            if let Some(next) = handed_on(self.assembler.accept(record, self.me.0), passed) {
                return next;
            }
        }
        Next::Empty
    }

    /// Whether a message is half received.
    #[inline]
    pub fn is_assembling(&self) -> bool {
        self.assembler.is_busy()
    }

    /// Forgets half-received messages of dead senders.
    pub fn forget(&mut self, alive: impl Fn(Pid) -> bool) {
        self.assembler.retain(alive);
    }
}

/// What a record led to, where that concerns anybody.
#[inline]
fn handed_on(assembled: Assembled<'_>, passed: Option<OwnedFd>) -> Option<Next> {
    match (assembled, passed) {
        (Assembled::Whole(message), _) => Some(Next::Mail(Taken::of(&message, false))),
        (Assembled::Hello(seat), Some(send)) => Some(Next::Hello(seat, send)),
        (Assembled::More | Assembled::Hello(_), _) => None,
        (Assembled::Stranger, _) => Some(Next::Dropped(Counter::Stranger)),
        (Assembled::Broken(_) | Assembled::Orphan | Assembled::TooLong, _) => {
            Some(Next::Dropped(Counter::Lost))
        }
    }
}
