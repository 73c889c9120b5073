//! What has arrived for this worker: records on its line, and notes to itself. Hands out one
//! message at a time, up to a budget per turn of the event loop.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::ngx::socket;
use crate::proto::ipc::assemble::{Assembled, Assembler, Message};
use crate::proto::ipc::frame::RECORD;
use crate::proto::ipc::outbox::Refused;
use crate::proto::ipc::{Pid, Seat};
use crate::shm::slots::Counter;

/// Messages that a receiver takes in one turn of the event loop, so that a flood starves nobody.
const BUDGET: usize = 512;
/// Bytes that it takes in one turn.
const BUDGET_BYTES: usize = 1 << 20;

/// A message taken out of the mailbox; its bytes stay in place until the next is taken.
#[derive(Clone, Copy)]
pub struct Taken {
    /// The process that sent it.
    pub sender: Pid,
    /// The sender's seat.
    pub seat: Seat,
    /// Address and length of the name.
    pub name: (*const u8, usize),
    /// Address and length of the data.
    pub data: (*const u8, usize),
}

impl Taken {
    fn of(message: &Message<'_>) -> Taken {
        Taken {
            sender: message.sender,
            seat: message.seat,
            name: (message.name.as_ptr(), message.name.len()),
            data: (message.data.as_ptr(), message.data.len()),
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
#[derive(Default)]
struct Note {
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
    line: OwnedFd,
    record: Box<[u8]>,
    assembler: Assembler,
    notes: VecDeque<Note>,
    note_bytes: usize,
    /// The note that was handed out last.
    note: Note,
    notes_next: bool,
    budget: (usize, usize),
}

impl Mailbox {
    /// Of the process `pid` in `seat`, whose mail comes on `line`; messages of at most `max` bytes.
    pub fn new(pid: Pid, seat: Seat, line: OwnedFd, max: usize) -> Mailbox {
        Mailbox {
            me: (pid, seat),
            line,
            record: vec![0; RECORD].into(),
            assembler: Assembler::new(max),
            notes: VecDeque::new(),
            note_bytes: 0,
            note: Note::default(),
            notes_next: false,
            budget: (BUDGET, BUDGET_BYTES),
        }
    }

    /// The end to watch.
    pub fn line(&self) -> BorrowedFd<'_> {
        self.line.as_fd()
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
    pub fn note(&mut self, name: &[u8], data: &[u8], limit: usize) -> Result<(), Refused> {
        let size = name.len() + data.len() + size_of::<Note>();
        if self.note_bytes + size > limit {
            return Err(Refused::Full);
        }
        self.note_bytes += size;
        self.notes.push_back(Note { name: name.into(), data: data.into() });
        Ok(())
    }

    /// Takes what comes next; the bytes of the message before are gone.
    pub fn take(&mut self) -> Next {
        self.assembler.release();
        self.note = Note::default();
        if self.budget.0 == 0 || self.budget.1 == 0 {
            return Next::Later;
        }
        // by turns, so that neither a flood from outside nor one from within holds the other up
        self.notes_next = !self.notes_next;
        let next = match self.notes_next.then(|| self.next_note()).flatten() {
            Some(note) => Next::Mail(note),
            None => self.next_record(),
        };
        let next = match next {
            Next::Empty => self.next_note().map_or(Next::Empty, Next::Mail),
            next => next,
        };
        if let Next::Mail(taken) = &next {
            self.budget.0 -= 1;
            self.budget.1 = self.budget.1.saturating_sub(taken.data.1);
        }
        next
    }

    fn next_note(&mut self) -> Option<Taken> {
        self.note = self.notes.pop_front()?;
        self.note_bytes -= self.note.size();
        let Note { name, data } = &self.note;
        Some(Taken::of(&Message { sender: self.me.0, seat: self.me.1, name, data }))
    }

    fn next_record(&mut self) -> Next {
        // no error but EAGAIN can come: this process holds the other end, too
        while let Ok((length, passed)) = socket::receive(self.line.as_fd(), &mut self.record) {
            let record = self.record.get(..length).unwrap_or_default();
            match (self.assembler.accept(record, self.me.0), passed) {
                (Assembled::Whole(message), _) => return Next::Mail(Taken::of(&message)),
                (Assembled::Hello(seat), Some(send)) => return Next::Hello(seat, send),
                (Assembled::More | Assembled::Hello(_), _) => {}
                (Assembled::Stranger, _) => return Next::Dropped(Counter::Stranger),
                (Assembled::Broken(_) | Assembled::Orphan | Assembled::TooLong, _) => {
                    return Next::Dropped(Counter::Lost);
                }
            }
        }
        Next::Empty
    }

    /// Forgets half-received messages of dead senders; how many.
    pub fn forget(&mut self, alive: impl Fn(Pid) -> bool) -> usize {
        self.assembler.retain(alive)
    }

    /// Everything that nobody will take any more, in messages.
    pub fn clear(&mut self) -> usize {
        let mut lost = 0;
        loop {
            self.new_turn();
            match self.take() {
                Next::Mail(_) | Next::Dropped(Counter::Lost) => lost += 1,
                Next::Empty => return lost,
                Next::Hello(..) | Next::Dropped(_) | Next::Later => {}
            }
        }
    }
}
