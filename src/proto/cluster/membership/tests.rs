//! One node, message by message.

mod any_inputs;

use super::message::{Answer, MESSAGE_MAX, Malformed, PATH_MAX, Reason, Request};
use super::moving::Which;
use super::output::{CallId, Gone, Output, Report, Token};
use super::standing::{Client, Health, Place, Snapshot, Standing, Super};
use super::{Allow, Config, Membership};

const ME: &str = "10.0.0.1:80";
const ROOT: &str = "10.0.0.9:80";
const CHILD: &str = "10.0.0.2:80";

fn allow() -> Allow {
    Box::new(|address| address.starts_with("10."))
}

fn root() -> Membership {
    Membership::new(Config::new(ME, 50, vec![]), 1, 1000, allow())
}

fn below(supers: &[&str]) -> Membership {
    let supers = supers.iter().map(|address| address.to_string()).collect();
    Membership::new(Config::new(ME, 50, supers), 1, 1000, allow())
}

fn outputs(node: &mut Membership) -> Vec<Output> {
    std::iter::from_fn(|| node.output()).collect()
}

/// The calls that it wants now.
fn calls(node: &mut Membership) -> Vec<(CallId, String, Request)> {
    let call = |output| match output {
        Output::Call { id, to, message, .. } => Some((id, to, message)),
        _ => None,
    };
    outputs(node).into_iter().filter_map(call).collect()
}

/// What it answers at once.
fn ask(node: &mut Membership, now: u64, request: Request) -> Option<Answer> {
    outputs(node);
    node.request(now, Token(77), request);
    answer_in(outputs(node))
}

fn answer_in(outputs: Vec<Output>) -> Option<Answer> {
    outputs.into_iter().find_map(|output| match output {
        Output::Answer { answer, .. } => Some(answer),
        _ => None,
    })
}

fn join(id: &str, epoch: u64, seq: u64) -> Request {
    Request::Join { id: id.into(), epoch, seq, to: ME.into(), subtree: 1 }
}

fn beat(id: &str, epoch: u64, seq: u64) -> Request {
    Request::Beat { id: id.into(), epoch, seq, subtree: 3, path: 0, refused: None }
}

fn leave(id: &str, epoch: u64, seq: u64) -> Request {
    Request::Leave { id: id.into(), epoch, seq }
}

/// Joins with a dial-back that is answered like that.
fn join_with(
    node: &mut Membership,
    request: Request,
    dialled: impl Fn(u64) -> Option<Answer>,
) -> Answer {
    assert_eq!(ask(node, 1000, request.clone()), None);
    node.request(1000, Token(78), request); // asked twice
    let (mut dialled_call, mut earlier) = (None, None);
    // the dial was taken by ask(); a second request must not make another one
    for output in outputs(node) {
        match output {
            Output::Call { id, message: Request::Dial { nonce, .. }, .. } => {
                dialled_call = Some((id, nonce));
            }
            Output::Answer { token, answer } => earlier = Some((token, answer)),
            _ => {}
        }
    }
    assert_eq!(dialled_call, None);
    assert_eq!(earlier, Some((Token(77), Answer::deny(Reason::Busy))));
    let id = CallId(node.last_call);
    let nonce = node.dials().next().map(|dial| dial.nonce()).unwrap();
    match dialled(nonce) {
        Some(answer) => node.answered(1010, id, answer),
        None => node.failed(1010, id),
    }
    answer_in(outputs(node)).unwrap()
}

fn yes(id: &str, epoch: u64) -> impl Fn(u64) -> Option<Answer> {
    let id = id.to_string();
    move |nonce| Some(Answer::Dialled { id: id.clone(), epoch, nonce })
}

fn take(node: &mut Membership, id: &str, epoch: u64) {
    let answer = join_with(node, join(id, epoch, 1), yes(id, epoch));
    assert!(matches!(answer, Answer::Joined { .. }), "{answer:?}");
}

fn names(node: &Membership) -> Vec<String> {
    node.clients().map(|client| client.address).collect()
}

#[test]
fn a_client_is_one_only_after_its_dial_back() {
    let mut node = root();
    take(&mut node, CHILD, 5);
    assert_eq!(names(&node), [CHILD]);
    let denied = Answer::deny(Reason::DialBack);
    let other = "10.0.0.3:80";
    let wrong: [fn(u64) -> Option<Answer>; 5] = [
        |_| None,
        |_| Some(Answer::Ok),
        |nonce| Some(Answer::Dialled { id: "10.0.0.3:80".into(), epoch: 5, nonce: !nonce }),
        |nonce| Some(Answer::Dialled { id: "10.0.0.4:80".into(), epoch: 5, nonce }),
        |nonce| Some(Answer::Dialled { id: "10.0.0.3:80".into(), epoch: 6, nonce }),
    ];
    for dialled in wrong {
        assert_eq!(join_with(&mut node, join(other, 5, 1), dialled), denied);
        assert_eq!(names(&node), [CHILD]);
    }
}

#[test]
fn who_did_not_ask_does_not_answer_a_dial_back() {
    let mut node = below(&[ROOT]);
    let dial =
        |to: Option<&str>| Request::Dial { id: "x:1".into(), to: to.map(Into::into), nonce: 3 };
    let yes = Some(Answer::Dialled { id: ME.into(), epoch: 50, nonce: 3 });
    assert_eq!(ask(&mut node, 1000, dial(Some(ROOT))), yes);
    assert_eq!(ask(&mut node, 1000, dial(None)), yes);
    let no = Some(Answer::deny(Reason::NotAsked));
    assert_eq!(ask(&mut node, 1000, dial(Some("10.0.0.8:80"))), no);
}

#[test]
fn nodes_on_one_host_are_several() {
    let mut node = root();
    for port in [90, 100, 110] {
        take(&mut node, &format!("10.0.0.2:{port}"), 5);
    }
    assert_eq!(node.clients().count(), 3);
    ask(&mut node, 1020, leave("10.0.0.2:100", 5, 9));
    assert_eq!(names(&node), ["10.0.0.2:110", "10.0.0.2:90"]);
}

#[test]
fn addresses_that_are_not_allowed_are_not_called() {
    let mut node = root();
    for id in ["192.0.2.1:80", &format!("10.{}:80", "1".repeat(70))] {
        assert_eq!(ask(&mut node, 1000, join(id, 5, 1)), Some(Answer::deny(Reason::NotAllowed)));
    }
    assert_eq!(ask(&mut node, 1000, join(ME, 5, 1)), Some(Answer::deny(Reason::Loop)));
    node.report(1000, Token(1), "192.0.2.1:80".into());
    let refused = Report::Reported(Err(Reason::NotAllowed));
    assert!(outputs(&mut node).contains(&Output::Done { token: Token(1), report: refused }));
    assert!(calls(&mut node).is_empty());
}

#[test]
fn a_later_life_replaces_and_an_earlier_one_is_refused() {
    let mut node = root();
    take(&mut node, CHILD, 5);
    assert_eq!(ask(&mut node, 1100, join(CHILD, 4, 2)), Some(Answer::deny(Reason::StaleEpoch)));
    assert_eq!(ask(&mut node, 1100, beat(CHILD, 4, 2)), Some(Answer::deny(Reason::StaleEpoch)));
    assert_eq!(ask(&mut node, 1100, beat(CHILD, 6, 2)), Some(Answer::Unknown));
    take(&mut node, CHILD, 6);
    assert_eq!(node.clients().map(|client| client.epoch).collect::<Vec<_>>(), [6]);
    // the same life again, without another dial-back
    let again = ask(&mut node, 1200, join(CHILD, 6, 3));
    assert!(matches!(again, Some(Answer::Joined { .. })));
}

#[test]
fn messages_that_were_overtaken_change_nothing() {
    let mut node = root();
    take(&mut node, CHILD, 5);
    ask(&mut node, 3000, beat(CHILD, 5, 30));
    ask(&mut node, 3500, beat(CHILD, 5, 20));
    assert_eq!(node.clients().map(|client| client.heard).collect::<Vec<_>>(), [3000]);
    for old in [leave(CHILD, 5, 29), leave(CHILD, 4, 99)] {
        assert_eq!(ask(&mut node, 3600, old), Some(Answer::Ok));
    }
    assert_eq!(names(&node), [CHILD]);
    ask(&mut node, 3600, leave(CHILD, 5, 31));
    assert!(names(&node).is_empty());
}

#[test]
fn silence_makes_suspects_and_ends_the_lease() {
    let mut node = root();
    take(&mut node, CHILD, 5);
    let health = |node: &Membership| node.clients().next().map(|client| client.health);
    assert_eq!(node.next_wake(), Some(1010 + 5000));
    node.wake(1010 + 4999);
    assert_eq!(health(&node), Some(Health::Alive));
    node.wake(1010 + 5000);
    assert_eq!(health(&node), Some(Health::Suspect));
    ask(&mut node, 6100, beat(CHILD, 5, 2));
    assert_eq!(health(&node), Some(Health::Alive));
    node.wake(6100 + 5000);
    assert_eq!(node.next_wake(), Some(6100 + 8000));
    node.wake(6100 + 8000);
    assert!(
        outputs(&mut node)
            .contains(&Output::ClientGone { address: CHILD.into(), why: Gone::Silent })
    );
    assert_eq!((health(&node), node.next_wake()), (None, None));
    assert_eq!(ask(&mut node, 15_000, beat(CHILD, 5, 3)), Some(Answer::Unknown));
}

#[test]
fn a_full_super_names_others() {
    let mut node = root();
    node.config.limits.clients = 2;
    take(&mut node, CHILD, 5);
    take(&mut node, "10.0.0.3:80", 5);
    ask(&mut node, 1100, beat(CHILD, 5, 2)); // it has three in its subtree
    let redirect = vec!["10.0.0.3:80".into(), CHILD.into()];
    let denied = Some(Answer::Deny { reason: Reason::Full, redirect });
    assert_eq!(ask(&mut node, 1200, join("10.0.0.4:80", 5, 1)), denied);
    // one that is known is not refused
    assert!(matches!(ask(&mut node, 1300, join(CHILD, 5, 3)), Some(Answer::Joined { .. })));
}

#[test]
fn dial_backs_under_way_are_bounded() {
    let mut node = root();
    let most = node.config.limits.dials;
    for number in 0..most {
        let id = format!("10.1.{}.{}:80", number / 256, number % 256);
        assert_eq!(ask(&mut node, 1000, join(&id, 5, 1)), None);
    }
    assert_eq!(ask(&mut node, 1000, join(CHILD, 5, 1)), Some(Answer::deny(Reason::Busy)));
    // the driver forgot them all
    node.wake(3000);
    assert_eq!(
        outputs(&mut node).iter().filter(|o| matches!(o, Output::Answer { .. })).count(),
        most
    );
    assert_eq!(ask(&mut node, 3000, join(CHILD, 5, 1)), None);
}

#[test]
fn a_reported_address_is_a_client_until_it_is_not_reported_any_more() {
    let mut node = root();
    let report = |node: &mut Membership, now| {
        node.report(now, Token(5), CHILD.into());
        if let Some((id, to, Request::Dial { nonce, to: None, .. })) = calls(node).pop() {
            assert_eq!(to, CHILD);
            node.answered(now, id, Answer::Dialled { id: CHILD.into(), epoch: 8, nonce });
        }
        outputs(node)
    };
    let done = Output::Done { token: Token(5), report: Report::Reported(Ok(())) };
    assert!(report(&mut node, 1000).contains(&done));
    report(&mut node, 61_000);
    assert_eq!((names(&node).len(), node.clients().next().map(|c| c.reported)), (1, Some(true)));
    node.wake(61_000 + 149_999);
    assert_eq!(names(&node), [CHILD]);
    // it does not beat as it has not joined; then it joins
    assert_eq!(ask(&mut node, 211_000, beat(CHILD, 8, 2)), Some(Answer::Unknown));
    take(&mut node, CHILD, 8);
    assert_eq!(node.clients().next().map(|c| c.reported), Some(false));
}

#[test]
fn ports_of_workers_are_kept_for_hosts_with_clients() {
    let mut node = root();
    assert_eq!(node.report_worker("10.0.0.2", 81), Err(Reason::NotAsked));
    take(&mut node, CHILD, 5);
    for port in [82, 81, 82] {
        node.report_worker("10.0.0.2", port).unwrap();
    }
    assert_eq!(node.reported_workers("10.0.0.2").collect::<Vec<_>>(), [81, 82]);
    let ports = (1..=u16::MAX).map(|port| node.report_worker("10.0.0.2", port));
    assert!(ports.last() == Some(Err(Reason::Full)));
    ask(&mut node, 1020, leave(CHILD, 5, 9));
    assert_eq!(node.reported_workers("10.0.0.2").count(), 0);
}

/// A node that has joined the root.
fn joined() -> Membership {
    let mut node = below(&[ROOT]);
    let (id, to, message) = calls(&mut node).remove(0);
    assert!(to == ROOT && matches!(message, Request::Join { .. }));
    let path = vec![ROOT.to_string()];
    node.answered(1005, id, Answer::Joined { id: ROOT.into(), epoch: 3, path, heartbeat: 2000 });
    assert_eq!(node.standing().place, Place::Joined);
    node
}

#[test]
fn only_the_super_sends_a_node_elsewhere() {
    let mut node = joined();
    let order = |id: &str, to: &str| Request::Move { id: id.into(), to: to.into(), transfer: 4 };
    let mut told = |id, to| ask(&mut node, 1100, order(id, to));
    assert_eq!(told(CHILD, "10.0.0.7:80"), Some(Answer::deny(Reason::NotAsked)));
    assert_eq!(told(ROOT, "192.0.2.1:80"), Some(Answer::deny(Reason::NotAllowed)));
    let mut node = joined();
    assert_eq!(ask(&mut node, 1100, order(ROOT, "10.0.0.7:80")), Some(Answer::Ok));
    assert_eq!(node.standing().above.map(|above| above.address), Some(ROOT.into()));
}

#[test]
fn a_super_under_two_names_is_one() {
    let mut node = below(&["10.8.0.1:80", ROOT]);
    let no = Answer::deny(Reason::Busy);
    let (id, ..) = calls(&mut node).remove(0);
    node.answered(1005, id, no);
    let joined = |call: &(CallId, String, Request), node: &mut Membership| {
        let path = vec![ROOT.to_string()];
        let answer = Answer::Joined { id: ROOT.into(), epoch: 3, path, heartbeat: 2000 };
        node.answered(1010, call.0, answer);
    };
    let second = calls(&mut node).remove(0);
    joined(&second, &mut node);
    outputs(&mut node);
    // the other name is its own, too: nobody is left
    node.transfer(1100, Token(1), "10.8.0.1:80".into());
    let third = calls(&mut node).remove(0);
    joined(&third, &mut node);
    assert!(calls(&mut node).is_empty());
    assert_eq!(node.standing().above.map(|above| above.address), Some("10.8.0.1:80".into()));
}

#[test]
fn a_snapshot_is_what_was_restored() {
    let above = Super { address: ROOT.into(), epoch: 3, index: Some(0) };
    let listed = super::fingerprint(&[ROOT.to_string()]);
    let moving = Some(("10.0.0.7:80".into(), 12));
    let standing = Standing {
        place: Place::Joined,
        above: Some(above),
        listed,
        moving,
        ..Standing::default()
    };
    let client = Client {
        address: CHILD.into(),
        epoch: 5,
        heard: 990,
        subtree: 2,
        moving: true,
        ..Client::default()
    };
    let snapshot = Snapshot { standing, clients: vec![client] };
    let config = Config::new(ME, 50, vec![ROOT.into()]);
    let mut node = Membership::restore(config.clone(), 1, 1000, allow(), snapshot.clone());
    assert_eq!(node.snapshot(), snapshot);
    assert_eq!(node.next_wake(), Some(1000)); // it beats at once
    // clients that could not beat while there was no router get time for it
    let late = Membership::restore(config.clone(), 1, 90_000, allow(), snapshot.clone());
    assert_eq!(late.clients().next().map(|client| client.heard), Some(86_000));
    let moved = ask(&mut node, 1100, beat(CHILD, 5, 2));
    assert_eq!(moved, Some(Answer::Move { to: "10.0.0.7:80".into(), transfer: 12 }));
    // another configuration: what a transfer gave is forgotten, the new super is asked at once
    let config = Config { supers: vec!["10.0.0.8:80".into()], ..config };
    let moved = Standing { moved: Some(ROOT.into()), ..snapshot.standing };
    let snapshot = Snapshot { standing: moved, ..snapshot };
    let mut node = Membership::restore(config, 1, 1000, allow(), snapshot);
    node.wake(1000);
    let to: Vec<String> = calls(&mut node).into_iter().map(|(_, to, _)| to).collect();
    assert_eq!(to, [ROOT, "10.0.0.8:80"]); // a heartbeat and a JOIN
}

#[test]
fn a_super_that_is_slow_to_move_its_router_is_not_lost() {
    let mut node = joined();
    let begin = node.next_wake().unwrap();
    let mut now = begin;
    while node.standing().place == Place::Joined {
        now = node.next_wake().unwrap();
        node.wake(now);
        for (id, ..) in calls(&mut node) {
            now += 1;
            node.failed(now, id);
        }
    }
    assert!((1400..2500).contains(&(now - begin)), "{}", now - begin);
}

#[test]
fn messages_are_read_with_care() {
    let parse = |text: &str| Request::parse(text.as_bytes());
    let more = r#"{"type":"HB","id":"10.0.0.2:80","epoch":5,"seq":9,"news":[1,{"a":2}]}"#;
    assert_eq!(
        parse(more),
        Ok(Request::Beat {
            id: CHILD.into(),
            epoch: 5,
            seq: 9,
            subtree: 1,
            path: 0,
            refused: None
        })
    );
    let long = format!(r#"{{"type":"LEAVE","id":"{}","epoch":5,"seq":9}}"#, "1".repeat(256));
    let wrong = [
        "",
        "{}",
        "[]",
        r#"{"type":"NEWS","id":"10.0.0.2:80"}"#,
        r#"{"type":"LEAVE","id":"10.0.0.2:80","epoch":-1,"seq":9}"#,
        r#"{"type":"LEAVE","id":"","epoch":5,"seq":9}"#,
        r#"{"type":"LEAVE","id":"10.0.0.2:80\r\nX: y","epoch":5,"seq":9}"#,
        r#"{"type":"LEAVE","id":"10.0.0.2:80 x","epoch":5,"seq":9}"#,
        long.as_str(),
        &format!("{}{more}", " ".repeat(MESSAGE_MAX)),
    ];
    for text in wrong {
        assert_eq!(parse(text), Err(Malformed), "{text}");
    }
    let deny = Answer::parse(br#"{"type":"DENY","reason":"because","more":1}"#);
    assert_eq!(deny, Ok(Answer::deny(Reason::Other)));
    let path = vec![CHILD.to_string(); PATH_MAX + 1];
    let answer = Answer::Heard { id: ROOT.into(), epoch: 1, path: Some(path) };
    assert_eq!(Answer::parse(answer.to_json().as_bytes()), Err(Malformed));
    assert_eq!(Answer::Ok.to_json(), r#"{"type":"OK"}"#);
    assert_eq!(leave(CHILD, 5, 9).sender(), CHILD);
}

#[test]
fn another_list_of_supers_counts_at_once_after_a_restore() {
    let above = Super { address: ROOT.into(), epoch: 3, index: Some(0) };
    let listed = super::fingerprint(&[ROOT.to_string()]);
    let standing =
        Standing { place: Place::Joined, above: Some(above), listed, ..Standing::default() };
    let snapshot = Snapshot { standing, clients: Vec::new() };
    let asks = |supers: Vec<String>| {
        let mut node =
            Membership::restore(Config::new(ME, 50, supers), 1, 1000, allow(), snapshot.clone());
        node.wake(1000);
        calls(&mut node).into_iter().map(|(_, to, message)| (to, message)).collect::<Vec<_>>()
    };
    let joins = |asked: &[(String, Request)], whom: &str| {
        asked.iter().any(|(to, message)| to == whom && matches!(message, Request::Join { .. }))
    };
    assert!(joins(&asks(vec!["10.0.0.8:80".into()]), "10.0.0.8:80"));
    assert!(!joins(&asks(vec![ROOT.into()]), ROOT));
}

#[test]
fn a_restored_node_takes_nobody_new_before_it_knows_who_is_above() {
    let config = Config::new(ME, 50, vec![ROOT.into()]);
    let above = Super { address: ROOT.into(), epoch: 7, index: Some(0) };
    let standing = Standing { place: Place::Joined, above: Some(above), ..Standing::default() };
    let kid = Client { address: CHILD.into(), epoch: 5, subtree: 1, ..Client::default() };
    let snapshot = Snapshot { standing, clients: vec![kid] };
    let mut node = Membership::restore(config, 1, 1000, allow(), snapshot);
    const GRAND: &str = "10.0.0.8:80";
    assert_eq!(ask(&mut node, 1000, join(GRAND, 5, 1)), Some(Answer::deny(Reason::Busy)));
    // one that it had is asked back at once
    assert_eq!(ask(&mut node, 1000, join(CHILD, 6, 1)), None);
    node.wake(1000);
    let beats = calls(&mut node);
    let beat =
        beats.iter().find(|(_, to, message)| to == ROOT && matches!(message, Request::Beat { .. }));
    let path = Some(vec![GRAND.to_string(), ROOT.to_string()]);
    node.answered(
        1001,
        beat.expect("a heartbeat").0,
        Answer::Heard { id: ROOT.into(), epoch: 7, path },
    );
    assert_eq!(ask(&mut node, 1002, join(GRAND, 5, 2)), Some(Answer::deny(Reason::Loop)));
}
