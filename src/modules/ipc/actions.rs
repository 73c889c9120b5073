//! The actions that this worker answers over the rings: built-in ones, which are Rust, and those
//! whose Lua functions are known to `functions`. Asks are taken in while the mailbox is drained and
//! worked on from a posted event, so that an action may itself send and call.

use std::cell::RefCell;
use std::collections::VecDeque;

use foldhash::HashMap;

use super::functions;
use super::native::{self, Ask, Asker, CallFailed, Reply};
use crate::modules::say;
use crate::ngx::guard::guard;
use crate::ngx::log::Level;
use crate::proto::ipc::ask;

/// A built-in action: answers by what it is given, now or later.
pub type Builtin = fn(&Ask<'_>, Due);

/// Buffers kept for the next asks, and the longest that is kept.
const SPARE: (usize, usize) = (64, 64 << 10);
/// Bookkeeping that an ask costs beside its bytes.
const OVERHEAD: usize = 128;

/// An ask that has been taken in.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) asker: Asker,
    /// The message's name, then its data.
    bytes: Vec<u8>,
    name: usize,
}

impl Work {
    /// What is asked.
    pub(super) fn ask(&self) -> Option<Ask<'_>> {
        let (name, data) = self.bytes.split_at_checked(self.name)?;
        Ask::decode(name, data)
    }

    fn size(&self) -> usize {
        OVERHEAD + self.bytes.len()
    }
}

/// The answer that a built-in action owes. Dropped without one, it answers that there is none.
#[derive(Debug)]
pub struct Due(Option<Asker>);

impl Due {
    /// Gives it.
    pub fn give(mut self, status: u16, body: &[u8]) {
        self.answer(status, body);
    }

    fn answer(&mut self, status: u16, body: &[u8]) {
        let Some(asker) = self.0.take() else { return };
        with(|actions| actions.owed.retain(|owed| *owed != asker));
        if !native::give(asker, Ok(Reply { status, body })) {
            say::say(Level::Warn, "action's answer", "that of a built-in action could not be sent");
        }
    }
}

impl Drop for Due {
    fn drop(&mut self) {
        self.answer(500, b"the action gave no answer");
    }
}

#[derive(Default)]
struct Actions {
    builtins: HashMap<&'static [u8], Builtin>,
    /// `CHANNEL NUL ACTION` of the functions in Lua.
    functions: HashMap<Box<[u8]>, u32>,
    /// Asks that wait, and their bytes.
    for_rust: VecDeque<(Builtin, Work)>,
    for_lua: VecDeque<(u32, Work)>,
    bytes: usize,
    /// Most of them.
    limit: usize,
    refused: VecDeque<(Asker, CallFailed)>,
    /// Of built-in actions that have begun.
    owed: Vec<Asker>,
    spare: Vec<Vec<u8>>,
}

thread_local! {
    static ACTIONS: RefCell<Actions> = RefCell::default();
}

fn with<R>(f: impl FnOnce(&mut Actions) -> R) -> Option<R> {
    ACTIONS.try_with(|actions| f(&mut actions.borrow_mut())).ok()
}

/// Makes `action` a built-in one, of every channel, in this worker. It comes before a Lua function
/// of that name.
pub fn register_builtin(name: &'static str, action: Builtin) {
    native::use_it();
    with(|actions| actions.builtins.insert(name.as_bytes(), action));
}

/// Whether this worker answers that action without a request: the built-in ones aside, a Lua
/// function is registered for it.
pub fn has_function(channel: &[u8], action: &[u8]) -> bool {
    let mut name = Vec::new();
    if ask::key(&mut name, channel, action).is_none() {
        return false;
    }
    with(|actions| actions.functions.contains_key(&name[..])) == Some(true)
}

/// Whether there is any in this worker.
pub fn any_function() -> bool {
    with(|actions| !actions.functions.is_empty()) == Some(true)
}

/// Says which Lua function answers an action, by its number; 0 is none. False: not a name.
pub(super) fn set_function(channel: &[u8], action: &[u8], function: u32) -> bool {
    native::use_it();
    let mut name = Vec::new();
    if ask::key(&mut name, channel, action).is_none() {
        return false;
    }
    with(|actions| match function {
        0 => actions.functions.remove(&name[..]),
        number => actions.functions.insert(name.into(), number),
    });
    true
}

/// Takes an ask in; Err: it is answered so.
pub(super) fn ask(asker: Asker, name: &[u8], data: &[u8]) -> Result<(), CallFailed> {
    let action = name.iter().position(|byte| *byte == 0).and_then(|nul| name.get(nul + 1..));
    let action = action.ok_or(CallFailed::Name)?;
    let taken = with(|actions| {
        let builtin = actions.builtins.get(action).copied();
        let function = actions.functions.get(name).copied();
        if builtin.is_none() && function.is_none() {
            return Err(CallFailed::NoAction);
        }
        if actions.bytes.saturating_add(OVERHEAD + name.len() + data.len()) > actions.limit {
            return Err(CallFailed::Full);
        }
        let mut bytes = actions.spare.pop().unwrap_or_default();
        bytes.extend_from_slice(name);
        bytes.extend_from_slice(data);
        let work = Work { asker, bytes, name: name.len() };
        actions.bytes += work.size();
        match (builtin, function) {
            (Some(builtin), _) => actions.for_rust.push_back((builtin, work)),
            (None, function) => actions.for_lua.push_back((function.unwrap_or(0), work)),
        }
        Ok(())
    });
    taken.unwrap_or(Err(CallFailed::Gone))?;
    native::soon();
    Ok(())
}

impl Actions {
    fn spare(&mut self, mut work: Work) {
        if self.spare.len() < SPARE.0 && work.bytes.capacity() <= SPARE.1 {
            work.bytes.clear();
            self.spare.push(work.bytes);
        }
    }
}

/// An ask that could not be taken in is answered so, soon.
pub(super) fn refuse(asker: Asker, why: CallFailed) {
    with(|actions| actions.refused.push_back((asker, why)));
    native::soon();
}

/// Whether that ask has been taken in and not been answered.
pub(super) fn has(asker: Asker) -> bool {
    let waits = with(|actions| {
        let for_rust = actions.for_rust.iter().any(|(_, work)| work.asker == asker);
        let for_lua = actions.for_lua.iter().any(|(_, work)| work.asker == asker);
        let refused = actions.refused.iter().any(|(refused, _)| *refused == asker);
        for_rust || for_lua || refused || actions.owed.contains(&asker)
    });
    waits == Some(true) || functions::has(asker)
}

/// The next ask for a Lua function, by its number.
pub(super) fn next_for_lua() -> Option<(u32, Work)> {
    with(|actions| {
        let (function, work) = actions.for_lua.pop_front()?;
        actions.bytes -= work.size();
        Some((function, work))
    })?
}

/// Whether there is one.
pub(super) fn any_for_lua() -> bool {
    with(|actions| !actions.for_lua.is_empty()) == Some(true)
}

/// An ask that has been answered.
pub(super) fn done(work: Work) {
    with(|actions| actions.spare(work));
}

/// Answers what Rust answers, and wakes who answers in Lua.
pub(super) fn work() {
    functions::wake();
    while let Some(Some((asker, why))) = with(|actions| actions.refused.pop_front()) {
        native::give(asker, Err(why));
    }
    while let Some(Some((builtin, work))) = with(|actions| actions.for_rust.pop_front()) {
        let due = Due(Some(work.asker));
        with(|actions| actions.owed.push(work.asker));
        if let Some(ask) = work.ask() {
            guard("built-in action", (), || builtin(&ask, due));
        }
        with(|actions| {
            actions.bytes -= work.size();
            actions.spare(work);
        });
    }
}

/// At most so many bytes wait.
pub(super) fn enter(limit: usize) {
    with(|actions| actions.limit = limit);
}

/// The event loop has ended: nothing is answered any more.
pub(super) fn close() {
    drop(with(|actions| {
        actions.refused.clear();
        actions.owed.clear();
        (std::mem::take(&mut actions.for_rust), std::mem::take(&mut actions.for_lua))
    }));
}
