//! What is between the nodes.

use std::collections::BTreeSet;

use super::super::random::Random;

/// What becomes of a message.
pub enum Fate {
    /// It comes after so many milliseconds.
    Arrives(u64),
    /// It does not, and nobody is told.
    Lost,
}

/// The links between all nodes.
#[derive(Default)]
pub struct Network {
    /// Messages lost, in 1/1000.
    pub loss: u64,
    /// Nodes whose messages take half a second longer.
    pub slow: BTreeSet<usize>,
    /// Pairs whose messages are lost, the first the sender.
    pub cuts: BTreeSet<(usize, usize)>,
    /// Nodes on the other side of a partition.
    pub island: BTreeSet<usize>,
}

impl Network {
    /// What becomes of a message now.
    pub fn send(&self, random: &mut Random, from: usize, to: usize) -> Fate {
        let apart = self.island.contains(&from) != self.island.contains(&to);
        if apart || self.cuts.contains(&(from, to)) || random.below(1000) < self.loss {
            return Fate::Lost;
        }
        let slow = self.slow.contains(&from) || self.slow.contains(&to);
        Fate::Arrives(1 + random.below(10) + if slow { 200 + random.below(400) } else { 0 })
    }

    /// As it was at the beginning.
    pub fn heal(&mut self) {
        *self = Network::default();
    }
}
