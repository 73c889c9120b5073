//! 1,000 nodes: one root, 31 below it, 968 below those.

use super::world::{Down, World};

const NODES: usize = 1000;
const MIDDLE: usize = 31;

fn middle(leaf: usize) -> usize {
    1 + leaf % MIDDLE
}

fn tree() -> Vec<Vec<usize>> {
    let supers = |node: usize| match node {
        0 => vec![],
        1..=MIDDLE => vec![0],
        leaf => vec![middle(leaf), middle(leaf + 1)],
    };
    (0..NODES).map(supers).collect()
}

fn settled(seed: u64) -> World {
    let mut world = World::new(seed, &tree());
    world.start_all();
    let took = world.settle(&[0], 20_000);
    assert!(took < 5000, "settled after {took} ms");
    world
}

#[test]
fn they_settle_from_cold_and_are_quiet() {
    let mut world = settled(1);
    world.run(world.now + 5000);
    world.nodes.iter_mut().for_each(|node| node.calls = 0);
    world.run(world.now + 60_000);
    let calls: u64 = world.nodes.iter().map(|node| node.calls).sum();
    let each = calls as f64 / NODES as f64 / 60.0;
    assert!(each < 1.0 && each > 0.4, "{each} calls per second and node");
    assert!(world.nodes.iter().all(|node| node.calls < 60), "one of them calls too often");
    world.stays(&[0], 5000);
}

#[test]
fn the_dead_are_known_and_their_clients_go_elsewhere() {
    for down in [Down::Refuses, Down::Silent] {
        let mut world = settled(2);
        world.stays(&[0], 2000);
        let (dead_leaf, dead_middle) = (500, 7);
        assert_ne!(middle(dead_leaf), dead_middle);
        world.crash(dead_leaf, down);
        world.crash(dead_middle, down);
        let took = world.settle(&[0], 20_000);
        assert!(took < 10_000, "known after {took} ms");
        assert_eq!(world.orphans(), 0);
        world.start(dead_leaf);
        world.start(dead_middle);
        let took = world.settle(&[0], 20_000);
        assert!(took < 5000, "back after {took} ms");
    }
}

#[test]
fn a_root_that_restarts_has_its_tree_again() {
    let mut world = settled(3);
    world.crash(0, Down::Refuses);
    world.run(world.now + 1000);
    world.start(0);
    assert!(world.settle(&[0], 20_000) < 10_000);
    world.crash(0, Down::Silent);
    world.run(world.now + 20_000);
    // those below keep their own trees meanwhile
    let tops: Vec<usize> = (1..=MIDDLE).collect();
    world.check(&tops).unwrap();
    world.start(0);
    let took = world.settle(&[0], 40_000);
    assert!(took < 15_000, "{took}");
}

#[test]
fn only_the_root_is_configured_and_full_supers_send_on() {
    let supers: Vec<Vec<usize>> =
        (0..NODES).map(|n| if n == 0 { vec![] } else { vec![0] }).collect();
    let mut world = World::new(4, &supers);
    world.nodes.iter_mut().for_each(|node| node.config.limits.clients = 32);
    world.start_all();
    world.settle(&[0], 60_000);
    let most = world.nodes.iter().map(|node| node.zone().clients.len()).max();
    assert!(most <= Some(32));
    assert_eq!(world.tops().len(), 1);
}
