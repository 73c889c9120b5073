//! How this worker leaves: its last words, and what becomes of the mail that nobody will read.

use super::alive;
use super::mailbox::{Next, Place};
use super::peer::{Peer, Way};
use super::worker::{Events, LINGER, Worker};
use crate::ngx::{cycle, socket};
use crate::proto::ipc::{Seat, WorkerId};
use crate::shm::slots::{Counter, State, Worker as Entry};

/// Between looks of a worker that has left the event loop, in ms.
const PARTING: u16 = 10;

impl Worker {
    /// Gives the seat back; how many accepted messages could not be delivered.
    pub(super) fn leave(mut self) -> usize {
        let mut lost = 0;
        let deadline = cycle::nanoseconds() + LINGER as u64 * 1_000_000;
        loop {
            // whoever waits for the seat reads what is left
            self.heed();
            self.flush();
            lost += self.clear();
            // what exit_worker_by_lua has sent may wait for a newer worker's hello, or for room;
            // there is no event loop any more to wait with
            if !self.is_awaited() || cycle::nanoseconds() > deadline {
                break;
            }
            socket::wait(self.mailbox.line(), PARTING);
        }
        lost += self.settle();
        // last, for a late hello is answered with what has waited for it
        let held = self.all_peers().map(Peer::waiting).sum::<usize>() + self.aside;
        self.table.hold(self.slot, 0);
        self.count(Counter::Lost, held);
        self.table.release(self.slot, self.me.pid);
        lost + held
    }

    /// Gives way, where another process waits for that.
    pub(super) fn heed(&mut self) {
        if self.me.state != State::Ousted && self.table.is_wanted(self.slot, self.me.pid) {
            self.give_way();
        }
    }

    /// Another process is in this seat. Two cannot read the same rings, nor write to them: from now
    /// on this one talks to itself alone.
    #[cold]
    fn give_way(&mut self) {
        self.flush();
        self.lose(self.all_peers().map(Peer::waiting).sum());
        self.mailbox.cut();
        if let Some(Events { watches: [_line, bell], .. }) = &mut self.events {
            // nginx tells who watches that the worker is to leave, so the line is still watched,
            // though not read
            *bell = None;
        }
        let queue = self.limits.queue;
        self.peers.iter_mut().for_each(|peer| *peer = Peer::new(Way::Gone, queue));
        (self.others, self.estates) = Default::default();
        (self.bells, self.tallies) = (None, None);
        self.spin.found(); // there is nothing to look at any more
        self.recount();
        self.say(State::Ousted);
    }

    /// Where nobody takes this seat over: nothing more comes in, and the last one of the generation
    /// accounts for what those who were killed have not read. How many messages were lost.
    fn settle(&mut self) -> usize {
        let own = self.me.seat.generation;
        if self.table.current().0 <= own || self.me.state == State::Ousted {
            return 0;
        }
        // what a sender puts in from now on it is told, or it is in front of the last look
        socket::hang_up(self.mailbox.line());
        let lost = self.clear();
        let Some(bells) = &self.bells else { return lost };
        bells.leave();
        let here = |w: &Entry| {
            w.seat.generation == own && w.pid != self.me.pid && w.state != State::Ousted
        };
        let stays =
            |w: &Entry| !bells.has_left(usize::from(w.seat.worker.0)) && socket::runs(w.pid.0);
        if self.table.everyone().any(|w| here(&w) && stays(&w)) {
            return lost;
        }
        lost + bells.settle(|messages| self.count(Counter::Lost, messages))
    }

    /// Whether something waits for a worker that lives to take it.
    fn is_awaited(&self) -> bool {
        let lives = |seat: Seat| {
            self.table.workers().any(|w| w.seat == seat && w.pid != self.me.pid && alive(w.pid))
        };
        let generation = self.me.seat.generation;
        let own =
            (0..).zip(&self.peers).map(|(id, p)| (Seat { generation, worker: WorkerId(id) }, p));
        let others = self.others.iter().map(|(seat, peer)| (*seat, peer));
        own.chain(others).any(|(seat, peer)| peer.waiting() > 0 && lives(seat))
    }

    /// Takes out everything that nobody will handle any more; how many messages were lost. Each is
    /// counted at once: a worker that is killed while it leaves takes no sum along.
    fn clear(&mut self) -> usize {
        let mut lost = 0;
        self.mailbox.line_is_ready();
        loop {
            self.mailbox.new_turn();
            match self.mailbox.take() {
                Next::Mail(taken) => {
                    self.aside -= usize::from(taken.place == Place::Aside).min(self.aside);
                    self.hold(self.held.saturating_sub(usize::from(taken.place != Place::Wire)));
                    self.count(Counter::Lost, 1);
                    lost += 1;
                }
                Next::Native(..) | Next::Dropped(Counter::Lost) => {
                    self.count(Counter::Lost, 1);
                    lost += 1;
                }
                Next::Aside(_) => {}
                Next::Hello(seat, send) => self.greet(seat, send),
                Next::Dropped(counter) => self.count(counter, 1),
                Next::Later => {}
                Next::Empty => return lost,
            }
        }
    }
}
