//! What a request goes to: a list in turn, or the peers of a hash, the heaviest for the key first.

use std::cell::RefCell;
use std::rc::Rc;

use super::candidates::{self, Candidates};
use crate::ngx::upstream::{Slot, Target, Targets};
use crate::proto::listen::Address;
use crate::proto::upstream::failures::Policy;
use crate::proto::upstream::rendezvous;
use crate::proto::upstream::tries::Try;

/// What a request keeps.
#[derive(Default)]
pub struct Kept {
    /// The hooks' part.
    pub slot: Slot,
    /// What Lua asked for; holds for every upstream of the request that comes later.
    pub asked: RefCell<Option<Box<Asked>>>,
    /// In the upstream that the request is in.
    pub current: RefCell<Choice>,
    /// What Lua is being told.
    pub told: RefCell<Vec<Try>>,
}

/// Lua's part of it.
#[derive(Default)]
pub struct Asked {
    /// Being listed.
    pub pending: Vec<Address>,
    /// The peers, in turn.
    pub peers: Option<Targets>,
    /// More tries.
    pub more: Option<usize>,
    /// Milliseconds to connect, send, read.
    pub timeouts: [Option<usize>; 3],
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
        /// How many were given out.
        given: usize,
    },
    /// To the heaviest for the key, then the next.
    Hashed {
        /// The upstream's name as a number: its failures are its own.
        upstream: u64,
        /// The key as a number.
        key: u64,
        /// Who there is.
        peers: Rc<Candidates>,
        /// Who was given out, the last one last.
        tried: Vec<usize>,
    },
}

impl Choice {
    /// Of a list.
    pub fn list(peers: Targets) -> Choice {
        Choice::List { peers, given: 0 }
    }

    /// Of a key; without one, by turns.
    pub fn hashed(upstream: &[u8], key: Option<&[u8]>, peers: Rc<Candidates>) -> Choice {
        let key = key.map_or_else(candidates::turn, rendezvous::number);
        Choice::Hashed { upstream: rendezvous::number(upstream), key, peers, tried: Vec::new() }
    }

    /// How many peers there are; None leaves it to the method.
    pub fn peers(&self) -> Option<usize> {
        match self {
            Choice::Method => None,
            Choice::List { peers, .. } => Some(peers.len()),
            Choice::Hashed { peers, .. } => Some(peers.count()),
        }
    }

    /// The next address; None when no peer is live.
    pub fn next(&mut self, policy: Policy) -> Option<Rc<Target>> {
        match self {
            Choice::Method => None,
            Choice::List { peers, given } => {
                let peer = peers.get(*given % peers.len().max(1)).cloned();
                *given = given.wrapping_add(1);
                peer
            }
            Choice::Hashed { upstream, key, peers, tried } => {
                let failed = failed(*upstream, peers, policy);
                let mut place =
                    peers.heaviest(*key, |place| !tried.contains(&place) && !failed(place));
                if place.is_none() && !tried.is_empty() {
                    // all had their turn: from the first again
                    tried.clear();
                    place = peers.heaviest(*key, |place| !failed(place));
                }
                let place = place?;
                tried.push(place);
                candidates::taken(peers.failure_key(*upstream, place), policy);
                peers.peer(place)
            }
        }
    }

    /// The peer that was given out last failed or did well; its address when it counts as failed
    /// from now on.
    pub fn ended(&self, policy: Policy, failed: bool) -> Option<&Target> {
        let Choice::Hashed { upstream, peers, tried, .. } = self else { return None };
        let place = *tried.last()?;
        let news = candidates::ended(peers.failure_key(*upstream, place), policy, failed);
        (news && peers.count() > 1).then(|| peers.get(place)).flatten()
    }
}

/// Whether a peer is passed over; nginx, too, does not do that to the only one.
fn failed(upstream: u64, peers: &Candidates, policy: Policy) -> impl Fn(usize) -> bool {
    let several = peers.count() > 1;
    move |place| several && candidates::is_failed(peers.failure_key(upstream, place), policy)
}
