//! What must hold once it is quiet.

use std::collections::{BTreeMap, BTreeSet};

use super::super::standing::Place;
use super::world::{World, name, number};

impl World {
    /// Who a node's super is, by its own account.
    pub fn above(&self, node: usize) -> Option<usize> {
        let member = self.nodes[node].member.as_ref()?;
        member.standing().above.map(|above| number(&above.address))
    }

    /// Whether all is well, and what is not. `roots` are those who have no super.
    pub fn check(&self, roots: &[usize]) -> Result<(), String> {
        let up: Vec<usize> = (0..self.nodes.len()).filter(|node| self.is_up(*node)).collect();
        let mut chains: BTreeMap<usize, Vec<String>> = BTreeMap::new();
        for &node in &up {
            let mut chain = vec![node];
            while let Some(above) = self.above(chain[chain.len() - 1]) {
                if chain.contains(&above) {
                    return Err(format!("a cycle through {above}"));
                }
                chain.push(above);
            }
            let top = chain[chain.len() - 1];
            if !roots.contains(&top) {
                return Err(format!("{node} is below {top}, which is no root"));
            }
            chains.insert(node, chain.iter().rev().map(|node| name(*node)).collect());
        }
        for &node in &up {
            self.check_node(node, &chains[&node])?;
        }
        let mut reached = BTreeMap::new();
        for root in roots.iter().filter(|root| self.is_up(**root)) {
            self.cast(*root, &mut reached, 0);
        }
        let missed = up.iter().find(|node| reached.get(node) != Some(&1));
        missed.map_or(Ok(()), |node| Err(format!("cast: {node} got {:?}", reached.get(node))))
    }

    fn check_node(&self, node: usize, chain: &[String]) -> Result<(), String> {
        let Some(member) = &self.nodes[node].member else { return Ok(()) };
        if member.path() != chain {
            return Err(format!("{node} has path {:?}, not {chain:?}", member.path()));
        }
        if member.snapshot() != self.nodes[node].zone() {
            let (here, zone) = (member.snapshot(), self.nodes[node].zone());
            return Err(format!("{node}'s zone has {zone:?}, not {here:?}"));
        }
        if let Some(above) = self.above(node) {
            let known = self.nodes[above].member.as_ref().into_iter().flat_map(|m| m.clients());
            let mine = known.into_iter().find(|client| client.address == name(node));
            let epoch = self.nodes[node].config.epoch;
            if mine.map(|client| client.epoch) != Some(epoch) {
                return Err(format!("{above} does not know {node}"));
            }
        }
        for client in member.clients() {
            let child = number(&client.address);
            if self.above(child) != Some(node) || client.epoch != self.nodes[child].config.epoch {
                return Err(format!("{node} has a stale client {child}"));
            }
        }
        Ok(())
    }

    /// A cast down the tree, as the tables say it.
    pub fn cast(&self, node: usize, reached: &mut BTreeMap<usize, u32>, depth: usize) {
        let Some(member) = self.nodes[node].member.as_ref().filter(|_| depth < 64) else { return };
        *reached.entry(node).or_default() += 1;
        for client in member.clients() {
            self.cast(number(&client.address), reached, depth + 1);
        }
    }

    /// Plays until all is well; how long it took.
    pub fn settle(&mut self, roots: &[usize], at_most: u64) -> u64 {
        let begin = self.now;
        loop {
            match self.check(roots) {
                Ok(()) => return self.now - begin,
                Err(wrong) if self.now - begin >= at_most => {
                    panic!("not settled after {at_most} ms: {wrong}")
                }
                Err(_) => self.run(self.now + 100),
            }
        }
    }

    /// Plays on; all must be well all the time.
    pub fn stays(&mut self, roots: &[usize], millis: u64) {
        let end = self.now + millis;
        while self.now < end {
            self.run(self.now + 500);
            if let Err(wrong) = self.check(roots) {
                panic!("{wrong}, at {}", self.now);
            }
        }
    }

    /// Nodes without a super.
    pub fn tops(&self) -> BTreeSet<usize> {
        let up = (0..self.nodes.len()).filter(|node| self.is_up(*node));
        up.filter(|node| self.above(*node).is_none()).collect()
    }

    /// Nodes that wait for a super.
    pub fn orphans(&self) -> usize {
        let members = self.nodes.iter().filter_map(|node| node.member.as_ref());
        let places = members.map(|member| member.standing().place);
        places.filter(|place| matches!(place, Place::Detached | Place::Joining)).count()
    }
}
