//! Unit tests of what is decided about lives.

use super::*;
use proptest::prelude::*;

fn member(generation: u32, worker: u16, phase: Phase) -> Member {
    let seat = Seat { generation: Generation(generation), worker: WorkerId(worker) };
    Member { pid: Pid(generation * 1000 + u32::from(worker) + 1), seat, phase }
}

fn counted(generation: u32, worker: u16, phase: Phase, said: u64) -> Counted {
    Counted { member: member(generation, worker, phase), said: Said::of(said) }
}

#[test]
fn what_a_status_says() {
    assert_eq!((Status(9).signal(), Status(9).code()), (Some(9), None));
    // a core dump is a bit beside the signal
    assert_eq!(Status(11 | 0x80).signal(), Some(11));
    assert_eq!((Status(0x300).signal(), Status(0x300).code()), (None, Some(3)));
    assert!(Status(0x200).is_fatal() && !Status(2).is_fatal());
    assert_eq!(ended_by(Some(Status(0x200))), "exit code 2");
    assert_eq!(ended_by(None), "a cause that is not known");
}

#[test]
fn why_a_worker_starts_and_leaves() {
    assert_eq!(loaded(false, false), Why::Start);
    assert_eq!(loaded(false, true), Why::Upgrade);
    assert_eq!(loaded(true, true), Why::Reload);
    assert_eq!(entered(None, Why::Reload), Why::Reload);
    assert_eq!(entered(Some(Phase::Left), Why::Reload), Why::Return);
    for phase in [Phase::Starting, Phase::Live, Phase::Retiring, Phase::Dead] {
        assert_eq!(entered(Some(phase), Why::Start), Why::Respawn);
    }
    let facts = |own, newest, handed_on, elder_master| Leaving {
        own: Generation(own),
        newest: Generation(newest),
        handed_on,
        elder_master,
    };
    assert_eq!(leaving(facts(1, 1, false, false)), Why::Stop);
    assert_eq!(leaving(facts(1, 2, false, false)), Why::Reload);
    assert_eq!(leaving(facts(2, 2, true, false)), Why::Upgrade);
    assert_eq!(leaving(facts(2, 2, false, true)), Why::Rollback);
    // an old worker of a configuration that was reloaded before the upgrade
    assert_eq!(leaving(facts(1, 2, true, true)), Why::Reload);
}

#[test]
fn numbers_have_their_names_back() {
    for number in 0..20 {
        assert!(Why::of(number).is_none_or(|why| why as u64 == number));
        assert!(Phase::of(number).is_none_or(|phase| phase as u64 == number));
    }
    for (at, (tally, _)) in Tally::ALL.iter().enumerate() {
        assert_eq!(*tally as usize, at);
    }
    for word in 0..8 {
        assert_eq!(Said::of(word).pack(), word);
    }
}

#[test]
fn the_numbers_of_the_original() {
    let one = Generation(1);
    let two = Generation(2);
    let start = Moment::Starting { respawned: false };
    let numbers = |counts: Counts| (counts.previous, counts.mine, counts.next);
    // the first of three: the second has a row, but its callback waits for the lock
    let rows = [counted(1, 0, Phase::Starting, 1), counted(1, 1, Phase::Starting, 0)];
    assert_eq!(numbers(counts(one, one, None, start, &rows)), (None, 1, None));
    // a respawn: the dead one counts for the last time
    let rows = [counted(1, 0, Phase::Live, 1), counted(1, 1, Phase::Starting, 1 | 4)];
    let respawn = Moment::Starting { respawned: true };
    assert_eq!(numbers(counts(one, one, None, respawn, &rows)), (None, 3, None));
    // both died; the other one's seat is empty yet
    let rows = [counted(1, 0, Phase::Dead, 1), counted(1, 1, Phase::Starting, 1 | 4)];
    assert_eq!(numbers(counts(one, one, None, respawn, &rows)), (None, 3, None));
    // reload: two old ones run, one of the new ones is up
    let rows = [
        counted(1, 0, Phase::Live, 1),
        counted(1, 1, Phase::Retiring, 3),
        counted(2, 0, Phase::Starting, 1),
        counted(2, 1, Phase::Starting, 0),
    ];
    assert_eq!(numbers(counts(two, two, None, start, &rows)), (Some(2), 1, None));
    // the last old one leaves; the other one's callback is over
    assert_eq!(numbers(counts(one, two, None, Moment::Leaving, &rows)), (None, 1, Some(1)));
    // another zone: the generation before this one's first is known by its processes only
    assert_eq!(counts(one, one, Some(3), start, &rows).previous, Some(3));
    assert_eq!(counts(two, two, Some(3), start, &rows).previous, Some(2));
}

#[test]
fn who_leads() {
    let all = [
        member(1, 0, Phase::Live),
        member(2, 0, Phase::Retiring),
        member(2, 2, Phase::Live),
        member(2, 1, Phase::Starting),
    ];
    assert_eq!(leader(all.into_iter()), Some(all[3]));
    assert_eq!(leader(all.into_iter().take(2)), Some(all[0]));
    assert_eq!(leader(all.into_iter().skip(1).take(1)), None);
}

#[test]
fn reasons_for_not_being_ready() {
    let place = |phase: Option<Phase>, status, deaths, ready, reason: &str| Place {
        member: phase.map(|phase| member(1, 0, phase)),
        status,
        deaths,
        ready,
        reason: reason.to_owned(),
    };
    let good = place(Some(Phase::Live), None, 0, true, "");
    let ask = |bad: Place| readiness(&[good.clone(), bad]).unwrap_err();
    assert_eq!(readiness(&[good.clone(), good.clone()]), Ok(()));
    assert!(readiness(&[]).is_err());
    let (live, dead) = (Some(Phase::Live), Some(Phase::Dead));
    assert_eq!(ask(place(None, None, 0, false, "")), "worker 1 has not started");
    assert_eq!(ask(place(live, None, 0, false, "cold")), "worker 1 is not ready: cold");
    assert_eq!(ask(place(live, None, 0, false, "")), "worker 1 is not ready");
    let starting = Some(Phase::Starting);
    assert_eq!(ask(place(starting, None, 0, false, "")), "worker 1 is starting");
    assert_eq!(
        ask(place(starting, Some(Status(9)), 4, false, "")),
        "worker 1 is starting again after signal 9, 4 times since it was ready last"
    );
    assert_eq!(ask(place(dead, Some(Status(11)), 1, true, "")), "worker 1 was ended by signal 11");
    assert_eq!(
        ask(place(dead, Some(Status(0x200)), 3, false, "")),
        "worker 1 ended with exit code 2: nginx does not start it again"
    );
    assert_eq!(ask(place(Some(Phase::Left), None, 0, true, "")), "worker 1 has left");
    assert_eq!(ask(place(Some(Phase::Retiring), None, 0, true, "")), "worker 1 is leaving");
}

proptest! {
    // whoever dies, somebody watches him: those of lower numbers, round and round
    #[test]
    fn everybody_is_watched(workers in 2usize..600, most in 1usize..200, who in 0usize..600) {
        let who = WorkerId((who % workers) as u16);
        let all = (0..workers as u16).map(WorkerId);
        let watching = all.clone().filter(|w| *w != who && watches(*w, who, workers, most)).count();
        prop_assert_eq!(watching, (workers - 1).min(if workers <= most { workers } else { most }));
        let watched = all.filter(|w| *w != who && watches(who, *w, workers, most)).count();
        prop_assert!(watched <= most.max(1) || workers <= most);
    }
}
