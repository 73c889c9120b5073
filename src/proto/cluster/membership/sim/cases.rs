//! Single stories.

use super::super::message::Reason;
use super::super::moving::Which;
use super::super::output::{Gone, Report, Token};
use super::super::standing::Place;
use super::world::{Down, World, name};

/// A root (0) with two clients (1, 2), and four below (3 and 4 below 1 or 2, 5 and 6 below 2 or 1).
fn small(seed: u64) -> World {
    let supers = [vec![], vec![0], vec![0], vec![1, 2], vec![1, 2], vec![2, 1], vec![2, 1]];
    let mut world = World::new(seed, &supers);
    world.start_all();
    assert!(world.settle(&[0], 10_000) < 5000);
    world.run(world.now + 3000);
    world
}

fn report(world: &mut World, node: usize) -> Report {
    let end = world.now + 20_000;
    while world.nodes[node].reports.is_empty() {
        assert!(world.now < end, "no report");
        world.run(world.now + 10);
    }
    world.nodes[node].reports.remove(0).2
}

#[test]
fn a_transferred_node_is_known_by_the_new_super_and_by_the_old_one_no_more() {
    let mut world = small(1);
    world.command(3, |member, now| member.transfer(now, Token(9), name(2)));
    assert_eq!(report(&mut world, 3), Report::Moved { result: Ok(()), told: true });
    assert_eq!(world.above(3), Some(2));
    assert!(world.nodes[1].gone.iter().any(|(_, id, why)| *id == name(3) && *why == Gone::Left));
    assert!(world.settle(&[0], 10_000) < 3000);
    // it stays there, also under another router, and with what it had below it
    world.move_router(3);
    world.stays(&[0], 200_000);
    assert_eq!(world.above(3), Some(2));
    // with all that is below it
    world.command(2, |member, now| member.transfer(now, Token(10), name(1)));
    assert_eq!(report(&mut world, 2), Report::Moved { result: Ok(()), told: true });
    world.settle(&[0], 10_000);
    assert_eq!((world.above(2), world.above(3)), (Some(1), Some(2)));
}

#[test]
fn a_transfer_that_fails_changes_nothing() {
    let mut world = small(2);
    world.crash(5, Down::Silent);
    world.settle(&[0], 20_000);
    let stays = |reason| Report::Moved { result: Err(reason), told: false };
    let mut told = |to: String| {
        world.command(3, |member, now| member.transfer(now, Token(1), to));
        let report = report(&mut world, 3);
        world.check(&[0]).unwrap();
        assert_eq!(world.above(3), Some(1));
        report
    };
    assert_eq!(told(name(5)), stays(Reason::NoAnswer));
    assert_eq!(told("192.0.2.1:80".into()), stays(Reason::NotAllowed));
    world.command(1, |member, now| {
        member.transfer(now, Token(1), name(3));
        member.transfer(now, Token(2), name(2));
    });
    assert_eq!(report(&mut world, 1), stays(Reason::Busy));
    assert_eq!(report(&mut world, 1), stays(Reason::Loop));
    world.check(&[0]).unwrap();
}

#[test]
fn a_node_becomes_a_root_and_joins_again() {
    let mut world = small(3);
    world.command(1, |member, now| member.transfer(now, Token(1), name(1)));
    assert_eq!(report(&mut world, 1), Report::Moved { result: Ok(()), told: true });
    world.settle(&[0, 1], 10_000);
    assert_eq!(world.nodes[1].zone().standing.place, Place::Root);
    world.move_router(1);
    world.stays(&[0, 1], 100_000);
    world.command(1, |member, now| member.transfer(now, Token(1), name(2)));
    assert_eq!(report(&mut world, 1), Report::Moved { result: Ok(()), told: true });
    world.settle(&[0], 10_000);
    assert_eq!(world.above(1), Some(2));
}

#[test]
fn a_pending_transfer_outlives_its_router() {
    let mut world = small(4);
    world.network.slow.insert(2);
    world.command(3, |member, now| member.transfer(now, Token(1), name(2)));
    world.run(world.now + 100);
    assert_eq!(world.nodes[3].zone().standing.pending, Some(name(2)));
    world.stop_router(3);
    world.run(world.now + 500);
    world.move_router(3);
    world.network.heal();
    world.run(world.now + 1500);
    world.settle(&[0], 10_000);
    assert_eq!(world.above(3), Some(2));
}

#[test]
fn clients_are_sent_elsewhere() {
    let mut world = small(5);
    let which = Which::These(vec![name(4), name(6)]);
    world.command(1, |member, now| member.transfer_clients(now, Token(1), name(2), which));
    let moved = Report::ClientsMoved {
        moved: vec![name(4)],
        failed: vec![(name(6), Reason::NotAsked)],
        pending: vec![],
    };
    assert_eq!(report(&mut world, 1), moved);
    world.settle(&[0], 10_000);
    assert_eq!((world.above(3), world.above(4)), (Some(1), Some(2)));
    assert!(world.nodes[1].gone.iter().any(|(_, id, why)| *id == name(4) && *why == Gone::Moved));
    // all, while calls to one of them are lost: it hears it with its heartbeat
    world.network.cuts.insert((2, 5));
    world.command(2, |member, now| member.transfer_clients(now, Token(1), name(1), Which::All));
    world.run(world.now + 1500);
    world.network.heal();
    match report(&mut world, 2) {
        Report::ClientsMoved { moved, failed, pending } => {
            assert_eq!((moved.len(), failed, pending), (3, vec![], vec![]));
        }
        other => panic!("{other:?}"),
    }
    world.settle(&[0], 10_000);
    assert!(world.nodes[2].zone().clients.is_empty());
    world.stays(&[0], 100_000);
}

#[test]
fn clients_that_cannot_go_stay_and_say_so() {
    let mut world = small(6);
    world.crash(2, Down::Silent);
    world.settle(&[0], 20_000);
    world.command(1, |member, now| member.transfer_clients(now, Token(1), name(2), Which::All));
    world.move_router(3);
    match report(&mut world, 1) {
        Report::ClientsMoved { moved, failed, pending } => {
            // the new router of one of them hears it with a heartbeat
            assert_eq!((moved, pending), (vec![], vec![]));
            assert_eq!(failed.len(), 4);
            assert!(failed.iter().all(|(_, why)| *why == Reason::NoAnswer), "{failed:?}");
        }
        other => panic!("{other:?}"),
    }
    world.check(&[0]).unwrap();
}

#[test]
fn a_node_returns_to_its_preferred_super() {
    let mut world = small(7);
    world.crash(1, Down::Refuses);
    assert!(world.settle(&[0], 20_000) < 10_000);
    assert_eq!((world.above(3), world.above(4)), (Some(2), Some(2)));
    world.start(1);
    world.settle(&[0], 20_000);
    world.run(world.now + 80_000);
    world.check(&[0]).unwrap();
    assert_eq!((world.above(3), world.above(4)), (Some(1), Some(1)));
}

#[test]
fn without_any_other_those_above_are_asked() {
    let mut world = World::new(8, &[vec![], vec![0], vec![1]]);
    world.start_all();
    world.settle(&[0], 10_000);
    world.crash(1, Down::Silent);
    assert!(world.settle(&[0], 20_000) < 10_000);
    assert_eq!(world.above(2), Some(0));
    world.start(1);
    world.run(world.now + 80_000);
    world.check(&[0]).unwrap();
    assert_eq!(world.above(2), Some(1));
}

#[test]
fn a_router_moves_and_nobody_notices() {
    let mut world = small(9);
    let epochs: Vec<u64> = world.nodes.iter().map(|node| node.config.epoch).collect();
    for node in [0, 1, 3] {
        world.stop_router(node);
    }
    world.run(world.now + 1000);
    for node in [0, 1, 3] {
        world.move_router(node);
    }
    assert_eq!(world.orphans(), 0);
    assert!(world.settle(&[0], 10_000) < 3000);
    world.stays(&[0], 20_000);
    assert!(world.nodes.iter().all(|node| node.gone.is_empty()), "nobody went");
    let after: Vec<u64> = world.nodes.iter().map(|node| node.config.epoch).collect();
    assert_eq!(epochs, after);
    // where nobody did it in time, those below went elsewhere, and come back
    world.stop_router(1);
    world.run(world.now + 10_000);
    assert_eq!((world.above(3), world.above(4)), (Some(2), Some(2)));
    world.move_router(1);
    world.run(world.now + 90_000);
    world.check(&[0]).unwrap();
    assert_eq!((world.above(3), world.above(4)), (Some(1), Some(1)));
}

#[test]
fn a_restart_that_nobody_noticed_is_another_life() {
    let mut world = small(10);
    for node in [3, 1] {
        world.crash(node, Down::Refuses);
        world.start(node);
        assert!(world.settle(&[0], 10_000) < 5000);
    }
    world.stays(&[0], 20_000);
}

#[test]
fn a_super_that_cannot_reach_its_client_does_not_take_it() {
    let mut world = small(11);
    world.crash(3, Down::Refuses);
    world.settle(&[0], 20_000);
    world.network.cuts.insert((1, 3));
    world.start(3);
    // calls of node 1 do not reach it, nor do answers
    world.settle(&[0], 20_000);
    assert_eq!(world.above(3), Some(2));
}

#[test]
fn a_partition_heals() {
    let mut world = small(12);
    world.network.island = [2, 5, 6].into();
    world.run(world.now + 30_000);
    world.check(&[0, 2]).unwrap();
    assert!(world.nodes[2].zone().standing.place.is_orphan());
    world.network.heal();
    assert!(world.settle(&[0], 30_000) < 15_000);
}

#[test]
fn a_client_that_does_not_answer_is_dropped_and_taken_back() {
    let mut world = small(13);
    let failed = |world: &mut World| {
        world.command(1, |member, now| member.invalid_client(now, &name(3)));
        world.run(world.now + 100);
    };
    (0..4).for_each(|_| failed(&mut world));
    assert!(world.nodes[1].gone.is_empty());
    failed(&mut world);
    assert_eq!(world.nodes[1].gone.len(), 1);
    assert!(world.settle(&[0], 10_000) < 4000);
    // answered calls between
    for _ in 0..8 {
        failed(&mut world);
        world.command(1, |member, _| member.valid_client(&name(3)));
        world.run(world.now + 600);
    }
    assert_eq!(world.nodes[1].gone.len(), 1);
}

#[test]
fn who_leaves_is_forgotten_at_once_and_its_clients_go_elsewhere() {
    let mut world = small(14);
    world.command(1, |member, now| member.leave(now, Token(1)));
    assert_eq!(report(&mut world, 1), Report::Left);
    assert!(world.nodes[0].gone.iter().any(|(_, id, why)| *id == name(1) && *why == Gone::Left));
    world.run(world.now + 5000);
    assert_eq!((world.above(3), world.above(4)), (Some(2), Some(2)));
    world.stop_router(1);
    world.check(&[0]).unwrap();
}

#[test]
fn other_supers_are_configured() {
    let mut world = small(15);
    world.command(3, |member, now| member.set_supers(now, vec![name(0)]));
    world.run(world.now + 1000);
    world.check(&[0]).unwrap();
    assert_eq!(world.above(3), Some(0));
    world.command(3, |member, now| member.set_supers(now, vec![]));
    world.settle(&[0, 3], 10_000);
    assert!(world.nodes[0].gone.iter().any(|(_, id, _)| *id == name(3)));
    world.command(3, |member, now| member.set_supers(now, vec![name(2), name(1)]));
    assert!(world.settle(&[0], 10_000) < 3000);
    assert_eq!(world.above(3), Some(2));
}

#[test]
fn all_nodes_may_have_the_same_list() {
    let list: Vec<usize> = (0..5).collect();
    let mut world = World::new(16, &vec![list; 5]);
    world.start_all();
    assert!(world.settle(&[0], 10_000) < 5000);
    world.crash(0, Down::Silent);
    world.run(world.now + 20_000);
    world.check(&[1]).unwrap();
    world.start(0);
    world.run(world.now + 100_000);
    world.check(&[0]).unwrap();
}

#[test]
fn cycles_of_supers_are_cut() {
    for length in [2, 3, 5, 16] {
        for seed in 0..25 {
            let supers: Vec<Vec<usize>> = (0..length).map(|n| vec![(n + 1) % length]).collect();
            let mut world = World::new(seed, &supers);
            // most at once, which is where all are accepted before anybody sees the cycle
            for node in 0..length {
                let wait = world.random.below(4) * 3;
                world.run(world.now + wait);
                world.start(node);
            }
            world.run(world.now + 60_000);
            let tops = world.tops();
            assert_eq!(tops.len(), 1, "{length} nodes, seed {seed}: {tops:?}");
            let top: Vec<usize> = tops.into_iter().collect();
            world.stays(&top, 20_000);
        }
    }
}

#[test]
fn two_nodes_that_are_sent_below_each_other_do_not_both_go() {
    for seed in 0..50 {
        let mut world = small(100 + seed);
        let wait = world.random.below(8);
        world.command(1, |member, now| member.transfer(now, Token(1), name(2)));
        world.run(world.now + wait);
        world.command(2, |member, now| member.transfer(now, Token(1), name(1)));
        world.run(world.now + 60_000);
        world.stays(&[0], 20_000);
    }
}
