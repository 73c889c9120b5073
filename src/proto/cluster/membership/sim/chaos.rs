//! Everything at random, then quiet.

use super::super::moving::Which;
use super::super::output::Token;
use super::world::{Down, World, name};

/// Runs of `cargo test`.
const RUNS: u64 = 100;
/// Milliseconds of quiet after which all must be well.
const QUIET: u64 = 60_000;

/// A root, and each other node below some with lower numbers: all lists end with the root.
fn plan(seed: u64) -> World {
    let mut random = super::super::random::Random::new(seed);
    let nodes = 5 + random.below(if seed % 10 == 0 { 95 } else { 30 }) as usize;
    let supers: Vec<Vec<usize>> = (0..nodes)
        .map(|node| {
            let mut list: Vec<usize> =
                (0..random.below(3)).map(|_| random.below(node.max(1) as u64) as usize).collect();
            list.push(0);
            list.dedup();
            if node == 0 { vec![] } else { list }
        })
        .collect();
    let mut world = World::new(seed, &supers);
    if seed % 4 == 1 {
        world.nodes.iter_mut().for_each(|node| node.config.limits.clients = 4);
    }
    world
}

fn step(world: &mut World) {
    let nodes = world.nodes.len() as u64;
    let (node, other) = (world.random.below(nodes) as usize, world.random.below(nodes) as usize);
    let down = if world.random.below(2) == 0 { Down::Refuses } else { Down::Silent };
    match world.random.below(16) {
        0 | 1 => world.crash(node, down),
        2..=4 if !world.is_up(node) => world.start(node),
        5 if world.is_up(node) => {
            world.crash(node, down);
            world.start(node);
        }
        6 if world.is_up(node) => {
            world.stop_router(node);
            world.run(world.now + 10);
            world.move_router(node);
        }
        7 => world.network.loss = [0, 10, 50, 200][world.random.below(4) as usize],
        8 => drop(world.network.cuts.insert((node, other))),
        9 => world.network.cuts.clear(),
        10 => {
            world.network.island =
                (0..nodes as usize).filter(|_| world.random.below(3) == 0).collect();
        }
        11 => world.network.heal(),
        12 => drop(world.network.slow.insert(node)),
        13 if node != 0 => {
            world.command(node, |member, now| member.transfer(now, Token(1), name(other)));
        }
        14 => world.command(node, |member, now| {
            member.transfer_clients(now, Token(2), name(other), Which::All);
        }),
        15 => world.command(node, |member, now| member.invalid_client(now, &name(other))),
        _ => {}
    }
}

fn play(seed: u64) -> u64 {
    let mut world = plan(seed);
    world.start_all();
    for _ in 0..60 {
        step(&mut world);
        let wait = [20, 300, 1500, 4000][world.random.below(4) as usize];
        let wait = world.random.below(wait);
        world.run(world.now + wait);
        acyclic_casts(&world);
    }
    world.network.heal();
    for node in 0..world.nodes.len() {
        if !world.is_up(node) {
            world.start(node);
        }
        // transfers may have made a cycle of preferences, or a root of somebody else
        let supers = world.nodes[node].config.supers.clone();
        world.command(node, |member, now| {
            member.set_supers(now, vec![]);
            member.set_supers(now, supers);
        });
    }
    let took = world.settle(&[0], QUIET);
    world.run(world.now + 15_000);
    world.check(&[0]).unwrap();
    took
}

/// Whatever happens, the tables of a cast never grow without end.
fn acyclic_casts(world: &World) {
    let limit = world.nodes.iter().map(|node| node.config.limits.clients).max();
    let most = world.nodes.iter().map(|node| node.zone().clients.len()).max();
    assert!(most <= limit);
}

#[test]
fn after_any_chaos_the_tree_is_whole_again() {
    let number = |name| std::env::var(name).ok().and_then(|value| value.parse().ok());
    let seeds = match number("CC_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("CC_SIM_RUNS").unwrap_or(RUNS),
    };
    for seed in seeds {
        let played = std::panic::catch_unwind(|| play(seed));
        if let Err(panic) = played {
            eprintln!("CC_SIM_SEED={seed} cargo test --no-default-features --lib chaos");
            std::panic::resume_unwind(panic);
        }
    }
}
