//! Calls whose worker has died. Its mail is its successor's, so nobody but that one can tell whether an
//! ask has been read by the dead: it is asked, behind whatever is still on its way, and answers for
//! what it does not have. Then the call need not wait for its time to end.

use super::actions;
use super::native::{self, Asker, CallFailed};
use super::rings;
use super::sending::{Letter, Unsent};
use super::worker::{self, Worker};
use crate::proto::ipc::ask::{inquired, inquiry};
use crate::proto::ipc::frame::Kind;
use crate::proto::ipc::outbox::Refused;
use crate::proto::ipc::{Addressee, Pid, Seat};

/// Calls in one message.
const NUMBERS_MAX: usize = 1000;

/// Whoever sat there has ended; None: nobody knows who has.
pub fn ended(seat: Option<Seat>) {
    let own = worker::with(|worker| {
        // what the dead had answered
        worker.look();
        (worker.me().seat, worker.table().current().0)
    });
    let Some((me, newest)) = own else { return };
    for (seat, numbers) in native::waiting(seat) {
        if seat == me {
            continue;
        }
        for numbers in numbers.chunks(NUMBERS_MAX) {
            for number in numbers {
                // nobody knows whom the dead would have woken
                worker::with(|worker| worker.expect(*number, 0));
            }
            // an old generation has no successors
            let gone = seat.generation < newest || unreachable(seat, numbers);
            for number in numbers.iter().filter(|_| gone) {
                native::note(*number, seat, Err(CallFailed::Died));
            }
        }
    }
}

fn unreachable(seat: Seat, numbers: &[u32]) -> bool {
    let data = inquiry(numbers);
    let letter = Letter { kind: Kind::Inquiry, call: 0, name: b"", data: &data };
    let send = |worker: &mut Worker| worker.send_seat(seat, Addressee::Seat, letter);
    let sent = rings::quietly(|| worker::with(send));
    native::soon();
    matches!(sent, None | Some(Err(Unsent::Nobody | Unsent::Refused(Refused::Gone))))
}

/// Answers for the calls of `sender` that are unknown here.
pub(super) fn answer(sender: Pid, numbers: &[u8]) {
    let asks = inquired(numbers).map(|call| Asker { process: sender, call });
    for ask in asks.filter(|ask| !actions::has(*ask)) {
        actions::refuse(ask, CallFailed::Died);
    }
}
