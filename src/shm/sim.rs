//! Plays the workers of a master in one thread: the real table, rings, outboxes and assemblers,
//! under processes that are stopped, killed and replaced at any access to shared memory, over
//! reloads, and where others are started in the same seats beside them. All from one seed; whatever breaks a promise panics, and the seed is printed.
//!
//! `world` is the master and, with `kernel`, the machine; `worker`, `sending`, `receiving`,
//! `housekeeping`, `leaving` and `peer` are one process (what `modules::ipc` does, in its order,
//! without nginx); `ledger` knows what was sent and judges. Here is what happens when.
//!
//! `CC_SIM_SEED=n` plays one run, `CC_SIM_RUNS=n` so many.

mod housekeeping;
mod kernel;
mod leaving;
mod ledger;
mod peer;
mod receiving;
mod sending;
mod worker;
mod world;

use std::rc::Rc;

use kernel::Random;
use world::World;

/// Runs of `cargo test`.
const RUNS: u64 = 3000;

/// What a run is made of.
#[derive(Debug, Clone)]
pub(in crate::shm) struct Plan {
    /// Workers by generation.
    workers: Vec<usize>,
    /// Bytes of a ring.
    ring: usize,
    /// Bytes that may wait for one receiver.
    queue: usize,
    /// Bytes of the longest message.
    message: usize,
    /// Records that a line holds.
    line: usize,
    steps: usize,
    /// How often, in 1/1000 of the steps.
    sends: u64,
    kills: u64,
    stops: u64,
    reloads: u64,
    /// HUP after WINCH after USR2.
    besides: u64,
    /// One in so many turns is cut in on.
    cuts: u64,
}

impl Plan {
    fn of(random: &Random) -> Plan {
        let most = match random.below(100) {
            0..70 => 4,
            70..95 => 9,
            95..99 => 20,
            _ => 64,
        };
        let generations = 1 + random.below(4).saturating_sub(1) as usize;
        let workers: Vec<usize> =
            (0..generations).map(|_| 2 + random.below(most - 1) as usize).collect();
        let most = workers.iter().copied().max().unwrap_or_default();
        Plan {
            ring: 2048 << random.below(2),
            queue: 1 << (9 + random.below(7)),
            message: 1 << (6 + random.below(9)),
            line: 1 + random.below(12) as usize,
            steps: 40 + random.below(160) as usize + 8 * most,
            sends: 50 + random.below(500),
            kills: random.pick(&[0, 0, 5, 20, 60]),
            stops: random.pick(&[0, 10, 40]),
            reloads: random.pick(&[5, 15]),
            besides: random.pick(&[0, 0, 5, 20]),
            cuts: random.pick(&[2, 4, 16]),
            workers,
        }
    }
}

/// What the runs came to.
#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    sent: u64,
    kills: u64,
    /// Workers that have given their seats up.
    ousted: u64,
    cuts: u64,
    uncertain: u64,
    off: u64,
}

fn play(seed: u64) -> Tally {
    let random = Random::new(seed);
    let plan = Plan::of(&random);
    let world = World::new(plan, random);
    let _running = world::install(&world);
    world.reload();
    for _ in 0..world.plan.steps {
        world.step(0);
        world.check();
    }
    settle(&world);
    let tally = world.account();
    progress(&world);
    tally
}

/// The storm is over: the stopped go on, the dead are replaced, what waits is delivered. Three
/// looks of the housekeeping are enough for whatever only it finds.
fn settle(world: &Rc<World>) {
    world.calm();
    let end = world.now() + 3300;
    while world.now() < end {
        world.pass();
    }
    world.check();
    world.settled();
}

/// Everybody reaches everybody, at once.
fn progress(world: &Rc<World>) {
    world.everybody_sends();
    let end = world.now() + 100;
    while world.now() < end {
        world.pass();
    }
    world.check();
    world.settled();
}

/// Names the run that failed.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("simulator: play it again with CC_SIM_SEED={}", self.0);
        }
    }
}

#[test]
fn nothing_breaks_a_promise() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match (number("CC_SIM_SEED"), number("CC_SIM_RUNS")) {
        (Some(seed), runs) => seed..seed + runs.unwrap_or(1),
        (None, runs) => 0..runs.unwrap_or(RUNS),
    };
    let mut sum = Tally::default();
    for seed in seeds {
        let _told = Seed(seed);
        let tally = play(seed);
        sum.sent += tally.sent;
        sum.kills += tally.kills;
        sum.ousted += tally.ousted;
        sum.cuts += tally.cuts;
        sum.uncertain += tally.uncertain;
        sum.off += tally.off;
    }
    println!("{sum:?}");
}
