//! Whatever comes, and in whatever order.

use proptest::prelude::*;

use super::*;

fn addresses() -> impl Strategy<Value = String> {
    (0..6u8).prop_map(|n| format!("10.0.0.{n}:80"))
}

fn requests() -> impl Strategy<Value = Request> {
    let number = || 0..6u64;
    prop_oneof![
        (addresses(), number(), number(), addresses())
            .prop_map(|(id, epoch, seq, to)| Request::Join { id, epoch, seq, to, subtree: 9 }),
        (addresses(), number(), any::<u64>(), any::<u32>(), number()).prop_map(
            |(id, epoch, seq, subtree, path)| {
                let refused = (path == 1).then_some((path, Reason::Loop));
                Request::Beat { id, epoch, seq, subtree, path, refused }
            }
        ),
        (addresses(), number(), number()).prop_map(|(id, epoch, seq)| Request::Leave {
            id,
            epoch,
            seq
        }),
        (addresses(), addresses(), number()).prop_map(|(id, to, transfer)| Request::Move {
            id,
            to,
            transfer
        }),
        (addresses(), proptest::option::of(addresses()), number())
            .prop_map(|(id, to, nonce)| Request::Dial { id, to, nonce }),
    ]
}

fn answers() -> impl Strategy<Value = Option<Answer>> {
    let path = || prop::collection::vec(addresses(), 0..4);
    prop_oneof![
        Just(None),
        Just(Some(Answer::Unknown)),
        Just(Some(Answer::Ok)),
        (addresses(), path()).prop_map(|(id, path)| Some(Answer::Joined {
            id,
            epoch: 1,
            path,
            heartbeat: 0
        })),
        (addresses(), path()).prop_map(|(id, path)| Some(Answer::Heard {
            id,
            epoch: 1,
            path: Some(path)
        })),
        path().prop_map(|redirect| Some(Answer::Deny { reason: Reason::Full, redirect })),
        addresses().prop_map(|to| Some(Answer::Move { to, transfer: 1 })),
        addresses().prop_map(|id| Some(Answer::Dialled { id, epoch: 1, nonce: 1 })),
    ]
}

#[derive(Debug, Clone)]
enum Input {
    Wait(u64),
    Request(Request),
    Answer(u64, Option<Answer>),
    Transfer(String),
    TransferClients(String),
    Supers(Vec<String>),
    Report(String),
    Invalid(String),
    Leave,
}

fn inputs() -> impl Strategy<Value = Input> {
    prop_oneof![
        4 => (0..5000u64).prop_map(Input::Wait),
        8 => requests().prop_map(Input::Request),
        8 => (0..9u64, answers()).prop_map(|(call, answer)| Input::Answer(call, answer)),
        1 => addresses().prop_map(Input::Transfer),
        1 => addresses().prop_map(Input::TransferClients),
        1 => prop::collection::vec(addresses(), 0..3).prop_map(Input::Supers),
        1 => addresses().prop_map(Input::Report),
        1 => addresses().prop_map(Input::Invalid),
        1 => Just(Input::Leave),
    ]
}

proptest! {
    /// Whatever comes: each request is answered once, each command is reported once, the zone has what
    /// the node has, and it does not call without end.
    #[test]
    fn any_inputs_are_borne(inputs in prop::collection::vec(inputs(), 1..80)) {
        let mut node = below(&["10.0.0.0:80", "10.0.0.4:80"]);
        let (mut now, mut token) = (1000, 0);
        let (mut waiting, mut clients) = (std::collections::BTreeSet::new(), std::collections::BTreeMap::new());
        let mut standing = node.standing();
        let mut made = 0;
        let end = [Input::Wait(60_000), Input::Wait(60_000)];
        for input in inputs.into_iter().chain(end) {
            token += 1;
            let waits = matches!(
                input,
                Input::Request(_) | Input::Transfer(_) | Input::TransferClients(_) | Input::Report(_) | Input::Leave
            );
            if waits {
                waiting.insert(Token(token));
            }
            match input {
                Input::Wait(time) => now += time,
                Input::Request(request) => node.request(now, Token(token), request),
                Input::Answer(back, answer) => {
                    let call = CallId(node.last_call.saturating_sub(back));
                    match answer {
                        Some(answer) => node.answered(now, call, answer),
                        None => node.failed(now, call),
                    }
                }
                Input::Transfer(to) => node.transfer(now, Token(token), to),
                Input::TransferClients(to) => node.transfer_clients(now, Token(token), to, Which::All),
                Input::Supers(supers) => node.set_supers(now, supers),
                Input::Report(address) => node.report(now, Token(token), address),
                Input::Invalid(address) => node.invalid_client(now, &address),
                Input::Leave => node.leave(now, Token(token)),
            }
            let mut rounds = 0;
            loop {
                for output in outputs(&mut node) {
                    match output {
                        Output::Call { .. } => made += 1,
                        Output::Answer { token, .. } | Output::Done { token, .. } => {
                            prop_assert!(waiting.remove(&token), "{:?} twice", token);
                        }
                        Output::Standing(new) => standing = new,
                        Output::Client(client) => drop(clients.insert(client.address.clone(), client)),
                        Output::ClientGone { address, .. } => prop_assert!(clients.remove(&address).is_some()),
                        Output::Note(_) => {}
                    }
                }
                if node.next_wake().is_none_or(|at| at > now) {
                    break;
                }
                node.wake(now);
                rounds += 1;
                prop_assert!(rounds < 50, "it has no rest");
            }
            prop_assert_eq!(&node.standing(), &standing);
            prop_assert!(node.clients().eq(clients.values().cloned()));
            prop_assert!(node.calls.len() < 200 && made < 2000);
        }
        // a minute later: all calls have failed
        let end = now + 60_000;
        while let Some(at) = node.next_wake().filter(|at| *at < end) {
            node.wake(at.max(now));
            for output in outputs(&mut node) {
                if let Output::Answer { token, .. } | Output::Done { token, .. } = output {
                    prop_assert!(waiting.remove(&token), "{:?} twice", token);
                }
            }
            now = at.max(now);
        }
        prop_assert!(waiting.is_empty(), "{:?} still wait", waiting);
    }
}
