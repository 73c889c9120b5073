//! The node table: per channel this node's super and its clients, written by the router alone, read
//! by any worker at any time; and this node's epoch. `modules::cluster` mirrors into it what
//! `proto::cluster::membership` decided, and a new router goes on from it.
//!
//! A record has two copies. The writer fills the one that nobody is sent to, and then sends readers
//! there: a writer that is killed anywhere has changed nothing. Two routers may overlap, and one of
//! them may wake up after hours in the middle of a write; what it scribbles does not pass the sum of
//! the copy, and readers take the other one until the record is written again.

#[cfg(all(test, loom))]
mod loom_tests;
mod packed;
mod record;
#[cfg(all(test, not(loom)))]
mod tests;

use super::Word;
use super::atomic::{AtomicU64, Ordering};
use crate::proto::cluster::membership::standing::{Client, Snapshot, Standing};
use crate::proto::ipc::Pid;
use packed::{CHANNEL_BODY, CLIENT_BODY};
use record::Record;

/// Channels of a node.
pub const CHANNELS: usize = 32;
/// Longest name of a channel, in bytes.
pub const CHANNEL_NAME_MAX: usize = 64;
/// Clients in all channels together, where nothing else is set.
pub const CLIENTS: usize = 1024;

const HEAD: usize = 8;
const CHANNEL: usize = record::words(CHANNEL_BODY);
const CLIENT: usize = record::words(CLIENT_BODY);
/// Changes with every change of the layout.
const MAGIC: u64 = 0x6e67_6363_6e6f_6401;

/// Why something was not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// All places are taken.
    #[error("the node table is full")]
    Full,
    /// A name or an address is empty or longer than there is room for.
    #[error("a name or an address is too long")]
    TooLong,
    /// There is no such channel.
    #[error("no such channel")]
    NoChannel,
    /// Another process writes, too: it is the router now, or was it and has not noticed.
    #[error("another router writes to the node table")]
    Overtaken,
}

/// A channel's number in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChannelId(u8);

/// The table, as one process sees it.
#[derive(Clone, Copy)]
pub struct Nodes<'m> {
    me: Pid,
    epoch: &'m AtomicU64,
    head: &'m [AtomicU64],
    channels: &'m [AtomicU64],
    clients: &'m [AtomicU64],
}

impl<'m> Nodes<'m> {
    /// Bytes of a table for so many clients.
    pub const fn room(clients: usize) -> usize {
        (HEAD + CHANNELS * CHANNEL + clients * CLIENT) * 8
    }

    /// Marks zeroed memory as an empty table, before any other process sees it. `epoch` is
    /// the time of the master's start, so that it grows; a clock that was set back makes supers
    /// refuse the node until they have forgotten its life before.
    pub fn init(memory: &'m [Word], me: Pid, epoch: u64) -> Option<Self> {
        let nodes = Nodes::over(super::several(memory, memory.len())?, me)?;
        let [magic, size, ..] = nodes.head else { return None };
        nodes.epoch.store(epoch.max(1), Ordering::Relaxed);
        size.store(memory.len() as u64, Ordering::Relaxed);
        magic.store(MAGIC, Ordering::Release); // pairs with attach()
        Some(nodes)
    }

    /// A table that [`Nodes::init`] made, of this size and layout.
    pub fn attach(memory: &'m [Word], me: Pid) -> Option<Self> {
        let nodes = Nodes::over(super::several(memory, memory.len())?, me)?;
        let [magic, size, ..] = nodes.head else { return None };
        let fits = magic.load(Ordering::Acquire) == MAGIC // pairs with init()
            && size.load(Ordering::Relaxed) == memory.len() as u64;
        fits.then_some(nodes)
    }

    fn over(words: &'m [AtomicU64], me: Pid) -> Option<Self> {
        let (head, rest) = words.split_at_checked(HEAD)?;
        let (channels, rest) = rest.split_at_checked(CHANNELS * CHANNEL)?;
        let clients = rest.get(..rest.len() / CLIENT * CLIENT)?;
        let [_, _, epoch, ..] = head else { return None };
        Some(Nodes { me, epoch, head, channels, clients })
    }

    /// This node's epoch: another one after each start of the master, the same over reloads.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Relaxed) // set before anybody else sees the table
    }

    /// How many clients there is room for, in all channels together.
    pub fn capacity(&self) -> usize {
        self.clients.len() / CLIENT
    }

    /// The channel of that name.
    pub fn channel(&self, name: &str) -> Option<ChannelId> {
        self.named().find(|(_, known, _)| known == name).map(|(id, ..)| id)
    }

    /// All channels: number, name, and what this node is there.
    pub fn channels(&self) -> Vec<(ChannelId, String, Standing)> {
        self.named().collect()
    }

    fn named(&self) -> impl Iterator<Item = (ChannelId, String, Standing)> + use<'m> {
        (0..).zip(records(self.channels, CHANNEL)).filter_map(|(id, record)| {
            let (name, standing) = packed::channel(&record.read()?)?;
            Some((ChannelId(id), name, standing))
        })
    }

    /// What this node is in a channel.
    pub fn standing(&self, id: ChannelId) -> Option<Standing> {
        packed::channel(&self.record(id)?.read()?).map(|(_, standing)| standing)
    }

    /// Calls `show` with each client of a channel. Each is shown as it was at one instant; one that
    /// comes or goes meanwhile may be shown or not.
    pub fn clients(&self, id: ChannelId, mut show: impl FnMut(Client)) {
        for record in records::<CLIENT_BODY>(self.clients, CLIENT) {
            let body = record.read().filter(|body| packed::channel_of(body) == Some(id.0));
            if let Some(client) = body.as_ref().and_then(packed::client) {
                show(client);
            }
        }
    }

    /// The same, with the clients of all channels in one go.
    pub fn all_clients(&self, mut show: impl FnMut(ChannelId, Client)) {
        for record in records::<CLIENT_BODY>(self.clients, CLIENT) {
            let Some(body) = record.read() else { continue };
            if let (Some(id), Some(client)) = (packed::channel_of(&body), packed::client(&body)) {
                show(ChannelId(id), client);
            }
        }
    }

    /// All that a new router needs to go on in a channel.
    pub fn snapshot(&self, id: ChannelId) -> Option<Snapshot> {
        let mut snapshot = Snapshot { standing: self.standing(id)?, clients: Vec::new() };
        self.clients(id, |client| snapshot.clients.push(client));
        Some(snapshot)
    }

    /// The number of that channel, which is made if there is none. Router only, as all that follow.
    pub fn open(&self, name: &str) -> Result<ChannelId, WriteError> {
        if let Some(id) = self.channel(name) {
            return Ok(id);
        }
        let body = packed::pack_channel(name, &Standing::default()).ok_or(WriteError::TooLong)?;
        let free = |record: &Record<'_, CHANNEL_BODY>| {
            record.read().as_ref().and_then(packed::channel).is_none()
        };
        let records = (0..).zip(records::<CHANNEL_BODY>(self.channels, CHANNEL));
        let (id, record) =
            records.into_iter().find(|(_, record)| free(record)).ok_or(WriteError::Full)?;
        self.forget_clients(ChannelId(id))?; // of a channel that was closed half
        record.write(self.me, &body)?;
        Ok(ChannelId(id))
    }

    /// Forgets a channel and its clients.
    pub fn close(&self, id: ChannelId) -> Result<(), WriteError> {
        let record = self.record(id).ok_or(WriteError::NoChannel)?;
        record.write(self.me, &[0; CHANNEL_BODY])?;
        self.forget_clients(id)
    }

    fn forget_clients(&self, id: ChannelId) -> Result<(), WriteError> {
        for record in records::<CLIENT_BODY>(self.clients, CLIENT) {
            if record.read().is_some_and(|body| packed::channel_of(&body) == Some(id.0)) {
                record.write(self.me, &[0; CLIENT_BODY])?;
            }
        }
        Ok(())
    }

    /// Says what this node is in a channel.
    pub fn set_standing(&self, id: ChannelId, standing: &Standing) -> Result<(), WriteError> {
        let record = self.record(id).ok_or(WriteError::NoChannel)?;
        let known = record.read().as_ref().and_then(packed::channel);
        let (name, _) = known.ok_or(WriteError::NoChannel)?;
        record.write(self.me, &packed::pack_channel(&name, standing).ok_or(WriteError::TooLong)?)
    }

    /// Says how a client is; it is put into the table if it is not there.
    pub fn set_client(&self, id: ChannelId, client: &Client) -> Result<(), WriteError> {
        let body = packed::pack_client(id.0, client).ok_or(WriteError::TooLong)?;
        let record = match self.find(&body) {
            Some(record) => record,
            None => self.free().ok_or(WriteError::Full)?,
        };
        record.write(self.me, &body)
    }

    /// Forgets a client.
    pub fn remove_client(&self, id: ChannelId, address: &str) -> Result<(), WriteError> {
        let client = Client { address: address.into(), ..Client::default() };
        let body = packed::pack_client(id.0, &client).ok_or(WriteError::TooLong)?;
        // all of them: two routers that overlapped may have put it there twice
        while let Some(record) = self.find(&body) {
            record.write(self.me, &[0; CLIENT_BODY])?;
        }
        Ok(())
    }

    fn record(&self, ChannelId(id): ChannelId) -> Option<Record<'m, CHANNEL_BODY>> {
        Record::over(self.channels.chunks_exact(CHANNEL).nth(id.into())?)
    }

    fn find(&self, like: &[u64; CLIENT_BODY]) -> Option<Record<'m, CLIENT_BODY>> {
        records(self.clients, CLIENT).find(|record: &Record<'_, CLIENT_BODY>| {
            record.read().is_some_and(|body| packed::is_same_client(&body, like))
        })
    }

    fn free(&self) -> Option<Record<'m, CLIENT_BODY>> {
        records(self.clients, CLIENT).find(|record: &Record<'_, CLIENT_BODY>| {
            record.read().is_none_or(|body| packed::channel_of(&body).is_none())
        })
    }
}

fn records<const BODY: usize>(
    words: &[AtomicU64],
    each: usize,
) -> impl Iterator<Item = Record<'_, BODY>> {
    words.chunks_exact(each).filter_map(Record::over)
}
