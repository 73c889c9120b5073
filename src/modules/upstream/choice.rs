//! What a request goes to: a list in turn, or the peers of a hash, the heaviest for the key first.

use std::cell::RefCell;
use std::rc::Rc;

use super::candidates::{self, Candidates, Failing};
use super::settings::Conf;
use crate::modules::http::Http;
use crate::ngx::upstream::{Slot, Target, Targets, Timeouts};
use crate::proto::listen::Address;
use crate::proto::upstream::rendezvous;
use crate::proto::upstream::tries::Try;

/// What a request keeps.
#[derive(Default)]
pub struct Kept {
    /// The hooks' part.
    pub slot: Slot<Http>,
    /// What Lua asked for; holds for every upstream of the request that comes later.
    pub asked: RefCell<Option<Box<Asked>>>,
    /// In the upstream that the request is in.
    pub current: RefCell<Choice>,
}

/// Lua's part of it.
#[derive(Default)]
pub struct Asked {
    /// Being listed.
    pub pending: Vec<Address>,
    /// The peers, in turn.
    pub peers: Option<Targets>,
    /// More tries.
    pub more: Option<u16>,
    /// Of this request.
    pub timeouts: Timeouts,
    /// What Lua is being told.
    pub told: Vec<Try>,
}

/// Where a request goes.
#[derive(Default)]
pub enum Choice {
    /// Where the upstream's own method says.
    #[default]
    Method,
    /// To these in turn.
    List {
        /// Not empty.
        peers: Targets,
        /// The place of the next.
        next: u32,
    },
    /// To the heaviest for the key, then the next.
    Hashed {
        /// The key as a number.
        key: u64,
        /// Who there is.
        peers: Rc<Candidates>,
        /// Whose turn it was.
        last: Option<u32>,
    },
}

impl Choice {
    /// Of a list.
    pub fn list(peers: Targets) -> Choice {
        Choice::List { peers, next: 0 }
    }

    /// Of a key; without one, by turns.
    pub fn hashed(key: Option<&[u8]>, peers: Rc<Candidates>) -> Choice {
        let key = key.map_or_else(candidates::turn, rendezvous::number);
        Choice::Hashed { key, peers, last: None }
    }

    /// How many peers there are; None leaves it to the method.
    pub fn peers(&self) -> Option<u32> {
        match self {
            Choice::Method => None,
            Choice::List { peers, .. } => Some(peers.len() as u32),
            Choice::Hashed { peers, .. } => Some(peers.count() as u32),
        }
    }

    /// The next address; None when no peer is live.
    pub fn next(&mut self, conf: &Conf) -> Option<Rc<Target>> {
        match self {
            Choice::Method => None,
            Choice::List { peers, next } => {
                let peer = peers.get(*next as usize).or_else(|| {
                    *next = 0;
                    peers.first()
                });
                *next += 1;
                peer.cloned()
            }
            Choice::Hashed { key, peers, last } => {
                let failures = Failing::of(conf, peers);
                let free = |place: usize| !failures.passes_over(place);
                let place = match peers.after(*key, *last, free) {
                    // all had their turn: from the first again
                    None if last.is_some() => peers.after(*key, None, free)?,
                    place => place?,
                };
                *last = Some(place as u32);
                failures.taken(place);
                peers.peer(place)
            }
        }
    }

    /// The peer that was given out last failed or did well; its address when it counts as failed
    /// from now on.
    pub fn ended(&self, conf: &Conf, failed: bool) -> Option<&Target> {
        let Choice::Hashed { peers, last, .. } = self else { return None };
        let place = (*last)? as usize;
        let news = Failing::of(conf, peers).ended(place, failed);
        (news && peers.count() > 1).then(|| peers.get(place)).flatten()
    }
}
