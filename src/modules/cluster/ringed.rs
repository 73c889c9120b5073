//! Built-in actions as workers of this node ask each other for them, over the rings: those that a cast
//! may have. Who asks has seen to it that they may be asked for.

use super::channel::Channel;
use super::{builtin, function, settings, stat, workers};
use crate::modules::ipc::actions::{self, Due};
use crate::modules::ipc::native::{self, Ask};
use crate::ngx::respond::Response;
use crate::proto::cluster::action::UNKNOWN_CHANNEL;
use crate::proto::cluster::builtin::{BuiltIn, Command, command};
use crate::proto::cluster::query;

/// The action as a worker that is not the router sends it on. No request has it.
const SENT_ON: &str = "transferServer at the router";

/// This worker answers them from now on.
pub fn init_process() {
    // where no channel is declared nobody asks, and messages for Lua need not be looked behind
    if settings().is_some_and(|settings| !settings.channels().is_empty()) {
        actions::register_builtin(BuiltIn::GetServiceStat.name(), run);
        actions::register_builtin(BuiltIn::TransferServer.name(), run);
        actions::register_builtin(SENT_ON, run);
    }
}

/// The built-in action that a query means, whatever the location: its first argument. Of Lua's own
/// channels Lua decides.
pub fn named(channel: &Channel, query: &[u8]) -> Option<Vec<u8>> {
    let first = query::parse(query).next().filter(|_| !channel.lua)?;
    let action = BuiltIn::named(&first.name).filter(|action| action.may_be_cast())?;
    Some(action.name().as_bytes().to_vec())
}

fn run(ask: &Ask<'_>, due: Due) {
    let done = |due: Due| move |answer: Response| due.give(answer.status, &answer.body);
    let Some(channel) = Channel::named(ask.channel) else {
        return done(due)(Response::text(403, UNKNOWN_CHANNEL));
    };
    let sent_on = ask.action == SENT_ON.as_bytes();
    let action = if sent_on { Some(BuiltIn::TransferServer) } else { BuiltIn::named(ask.action) };
    let Some(action) = action else { return };
    let timeouts = channel.own_timeouts();
    match command(action, ask.args, None) {
        Err(why) => done(due)(Response::text(400, &why.to_string())),
        Ok(Command::Stat { self_only }) => {
            stat::tell(&channel, timeouts, self_only, ask.args, done(due));
        }
        Ok(Command::Transfer(to)) if workers::am_router() => {
            builtin::transfer(&channel.name, to, done(due));
        }
        Ok(Command::Transfer(_)) => send_on(ask, timeouts.whole() as u64, due),
        // no other one is registered
        Ok(_) => {}
    }
}

fn send_on(ask: &Ask<'_>, time: u64, due: Due) {
    let again = ask.action == SENT_ON.as_bytes();
    let Some(router) = workers::router().filter(|_| !again) else {
        return due.give(503, b"the router moves\n");
    };
    let ask = Ask { action: SENT_ON.as_bytes(), ..*ask };
    let sent = native::call(router.seat.worker, &ask, time, move |result| match result {
        Ok(reply) => due.give(reply.status, reply.body),
        Err(why) => due.give(function::status(why), why.words().as_bytes()),
    });
    sent.detach();
}
