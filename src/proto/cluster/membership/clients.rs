//! The clients of this node: who joins after a dial-back, who beats, who falls silent, who is
//! reported as not answering.

use std::collections::BTreeMap;

use super::calls::Purpose;
use super::message::{Answer, Reason, Request};
use super::output::{Gone, Note, Output, Report, Token};
use super::standing::{CLIENT_ADDRESS_MAX, Client, Health};
use super::validity::Validity;
use super::{Membership, State, fingerprint};

/// Other supers that a full one names.
const REDIRECTS: usize = 8;

/// A client, and what is counted of it.
pub(super) struct Kid {
    pub client: Client,
    validity: Validity,
}

/// A node that wants to join.
pub(super) struct Join {
    pub id: String,
    pub epoch: u64,
    pub sequence: u64,
    pub to: String,
    pub subtree: u32,
}

/// A client that beats.
pub(super) struct Beat {
    pub epoch: u64,
    pub sequence: u64,
    pub subtree: u32,
    pub path: u64,
    pub refused: Option<(u64, Reason)>,
}

/// A dial-back: the node, and who waits.
pub(super) struct Dial {
    token: Token,
    address: String,
    nonce: u64,
    /// None where it was only reported.
    join: Option<Join>,
}

#[cfg(test)]
impl Dial {
    /// What must come back.
    pub(super) fn nonce(&self) -> u64 {
        self.nonce
    }
}

impl Membership {
    /// A node asks to be a client.
    pub(super) fn join(&mut self, now: u64, token: Token, join: Join) {
        if let Err(reason) = self.may_join(&join) {
            return self.refuse(token, &join.id, reason);
        }
        // known: it lost the answer, or its super for a moment
        let again = |kid: &&Kid| kid.client.epoch == join.epoch && !kid.client.reported;
        if self.clients.get(&join.id).filter(again).is_some() {
            return self.accept(now, token, join);
        }
        if self.dials().any(|dial| dial.address == join.id) {
            return self.join_again(token, join);
        }
        if self.dials().count() >= self.config.limits.dials {
            return self.answer(token, Answer::deny(Reason::Busy));
        }
        self.dial(now, token, join.id.clone(), Some(join));
    }

    /// A node asks again while it is being dialled: who asked first has given up.
    fn join_again(&mut self, token: Token, join: Join) {
        let mut waits = token;
        let joining = |dial: &&mut Dial| dial.address == join.id && dial.join.is_some();
        let dial = self.dials().find(joining);
        if let Some(dial) = dial {
            waits = std::mem::replace(&mut dial.token, token);
            dial.join = Some(join);
        }
        self.answer(waits, Answer::deny(Reason::Busy));
    }

    /// `reportHubPort`: the address of a node that says to be a client. It is one after a dial-back,
    /// until it has not been reported for some time, or until it joins by itself.
    pub fn report(&mut self, now: u64, token: Token, address: String) {
        let full = self.clients.len() >= self.config.limits.clients;
        let result = if let Some(kid) = self.clients.get_mut(&address) {
            kid.client.heard = now;
            let client = kid.client.clone();
            self.outputs.push_back(Output::Client(client));
            Ok(())
        } else if address == self.config.me || self.path().contains(&address) {
            Err(Reason::Loop)
        } else if address.len() > CLIENT_ADDRESS_MAX || !(self.allow)(&address) {
            Err(Reason::NotAllowed)
        } else if full {
            Err(Reason::Full)
        } else if self.dials().any(|dial| dial.address == address)
            || self.dials().count() >= self.config.limits.dials
        {
            Err(Reason::Busy)
        } else {
            return self.dial(now, token, address, None);
        };
        self.done(token, Report::Reported(result));
    }

    fn dial(&mut self, now: u64, token: Token, address: String, join: Option<Join>) {
        let nonce = self.random.next();
        let to = join.as_ref().map(|join| join.to.clone());
        let message = Request::Dial { id: self.config.me.clone(), to, nonce };
        let dial = Dial { token, address: address.clone(), nonce, join };
        self.call(now, address, message, Purpose::Dial(dial));
    }

    pub(super) fn dial_ended(&mut self, now: u64, dial: Dial, answer: Option<Answer>) {
        let Dial { token, address, nonce: asked, join } = dial;
        let found = match answer {
            Some(Answer::Dialled { id, epoch, nonce }) if nonce == asked && id == address => {
                Some(epoch)
            }
            _ => None,
        };
        match (join, found) {
            (Some(join), Some(epoch)) if epoch == join.epoch => match self.may_join(&join) {
                Ok(()) => self.accept(now, token, join),
                Err(reason) => self.refuse(token, &address, reason),
            },
            (Some(_), _) => self.refuse(token, &address, Reason::DialBack),
            (None, Some(epoch)) => {
                let full = self.clients.len() >= self.config.limits.clients;
                if !full && !self.clients.contains_key(&address) {
                    let client = Client {
                        address,
                        epoch,
                        heard: now,
                        subtree: 1,
                        reported: true,
                        ..Client::default()
                    };
                    self.keep(client);
                }
                let result = if full { Err(Reason::Full) } else { Ok(()) };
                self.done(token, Report::Reported(result));
            }
            (None, None) => self.done(token, Report::Reported(Err(Reason::DialBack))),
        }
    }

    /// Somebody was told that this node is here, and asks.
    pub(super) fn dialled(&self, to: Option<&str>, nonce: u64) -> Answer {
        let mine = to.is_none_or(|to| self.asks(to) || self.is_above(to));
        if !mine || matches!(self.state, State::Left) {
            return Answer::deny(Reason::NotAsked);
        }
        Answer::Dialled { id: self.config.me.clone(), epoch: self.config.epoch, nonce }
    }

    fn may_join(&self, join: &Join) -> Result<(), Reason> {
        let Join { id, epoch, to, .. } = join;
        let path = self.path();
        let known = self.clients.get(id).map(|kid| kid.client.epoch);
        // a router that goes on from the one before learns by its first heartbeat who is above
        let blind = matches!(&self.state, State::Joined(bond) if bond.path.is_empty());
        if matches!(self.state, State::Left) {
            Err(Reason::Leaving)
        } else if path.contains(id) || *to == *id || (self.asks(id) && *id > self.config.me) {
            // where two ask each other at once, the one with the higher name is the super
            Err(Reason::Loop)
        } else if blind && known.is_none() {
            Err(Reason::Busy)
        } else if id.len() > CLIENT_ADDRESS_MAX || !(self.allow)(id) {
            Err(Reason::NotAllowed)
        } else if known.is_some_and(|known| known > *epoch) {
            Err(Reason::StaleEpoch)
        } else if known.is_none() && self.clients.len() >= self.config.limits.clients {
            Err(Reason::Full)
        } else if path.len() >= self.depth() {
            Err(Reason::Depth)
        } else {
            Ok(())
        }
    }

    fn refuse(&mut self, token: Token, id: &str, reason: Reason) {
        let mut redirect = Vec::new();
        if reason == Reason::Full {
            let fit = |kid: &&Kid| kid.client.health == Health::Alive && !kid.client.reported;
            let mut kids: Vec<&Client> =
                self.clients.values().filter(fit).map(|kid| &kid.client).collect();
            kids.sort_by_key(|client| client.subtree);
            redirect.extend(kids.iter().take(REDIRECTS).map(|client| client.address.clone()));
        } else {
            self.note(Note::Refused { id: id.into(), reason });
        }
        self.answer(token, Answer::Deny { reason, redirect });
    }

    fn accept(&mut self, now: u64, token: Token, join: Join) {
        let Join { id: address, epoch, sequence, subtree, .. } = join;
        let known = self.clients.get(&address).filter(|kid| kid.client.epoch == epoch);
        let sequence = known.map_or(0, |kid| kid.client.sequence).max(sequence);
        let moving = self.moves(&address).is_some();
        let known = Client { moving, ..Client::default() };
        self.keep(Client { address, epoch, sequence, heard: now, subtree, ..known });
        let id = self.config.me.clone();
        let (epoch, heartbeat) = (self.config.epoch, self.config.times.heartbeat);
        let path = self.path();
        self.answer(token, Answer::Joined { id, epoch, path, heartbeat });
    }

    fn keep(&mut self, client: Client) {
        let kid = Kid { client: client.clone(), validity: Validity::default() };
        self.clients.insert(client.address.clone(), kid);
        self.outputs.push_back(Output::Client(client));
    }

    /// A client's heartbeat.
    pub(super) fn hear(&mut self, now: u64, id: &str, beat: Beat) -> Answer {
        if matches!(self.state, State::Left) {
            return Answer::deny(Reason::Leaving);
        }
        let Some(kid) = self.clients.get_mut(id).filter(|kid| !kid.client.reported) else {
            return Answer::Unknown;
        };
        let client = &mut kid.client;
        if beat.epoch < client.epoch {
            return Answer::deny(Reason::StaleEpoch);
        }
        if beat.epoch > client.epoch {
            return Answer::Unknown;
        }
        // one that was overtaken on its way says nothing new
        if beat.sequence > client.sequence {
            client.sequence = beat.sequence;
            (client.heard, client.health, client.subtree) = (now, Health::Alive, beat.subtree);
            let client = client.clone();
            self.outputs.push_back(Output::Client(client));
        }
        if let Some((number, reason)) = beat.refused {
            self.not_moved(now, id, number, reason);
        }
        if let Some((to, transfer)) = self.moves(id) {
            return Answer::Move { to, transfer };
        }
        let path = self.path();
        let path = (fingerprint(&path) != beat.path).then_some(path);
        Answer::Heard { id: self.config.me.clone(), epoch: self.config.epoch, path }
    }

    /// A client says that it is none any more.
    pub(super) fn left(&mut self, now: u64, id: &str, epoch: u64, sequence: u64) {
        let is = |kid: &&Kid| kid.client.epoch == epoch && kid.client.sequence < sequence;
        if self.clients.get(id).filter(is).is_some() {
            self.forget(now, id, Gone::Left);
        }
    }

    pub(super) fn forget(&mut self, now: u64, id: &str, why: Gone) {
        if self.clients.remove(id).is_some() {
            let why = self.mover_gone(now, id, why);
            self.forget_workers(id);
            self.outputs.push_back(Output::ClientGone { address: id.into(), why });
        }
    }

    /// A call to a client failed; where too many have, it is none any more.
    pub fn invalid_client(&mut self, now: u64, address: &str) {
        if self.clients.get_mut(address).is_some_and(|kid| kid.validity.failed(now)) {
            self.forget(now, address, Gone::Invalid);
            self.tell();
        }
    }

    /// A call to a client was answered.
    pub fn valid_client(&mut self, address: &str) {
        if let Some(kid) = self.clients.get_mut(address) {
            kid.validity.answered();
        }
    }

    /// Silence after which a client is suspect, and gone.
    fn patience(&self, client: &Client) -> (u64, u64) {
        let times = &self.config.times;
        let lease = if client.reported { times.reported } else { times.lease };
        (if client.reported { lease } else { times.suspect }, lease)
    }

    pub(super) fn next_silence(&self) -> Option<u64> {
        let due = |kid: &Kid| {
            let (suspect, lease) = self.patience(&kid.client);
            kid.client.heard + if kid.client.health == Health::Alive { suspect } else { lease }
        };
        self.clients.values().map(due).min()
    }

    pub(super) fn silent_clients(&mut self, now: u64) {
        let mut gone = Vec::new();
        let mut clients = std::mem::take(&mut self.clients);
        for (id, kid) in &mut clients {
            let silence = now.saturating_sub(kid.client.heard);
            let (suspect, lease) = self.patience(&kid.client);
            if silence >= lease {
                gone.push(id.clone());
            } else if silence >= suspect && kid.client.health == Health::Alive {
                kid.client.health = Health::Suspect;
                self.outputs.push_back(Output::Client(kid.client.clone()));
            }
        }
        self.clients = clients;
        for id in gone {
            self.forget(now, &id, Gone::Silent);
        }
    }

    /// Goes on with the clients that the router before had. They could not beat while there was none:
    /// each gets the time for a heartbeat.
    pub(super) fn restore_clients(
        &mut self,
        now: u64,
        clients: Vec<Client>,
        moving: Option<(String, u64)>,
    ) {
        let times = self.config.times;
        let kids = clients.into_iter().map(|mut client| {
            let earliest = now.saturating_sub(times.lease.saturating_sub(2 * times.heartbeat));
            client.heard = if client.reported { client.heard } else { client.heard.max(earliest) };
            client.heard = client.heard.min(now);
            let kid = Kid { client: client.clone(), validity: Validity::default() };
            (client.address, kid)
        });
        self.clients = kids.collect::<BTreeMap<_, _>>();
        self.restore_moving(now, moving);
    }
}
