//! The tables of nodes, of those who call and of failed peers, in memory that somebody scribbles on.

use ngx_http_cc_module::proto::cluster::membership::Config;
use ngx_http_cc_module::proto::cluster::membership::Membership;
use ngx_http_cc_module::proto::cluster::membership::standing::{Client, Standing};
use ngx_http_cc_module::proto::cluster::window::Stamp;
use ngx_http_cc_module::proto::ipc::Pid;
use ngx_http_cc_module::proto::upstream::failures::Policy;
use ngx_http_cc_module::shm::at;
use ngx_http_cc_module::shm::failures::Failures;
use ngx_http_cc_module::shm::nodes::Nodes;
use ngx_http_cc_module::shm::peers::{Peers, room};

use crate::input::Input;
use crate::memory::Memory;

/// Takes any bytes.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    match input.byte() % 3 {
        0 => nodes(input),
        1 => callers(input),
        _ => failures(input),
    }
}

fn nodes(mut input: Input<'_>) {
    let memory = Memory::new(Nodes::room(16));
    let Some(nodes) = Nodes::init(memory.words(), Pid(7), 5) else { panic!("no room") };
    while !input.is_empty() {
        let name = format!("c{}", input.byte() % 4);
        match input.byte() % 7 {
            0 | 1 => memory.scribble(&mut input),
            2 => {
                if let Ok(id) = nodes.open(&name) {
                    let client = Client { address: input.string(64), ..Client::default() };
                    let _ =
                        (nodes.set_client(id, &client), nodes.remove_client(id, &input.string(64)));
                    let standing =
                        Standing { moved: Some(input.string(64)), ..Standing::default() };
                    let _ = nodes.set_standing(id, &standing);
                }
            }
            3 => {
                let _ = nodes.channel(&name).map(|id| nodes.close(id));
            }
            4 => {
                // a router goes on from what it finds
                let Some(snapshot) = nodes.channel(&name).and_then(|id| nodes.snapshot(id)) else {
                    continue;
                };
                let config = Config::new("10.0.0.1:80", 5, vec!["10.0.0.2:80".into()]);
                let now = u64::from(input.byte());
                let mut node = Membership::restore(config, 1, now, Box::new(|_| true), snapshot);
                for _ in 0..10 {
                    let Some(next) = node.next_wake() else { break };
                    node.wake(next);
                    while node.output().is_some() {}
                }
            }
            5 => {
                if let Some(id) = nodes.channel(&name) {
                    let mut clients = 0;
                    nodes.clients(id, |_| clients += 1);
                    assert!(clients <= nodes.capacity());
                }
            }
            _ => drop((
                nodes.channels(),
                nodes.epoch(),
                Nodes::attach(memory.words(), Pid(8)).is_some(),
            )),
        }
    }
}

fn callers(mut input: Input<'_>) {
    let memory = Memory::new(room(16));
    if !Peers::<fn(Pid) -> bool>::init(memory.words(), 5, [1; 32]) {
        panic!("no room");
    }
    let mut now = 0u64;
    while !input.is_empty() {
        let Some(peers) = Peers::attach(memory.words(), Pid(7), |_| false) else { return };
        now = now.wrapping_add(u64::from(input.byte()));
        match input.byte() % 5 {
            0 | 1 => memory.scribble(&mut input),
            2 => {
                let _ = peers.next(input.text(70), None, now);
            }
            3 => {
                let stamp = Stamp { epoch: input.word(), counter: input.word(), nonce: None };
                let _ = peers.admit(input.text(70), stamp, now, [1; 16]);
            }
            _ => {
                let _ = (peers.len(), peers.key(), peers.epoch());
            }
        }
    }
}

fn failures(mut input: Input<'_>) {
    let memory = Memory::new(Failures::SIZE);
    if input.byte() % 4 == 0 {
        memory.fill(&mut input);
    }
    let Some(table) = at::<Failures>(memory.words()) else { panic!("no room") };
    while !input.is_empty() {
        let (peer, now) = (input.word(), input.word());
        let policy =
            Policy { max_fails: u16::from(input.byte()), fail_timeout: u32::from(input.byte()) };
        match input.byte() % 5 {
            0 | 1 => memory.scribble(&mut input),
            2 => {
                let _ = table.failed(peer, policy, now);
            }
            3 => table.taken(peer, policy, now),
            _ => table.succeeded(peer),
        }
        let _ = table.is_failed(peer, policy, now);
    }
}
