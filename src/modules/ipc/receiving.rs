//! How this worker receives: when its coroutine is woken, what it is handed, when it sleeps.

use std::os::fd::AsFd;

use super::alive;
use super::losses::{KILLED, dropped, tell_lost};
use super::mailbox::{Next, Note, Place, Taken};
use super::native;
use super::rings::Bells;
use super::sending::Letter;
use super::worker::Worker;
use crate::modules::metrics::{self, Timed};
use crate::ngx::lua::Semaphore;
use crate::ngx::{cycle, event, socket};
use crate::proto::ipc::frame::Kind;
use crate::proto::ipc::stamp;
use crate::shm::slots::{Counter, State};

/// Between looks for what went unnoticed, the dead above all, in ms.
const HOUSEKEEPING: usize = 1000;
/// Between looks of a retiring worker whether anything but its receivers keeps it, in ms.
const RETIRING: usize = 50;
/// How long a worker stays for what was sent to it before it said that it closes, in ms.
const CLOSING: usize = 20;
/// How many times a spinning worker looks before it lets the event loop look at everything else.
const LOOKS: usize = 64;
/// How many such looks a receiver takes in one turn of the event loop.
const LOOKS_A_TURN: usize = 32;
/// Bytes that are put aside for a receiver whose handler has yielded, where native messages may lie
/// behind them.
const ASIDE: usize = 8 << 20;

impl Worker {
    /// The next message for this worker. None: wait for the semaphore, which is posted when there
    /// is more, also when there is more now but the turn's budget is used up.
    #[inline]
    pub fn take(&mut self) -> Option<Taken> {
        let taken = self.take_or_rest(false);
        self.waiting = taken.is_none();
        self.posted = false;
        if taken.is_some() {
            self.expect_yield();
        }
        taken
    }

    /// The receiver runs a handler. Where something may come meanwhile that is not for it, the next turn
    /// of the event loop tells whether the handler has yielded: nobody rings, as long as this worker is
    /// taken to be awake.
    fn expect_yield(&mut self) {
        if self.calls > 0 || native::in_use() {
            self.next_turn();
        }
    }

    /// The same for the deputy, while the receiver's handler has yielded.
    pub fn take_as_deputy(&mut self) -> Option<Taken> {
        let taken = self.take_or_rest(true);
        self.deputy_waiting = taken.is_none();
        taken
    }

    /// The receiver goes on with what it need not take: with a message that the deputy had put `aside`,
    /// or with a retained value.
    pub fn goes_on(&mut self, aside: bool) {
        if aside {
            self.aside = self.aside.saturating_sub(1);
            self.hold(self.held.saturating_sub(1));
            self.count(Counter::Received, 1);
        }
        (self.waiting, self.posted) = (false, false);
        self.expect_yield();
    }

    /// The deputy will wait, whether or not there is mail: nobody waits for a reply, or the receiver
    /// has enough put aside.
    pub fn deputy_waits(&mut self) -> Option<Taken> {
        self.deputy_waiting = true;
        None
    }

    fn take_or_rest(&mut self, deputy: bool) -> Option<Taken> {
        let mut taken = self.next(false)?;
        if taken.kind == Kind::Message && taken.call != 0 {
            self.took(std::mem::take(&mut taken.call));
        }
        // what the deputy puts aside no handler has seen: it is lost with this process
        let stays = deputy && !matches!(taken.kind, Kind::Reply | Kind::Failure);
        let was = taken.place == Place::Aside;
        if !stays {
            self.count(Counter::Received, 1);
        }
        self.aside = self.aside + usize::from(stays) - usize::from(was).min(self.aside);
        let held = self.held + usize::from(stays);
        self.hold(held.saturating_sub(usize::from(taken.place != Place::Wire)));
        Some(taken)
    }

    /// A message was taken in vain.
    #[cold]
    pub(super) fn drop_one(&self, counter: Counter) {
        self.count(counter, 1);
        dropped(counter, format_args!(""));
    }

    /// This worker has no handlers at all; whoever calls one is told.
    #[cold]
    fn refuse_all(&mut self) {
        if self.mailbox.has_front() && self.take().is_some() {
            self.drop_one(Counter::Unhandled);
        }
        loop {
            self.next(true);
            let Some(aside) = self.mailbox.take_out() else { return };
            let mut next = Some(aside);
            while let Some((Note { kind, call, name, .. }, sender)) = next {
                self.aside = self.aside.saturating_sub(1);
                self.hold(self.held.saturating_sub(1));
                self.count(Counter::Received, 1);
                if kind == Kind::Call {
                    let why = [b"no handler for \"", &name[..], b"\""].concat();
                    let letter = Letter { kind: Kind::Failure, call, name: b"", data: &why };
                    // who cannot be told waits as long as it wanted to
                    let _ = self.send_process(sender, letter);
                }
                self.drop_one(Counter::Unhandled);
                next = self.mailbox.take_out();
            }
        }
    }

    /// A message with that stamp has come.
    #[cold]
    fn took(&self, sent: u32) {
        let micros = stamp::since(sent, cycle::nanoseconds());
        if let (Some(metrics), Some(micros)) = (self.metrics, micros) {
            metrics::observe(metrics, Timed::Delivery, micros);
        }
    }

    /// The next message for Lua, or to be put aside; None where nothing is left in this turn.
    fn next(&mut self, aside: bool) -> Option<Taken> {
        loop {
            let next = if aside { self.mailbox.put_aside() } else { self.mailbox.take() };
            match next {
                Next::Mail(taken) => return Some(taken),
                Next::Aside(place) => {
                    self.aside += 1;
                    self.hold(self.held + usize::from(place == Place::Wire));
                    if self.mailbox.aside_bytes() >= self.limits.queue.min(ASIDE) {
                        return None;
                    }
                }
                Next::Native(_, counter) => {
                    self.count(Counter::Received, 1);
                    if let Some(counter) = counter {
                        self.drop_one(counter);
                    }
                }
                Next::Hello(seat, send) => self.greet(seat, send),
                Next::Dropped(counter) => self.drop_one(counter),
                Next::Later => {
                    self.drained = false;
                    self.next_turn();
                    return None;
                }
                Next::Empty if self.look_on() => {}
                Next::Empty if self.rest() => {
                    self.drained = true;
                    return None;
                }
                Next::Empty => {}
            }
        }
    }

    /// Takes in what needs no Lua. True: the next message does.
    fn sift(&mut self) -> bool {
        if !self.mailbox.has_mail() {
            match self.next(false) {
                Some(taken) => self.mailbox.put_back(taken),
                None => return false,
            }
        }
        true
    }

    /// The same past messages that Lua cannot take now, up to a bound. Those are lost with this
    /// process, so only where there may be something behind them.
    fn sift_past(&mut self) {
        let room = self.mailbox.aside_bytes() < self.limits.queue.min(ASIDE);
        if room && !self.mailbox.has_front() && native::in_use() {
            self.next(true);
        }
    }

    fn next_turn(&mut self) {
        if let Some(events) = &mut self.events {
            events.turn.next_turn();
        }
    }

    /// So many calls wait for replies. While a handler has yielded, a deputy takes them in; the
    /// next turn of the event loop tells whether it has.
    pub fn calls(&mut self, calls: usize) {
        self.calls = calls;
        if calls > 0 && !self.waiting {
            self.next_turn();
        }
    }

    /// A short look before the receiver gives way to the event loop and comes back: two workers
    /// that answer each other at once meet here. True: something has come.
    #[inline]
    fn look_on(&mut self) -> bool {
        let Some(bells) = self.bells.as_ref().filter(|_| self.looks > 0 && self.spin.pays()) else {
            return false;
        };
        self.looks -= 1;
        let found = if self.crowded {
            std::thread::yield_now();
            bells.any()
        } else {
            (0..LOOKS).any(|_| {
                std::hint::spin_loop();
                bells.any()
            })
        };
        if found {
            self.spin.paid();
        }
        found
    }

    /// There is nothing to do: looks on for a while, or sleeps until a bell rings. False: something
    /// has come in between.
    fn rest(&mut self) -> bool {
        self.use_room();
        if self.mailbox.is_assembling() {
            self.keep_house();
        }
        let Some(bells) = &self.bells else { return true };
        match &mut self.events {
            Some(events) if self.spin.look_again(cycle::nanoseconds(), self.crowded) => {
                events.turn.next_turn();
                true
            }
            _ => bells.sleep(),
        }
    }

    /// Lets `receiver` be woken for mail, and `deputy` while it cannot be. False: another one is already.
    pub fn attach(&mut self, receiver: Semaphore, deputy: Semaphore) -> bool {
        if self.receiver.is_some() {
            return false;
        }
        self.receiver = Some(receiver);
        self.deputy = Some(deputy);
        self.waiting = false;
        self.posted = false;
        self.deputy_waiting = true;
        self.stay_awake();
        true
    }

    /// The receiver is no more.
    pub fn detach(&mut self, receiver: Semaphore) {
        if self.receiver == Some(receiver) {
            self.receiver = None;
            self.deputy = None;
            self.waiting = false;
        }
    }

    /// A light thread has become a receiver, the heir of one or its deputy.
    pub fn receiver_began(&mut self) {
        self.receivers += 1;
    }

    /// One of them has ended.
    pub(super) fn receiver_ended(&mut self) {
        self.receivers = self.receivers.saturating_sub(1);
    }

    /// Whether receivers shall end: the worker leaves, and they have taken everything. Their
    /// `deputy` has nothing more to wait for.
    pub fn is_over(&self, deputy: bool) -> bool {
        self.over && (deputy || self.drained)
    }

    /// nginx lets a worker go when only cancelable timers are left. Receivers wait by timers that
    /// are not; they stay as long as there are others, so that requests which the worker still
    /// serves can talk.
    pub(super) fn on_retiring(&mut self) {
        self.wake_deputy(); // without calls it ends
        self.look_for_overlooked();
        let (threads, waiting) = native::threads();
        let any = self.receiver.is_some() || threads > 0;
        let Some(events) = self.events.as_mut().filter(|_| any) else { return };
        let own = self.receivers + waiting + usize::from(events.linger.is_set());
        let busy = self.receiver.is_some() && !self.waiting || threads > waiting;
        if busy || event::others_hold(own) {
            // where what came last has begun something after all, the worker remains closed: others
            // have passed it by, and answers still find it
            events.retiring.after(RETIRING, false);
        } else if self.me.state.is_open() {
            // who has looked before this may still be about to send
            events.retiring.after(CLOSING, false);
            self.say(State::Closed);
        } else {
            self.over = true;
            self.wake();
            self.wake_deputy();
            native::end();
        }
    }

    /// A sender of an old generation that was killed between its record and the bell has no successor
    /// that would ring.
    fn look_for_overlooked(&mut self) {
        if self.waiting && self.mailbox.has_overlooked() {
            self.wake();
        }
    }

    /// Until the receiver finds nothing more nobody needs to ring.
    fn stay_awake(&self) {
        if let Some(bells) = &self.bells {
            bells.awake();
        }
    }

    /// Looks for what came without a bell.
    pub(super) fn look(&mut self) {
        self.wake();
    }

    fn wake(&mut self) {
        self.heed();
        self.mailbox.new_turn();
        self.looks = LOOKS_A_TURN;
        self.crowded = self.bells.as_ref().is_some_and(|bells| bells.is_crowded(cycle::cores()));
        match &self.receiver {
            Some(_) if self.waiting => {
                // the deputy may have put something aside before it could know that nobody has yielded
                if self.sift() || self.aside > 0 || self.reviews || self.over {
                    self.post();
                }
            }
            Some(_) if self.posted => {}
            // its handler has yielded, or it has not begun
            Some(_) => {
                self.sift_past();
                if self.calls > 0 {
                    self.wake_deputy();
                }
            }
            // what comes when the receivers have ended is lost with the worker, and counted so
            None if self.over => {}
            None if self.grace => self.sift_past(),
            None => self.refuse_all(),
        }
    }

    fn post(&mut self) {
        if let Some(receiver) = &self.receiver {
            receiver.post();
            self.waiting = false;
            self.posted = true;
            self.stay_awake();
        }
    }

    fn wake_deputy(&mut self) {
        if let Some(deputy) = self.deputy.as_ref().filter(|_| self.deputy_waiting) {
            deputy.post();
            self.deputy_waiting = false;
        }
    }

    /// A record, or a hello, has come by the line.
    pub(super) fn on_line(&mut self) {
        self.mailbox.line_is_ready();
        self.wake();
    }

    /// A sender has rung.
    pub(super) fn on_bell(&mut self) {
        if let Some(bell) =
            self.bells.as_ref().and_then(Bells::own).filter(|_| event::reports_level())
        {
            socket::silence(bell.as_fd());
        }
        self.work();
    }

    /// This turn of the event loop is ours: mail that was left over, a spin, a note to oneself.
    pub(super) fn on_turn(&mut self) {
        if self.me.state == State::Starting {
            self.say(State::Live);
        }
        if self.spin.spinning() {
            let something = |worker: &Worker| {
                let mailbox = &worker.mailbox;
                // what was put aside came some turns ago, and this one may be for the rest of it
                mailbox.has_mail()
                    || mailbox.notes().0 > 0
                    || worker.bells.as_ref().is_some_and(|b| b.any())
            };
            for _ in 0..if self.crowded { 2 } else { LOOKS } {
                if something(self) {
                    self.spin.found();
                    return self.work();
                }
                if self.crowded {
                    std::thread::yield_now();
                } else {
                    std::hint::spin_loop();
                }
            }
            if self.rest() {
                return;
            }
        }
        self.work();
    }

    fn work(&mut self) {
        self.use_room();
        self.wake();
    }

    /// Writes what is held back, if a receiver has told of room.
    fn use_room(&mut self) {
        if self.bells.as_ref().is_some_and(|bells| bells.has_room()) {
            self.flush();
        }
    }

    /// So many messages are lost, whose receivers are gone.
    pub(super) fn lose(&self, messages: usize) {
        self.count(Counter::Lost, messages);
        tell_lost(messages, "their receivers are gone");
    }

    /// Forgets what belongs to the dead.
    pub(super) fn on_housekeeping(&mut self) {
        self.grace = false;
        self.wake();
        let (own, table) = (self.me.seat.generation, self.table);
        let living: Vec<_> =
            table.everyone().filter(|w| alive(w.pid)).map(|worker| worker.seat).collect();
        // one of the newest generation may not have entered yet, or be between two processes
        let newest = table.current().0.max(own);
        let mut lost = 0;
        self.others.retain(|seat, peer| {
            let stays = seat.generation >= newest || living.contains(seat);
            lost += if stays { 0 } else { peer.waiting() };
            stays
        });
        self.lose(lost);
        if own == newest && self.me.state != State::Ousted {
            self.settle_estates();
            let held = table.bury(self.slot, alive);
            tell_lost(held as usize, KILLED);
        } else {
            // newer workers hold the same, as who has this one's seat now; they bury whoever left one
            self.estates.clear();
        }
        self.mailbox.forget(alive);
        self.greet_elders();
        self.flush();
        self.tell_untold();
        let others = self.others.keys().any(|seat| seat.generation != own);
        let elders = others || !self.estates.is_empty();
        if elders || !self.untold.is_empty() || self.held > 0 || self.mailbox.is_assembling() {
            self.keep_house();
        }
    }

    /// Has a look soon. An idle worker among its own needs none, and is not woken for it.
    pub(super) fn keep_house(&mut self) {
        if let Some(events) = self.events.as_mut().filter(|events| !events.housekeeping.is_set()) {
            events.housekeeping.after(HOUSEKEEPING, false);
        }
    }
}
