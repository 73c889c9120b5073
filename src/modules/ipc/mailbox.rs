//! What has arrived for this worker: records in its rings and on its line, and notes to itself.
//! Hands out one message at a time, up to a budget per turn of the event loop. What is native goes
//! to `native` at once; what Lua cannot take yet can be put aside, so that it stops nobody.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::native;
use super::rings::Reader;
use super::sending::Letter;
use crate::ngx::lua::Bytes;
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
    /// The number of the call; of a message its stamp, where it has one.
    pub call: u32,
    /// The process that sent it.
    pub sender: Pid,
    /// The sender's seat.
    pub seat: Seat,
    /// The name.
    pub name: Bytes,
    /// The data.
    pub data: Bytes,
    /// Whence it was taken.
    pub place: Place,
}

/// Whence a message is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A ring or the line.
    Wire,
    /// A note of this worker to itself.
    Note,
    /// What was put aside.
    Aside,
}

impl Taken {
    fn of(message: &Message<'_>, place: Place) -> Taken {
        Taken {
            kind: message.kind,
            call: message.call,
            sender: message.sender,
            seat: message.seat,
            name: Bytes::of(message.name),
            data: Bytes::of(message.data),
            place,
        }
    }
}

/// What came out of the mailbox.
pub enum Next {
    /// A message for a handler.
    Mail(Taken),
    /// A message was put aside.
    Aside(Place),
    /// A native message, which is taken care of, of so many bytes; and what to count it as besides.
    Native(usize, Option<Counter>),
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
pub struct Note {
    /// See [`Taken`].
    pub kind: Kind,
    /// See there.
    pub call: u32,
    /// See there.
    pub name: Box<[u8]>,
    data: Box<[u8]>,
}

impl Note {
    fn size(&self) -> usize {
        self.name.len() + self.data.len() + size_of::<Note>()
    }
}

/// A message put aside.
struct Aside {
    note: Note,
    sender: Pid,
    seat: Seat,
}

impl Aside {
    fn message(&self) -> Message<'_> {
        let Aside { note: Note { kind, call, name, data }, sender, seat } = self;
        Message { kind: *kind, call: *call, sender: *sender, seat: *seat, name, data }
    }
}

/// The mailbox of one worker.
pub struct Mailbox {
    me: (Pid, Seat),
    rings: Option<Reader>,
    line: OwnedFd,
    line_ready: bool,
    /// Nothing comes from others any more.
    is_cut: bool,
    record: Box<[u8]>,
    assembler: Assembler,
    notes: VecDeque<Note>,
    note_bytes: usize,
    /// The note that was handed out last.
    note: Option<Note>,
    notes_next: bool,
    /// In the order of their arrival, and their bytes.
    aside: VecDeque<Aside>,
    aside_bytes: usize,
    /// The one that was handed out last.
    kept: Option<Aside>,
    /// A message that has been seen, and is handed out next.
    front: Option<Taken>,
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
            is_cut: false,
            record: vec![0; RECORD].into(),
            assembler: Assembler::new(max),
            notes: VecDeque::new(),
            note_bytes: 0,
            note: None,
            notes_next: false,
            aside: VecDeque::new(),
            aside_bytes: 0,
            kept: None,
            front: None,
            budget: (BUDGET, BUDGET_BYTES),
        }
    }

    /// The end to watch.
    pub fn line(&self) -> BorrowedFd<'_> {
        self.line.as_fd()
    }

    /// Something can be read from the line.
    pub fn line_is_ready(&mut self) {
        self.line_ready = !self.is_cut;
    }

    /// Rings and line belong to somebody else now; what was taken in stays.
    pub fn cut(&mut self) {
        (self.is_cut, self.line_ready, self.rings) = (true, false, None);
    }

    /// A new turn of the event loop has begun.
    pub fn new_turn(&mut self) {
        self.budget = (BUDGET, BUDGET_BYTES);
    }

    /// Whether something lies in a ring of which the bell does not tell; then it is found by the next
    /// take.
    pub fn has_overlooked(&mut self) -> bool {
        self.rings.as_mut().is_some_and(Reader::overlooked)
    }

    /// Notes that wait, and their bytes.
    pub fn notes(&self) -> (usize, usize) {
        (self.notes.len(), self.note_bytes)
    }

    /// A message to oneself is queued like any other, up to `limit` bytes.
    pub fn note(&mut self, letter: Letter<'_>, limit: usize) -> Result<(), Refused> {
        let Letter { kind, call, name, data } = letter;
        if self.note_bytes + name.len() + data.len() + size_of::<Note>() > limit {
            return Err(Refused::Full);
        }
        let data = copied(data).ok_or(Refused::Full)?;
        let note = Note { kind, call, name: name.into(), data };
        self.note_bytes += note.size();
        self.notes.push_back(note);
        Ok(())
    }

    /// Takes what comes next for Lua; the bytes of the message before are gone.
    #[inline]
    pub fn take(&mut self) -> Next {
        if let Some(front) = self.front.take() {
            return Next::Mail(front);
        }
        if !self.aside.is_empty() {
            return self.take_aside();
        }
        self.next(false)
    }

    /// Takes in what comes next and puts it aside, where it is for Lua.
    pub fn put_aside(&mut self) -> Next {
        self.next(true)
    }

    /// Whether a message has been seen and is about to be taken; the next ones cannot be seen before.
    pub fn has_front(&self) -> bool {
        self.front.is_some()
    }

    /// Whether a message for Lua is known to be there.
    pub fn has_mail(&self) -> bool {
        self.front.is_some() || !self.aside.is_empty()
    }

    /// Bytes put aside.
    pub fn aside_bytes(&self) -> usize {
        self.aside_bytes
    }

    /// What was taken is to be taken again, before anything else is.
    pub fn put_back(&mut self, taken: Taken) {
        self.front = Some(taken);
    }

    /// A message that was put aside and its sender, for whoever needs no Lua for it.
    pub fn take_out(&mut self) -> Option<(Note, Pid)> {
        let Aside { note, sender, .. } = self.aside.pop_front()?;
        self.aside_bytes -= note.size();
        Some((note, sender))
    }

    fn take_aside(&mut self) -> Next {
        if self.budget.0 == 0 || self.budget.1 == 0 {
            return Next::Later;
        }
        let Some(aside) = self.aside.pop_front() else { return Next::Empty };
        self.aside_bytes -= aside.note.size();
        let taken = Taken::of(&self.kept.insert(aside).message(), Place::Aside);
        self.charge(taken.data.size());
        Next::Mail(taken)
    }

    fn charge(&mut self, bytes: usize) {
        self.budget.0 = self.budget.0.saturating_sub(1);
        self.budget.1 = self.budget.1.saturating_sub(bytes);
    }

    #[inline]
    fn next(&mut self, aside: bool) -> Next {
        self.assembler.release();
        self.note = None;
        self.kept = None;
        if self.budget.0 == 0 || self.budget.1 == 0 {
            return Next::Later;
        }
        // by turns, so that neither a flood from outside nor one from within holds the other up
        self.notes_next = !self.notes_next;
        let next = match self.notes_next.then(|| self.take_note(aside)).flatten() {
            Some(note) => note,
            None => self.take_record(aside),
        };
        let next = match next {
            Next::Empty => self.take_note(aside).unwrap_or(Next::Empty),
            next => next,
        };
        match &next {
            Next::Mail(taken) => self.charge(taken.data.size()),
            Next::Aside(_) => self.charge(self.aside.back().map_or(0, |a| a.note.data.len())),
            Next::Native(bytes, _) => self.charge(*bytes),
            _ => {}
        }
        next
    }

    fn take_note(&mut self, aside: bool) -> Option<Next> {
        let note = self.notes.pop_front()?;
        self.note_bytes -= note.size();
        let (sender, seat) = self.me;
        if aside {
            self.aside_bytes += note.size();
            self.aside.push_back(Aside { note, sender, seat });
            return Some(Next::Aside(Place::Note));
        }
        let Note { kind, call, name, data } = self.note.insert(note);
        let message = Message { kind: *kind, call: *call, sender, seat, name, data };
        Some(Next::Mail(Taken::of(&message, Place::Note)))
    }

    fn take_record(&mut self, aside: bool) -> Next {
        let Mailbox { rings, line, line_ready, record, assembler, me, .. } = self;
        let mut aside = aside.then_some((&mut self.aside, &mut self.aside_bytes));
        if let Some(rings) = rings {
            while rings.ready() {
                let record = rings.record().unwrap_or_default();
                if let Some(next) = handed_on(assembler.accept(record, me.0), None, &mut aside) {
                    return next;
                }
            }
        }
        while *line_ready {
            // no error but EAGAIN can come, or the end after a hang-up: this process holds the
            // other end, too
            let Ok((length, passed)) = socket::receive(line.as_fd(), record) else {
                *line_ready = false;
                break;
            };
            let record = record.get(..length).unwrap_or_default();
            if let Some(next) = handed_on(assembler.accept(record, me.0), passed, &mut aside) {
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

/// A copy of what may be long; None where there is no memory for it, which ends no worker.
fn copied(data: &[u8]) -> Option<Box<[u8]>> {
    let mut copy = Vec::new();
    copy.try_reserve_exact(data.len()).ok()?;
    copy.extend_from_slice(data);
    Some(copy.into())
}

/// What a record led to, where that concerns anybody.
#[inline]
fn handed_on(
    assembled: Assembled<'_>,
    passed: Option<OwnedFd>,
    aside: &mut Option<(&mut VecDeque<Aside>, &mut usize)>,
) -> Option<Next> {
    match (assembled, passed) {
        (Assembled::Whole(message), _) if message.kind.is_native() => {
            Some(Next::Native(message.data.len(), native::accept(&message)))
        }
        (Assembled::Whole(message), _) => Some(match aside {
            Some((aside, bytes)) => {
                let Message { kind, call, sender, seat, name, data } = message;
                let Some(data) = copied(data) else { return Some(Next::Dropped(Counter::Lost)) };
                let note = Note { kind, call, name: name.into(), data };
                **bytes += note.size();
                aside.push_back(Aside { note, sender, seat });
                Next::Aside(Place::Wire)
            }
            None => Next::Mail(Taken::of(&message, Place::Wire)),
        }),
        (Assembled::Hello(seat), Some(send)) => Some(Next::Hello(seat, send)),
        (Assembled::More | Assembled::Hello(_), _) => None,
        (Assembled::Stranger, _) => Some(Next::Dropped(Counter::Stranger)),
        (Assembled::Broken(_) | Assembled::Orphan | Assembled::TooLong, _) => {
            Some(Next::Dropped(Counter::Lost))
        }
    }
}
