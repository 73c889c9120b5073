//! What the workers of an older generation leave behind where nobody follows them: mail in their
//! rings and lines. Those of a newer one hold both, and read what the killed cannot read any more,
//! only to count it as lost. Whoever comes first takes a record; the others find it gone.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;

use super::alive;
use super::losses::tell_lost;
use super::worker::Worker;
use crate::ngx::memory::Mapping;
use crate::ngx::socket::{self, Line};
use crate::proto::ipc::frame::{Header, Kind, RECORD};
use crate::proto::ipc::{Generation, Seat, WorkerId};
use crate::shm::ends;
use crate::shm::mesh::Mesh;
use crate::shm::slots::{Counter, State, Table, Worker as Entry};

/// Of one generation.
pub struct Estate {
    generation: Generation,
    /// The ends that its workers receive at.
    lines: Vec<(WorkerId, OwnedFd)>,
    /// The memory of its rings, and for how many workers they are.
    rings: Option<(Arc<Mapping>, usize)>,
}

impl Estate {
    /// Of what the master made for a generation, as far as its workers sit in the table, dead or
    /// alive; None where nobody does. A line that cannot be held for want of a descriptor is no
    /// reason to fail a reload.
    pub fn of(
        generation: Generation,
        lines: &[Line],
        rings: Option<&Arc<Mapping>>,
        table: &Table,
    ) -> Option<Estate> {
        let rings = rings.map(|rings| (rings.clone(), lines.len()));
        let ends = (0..).zip(lines.iter().map(|line| line.receive.as_ref()));
        let ends = ends.filter_map(|(id, end)| Some((WorkerId(id), end?)));
        Self::held(generation, ends, rings, table)
    }

    /// The same, for the next configuration.
    pub fn handed_on(&self, table: &Table) -> Option<Estate> {
        let ends = self.lines.iter().map(|(id, end)| (*id, end));
        Self::held(self.generation, ends, self.rings.clone(), table)
    }

    fn held<'a>(
        generation: Generation,
        ends: impl Iterator<Item = (WorkerId, &'a OwnedFd)>,
        rings: Option<(Arc<Mapping>, usize)>,
        table: &Table,
    ) -> Option<Estate> {
        let seats: Vec<Seat> =
            table.everyone().map(|w| w.seat).filter(|s| s.generation == generation).collect();
        let lines = ends
            .filter(|(worker, _)| seats.contains(&Seat { generation, worker: *worker }))
            .filter_map(|(worker, end)| Some((worker, socket::duplicate(end).ok()?)))
            .collect();
        (!seats.is_empty()).then_some(Estate { generation, lines, rings })
    }

    /// Tells `lost`, bit by bit, how many messages the dead have not read: those in the lines of
    /// whoever `is_gone`, and once all are, those in the rings. False when nothing is left.
    fn settle(
        &mut self,
        all_gone: bool,
        is_gone: impl Fn(Seat) -> bool,
        mut lost: impl FnMut(usize),
    ) -> bool {
        let generation = self.generation;
        self.lines.retain(|(worker, end)| {
            let gone = all_gone || is_gone(Seat { generation, worker: *worker });
            if gone {
                // what a sender puts in from now on it is told
                socket::hang_up(end.as_fd());
                unread(end, &mut lost);
            }
            !gone
        });
        if !all_gone {
            return true;
        }
        if let Some((memory, workers)) = self.rings.take() {
            let settled =
                Mesh::new(memory.words(), workers).and_then(|mesh| ends::inherit(mesh, lost));
            // whoever else reads does it until then
            if settled.is_some() {
                memory.release();
            }
        }
        false
    }
}

/// Takes out what is in a line.
fn unread(end: &OwnedFd, lost: &mut impl FnMut(usize)) {
    let mut record = vec![0; RECORD];
    loop {
        match socket::receive(end.as_fd(), &mut record) {
            Ok((length, _)) => {
                let record = record.get(..length).unwrap_or_default();
                let message = |(header, _, piece): (Header, &[u8], &[u8])| {
                    header.kind != Kind::Hello && header.is_last(piece)
                };
                if Header::decode(record).is_ok_and(message) {
                    lost(1);
                }
            }
            Err(Errno::EINTR) => {}
            Err(_) => return,
        }
    }
}

impl Worker {
    /// Reads what the dead of older generations have left. Before they are buried.
    pub(super) fn settle_estates(&mut self) {
        let mut estates = std::mem::take(&mut self.estates);
        let mut lost = 0;
        estates.retain_mut(|estate| {
            // who has given way reads nothing
            let of = |w: &Entry| w.seat.generation == estate.generation && w.state != State::Ousted;
            let here: Vec<Entry> = self.table.everyone().filter(of).collect();
            let all_gone = !here.iter().any(|worker| alive(worker.pid));
            // who has left in order is not there any more, and has read all
            let is_gone = |seat| {
                let mut owners = here.iter().filter(|w| w.seat == seat).peekable();
                owners.peek().is_some() && owners.all(|w| !alive(w.pid))
            };
            estate.settle(all_gone, is_gone, |messages| {
                self.count(Counter::Lost, messages);
                lost += messages;
            })
        });
        tell_lost(lost, "their receivers are gone");
        self.estates = estates;
    }
}
