//! What nodes say about themselves: read, written again, and fed to a node.

use ngx_http_cc_module::proto::cluster::membership::message::{Answer, Request};
use ngx_http_cc_module::proto::cluster::membership::moving::Which;
use ngx_http_cc_module::proto::cluster::membership::output::{CallId, Output, Token};
use ngx_http_cc_module::proto::cluster::membership::{Config, Membership};

use crate::input::Input;

/// Wakes at one and the same moment after which a node is taken to turn on the spot.
const SPIN: u32 = 1000;

/// Takes any bytes: lines, each with a byte that says what to do with it.
pub fn run(data: &[u8]) {
    let supers = ["10.0.0.2:80", "10.0.0.3:80"].map(String::from);
    let config = Config::new("10.0.0.1:80", 5, supers.to_vec());
    let allow = |address: &str| !address.contains("66");
    let mut node = Membership::new(config.clone(), 1, 1000, Box::new(allow));
    let (mut now, mut calls) = (1000u64, Vec::new());
    for (token, line) in (0..).zip(data.split(|byte| *byte == b'\n')) {
        let mut input = Input(line);
        match input.byte() {
            b'?' => {
                if let Ok(request) = Request::parse(input.0) {
                    let again = Request::parse(request.to_json().as_bytes());
                    assert_eq!(again.as_ref(), Ok(&request));
                    let _ = request.sender();
                    node.request(now, Token(token), request);
                }
            }
            b'!' => {
                if let Ok(answer) = Answer::parse(input.0) {
                    assert_eq!(Answer::parse(answer.to_json().as_bytes()).as_ref(), Ok(&answer));
                    if let Some((id, _)) = calls.pop() {
                        node.answered(now, id, answer);
                    }
                }
            }
            b'-' => calls.drain(..).for_each(|(id, _)| node.failed(now, id)),
            b'd' => dial(&mut node, now, &mut calls),
            b'>' => node.transfer(now, Token(token), input.string(80)),
            b'<' => node.transfer_clients(now, Token(token), input.string(80), Which::All),
            b'r' => node.report(now, Token(token), input.string(80)),
            b'w' => {
                let _ = node.report_worker(&input.string(80), input.below(65536) as u16);
            }
            b'i' => node.invalid_client(now, &String::from_utf8_lossy(input.0)),
            b's' => node.set_supers(now, input.string(200).split(',').map(String::from).collect()),
            b'l' => node.leave(now, Token(token)),
            b'R' => {
                let snapshot = node.snapshot();
                node = Membership::restore(config.clone(), token, now, Box::new(allow), snapshot);
                calls.clear();
            }
            step => now = sleep(&mut node, now, u64::from(step) * 50),
        }
        drain(&mut node, &mut calls);
        check(&node);
    }
    sleep(&mut node, now, 100_000);
    drain(&mut node, &mut calls);
    check(&node);
}

/// Everybody whom the node calls back is who he says.
fn dial(node: &mut Membership, now: u64, calls: &mut Vec<(CallId, Request)>) {
    for (id, message) in std::mem::take(calls) {
        match message {
            Request::Dial { to, nonce, .. } => {
                let id_of = to.unwrap_or_default();
                node.answered(now, id, Answer::Dialled { id: id_of, epoch: 1, nonce });
            }
            _ => calls.push((id, message)),
        }
    }
}

fn drain(node: &mut Membership, calls: &mut Vec<(CallId, Request)>) {
    let mut outputs = 0;
    while let Some(output) = node.output() {
        outputs += 1;
        assert!(outputs < 10_000, "{output:?} and no end");
        if let Output::Call { id, message, .. } = output {
            calls.push((id, message));
        }
    }
}

fn sleep(node: &mut Membership, now: u64, time: u64) -> u64 {
    let (until, mut at, mut times) = (now + time, now, 0);
    while let Some(next) = node.next_wake().filter(|next| *next <= until) {
        times = if next > at { 0 } else { times + 1 };
        assert!(times < SPIN, "wakes at {at} again and again");
        at = at.max(next);
        node.wake(at);
        while node.output().is_some() {}
    }
    until
}

fn check(node: &Membership) {
    assert!(node.clients().count() <= 256);
    let path = node.path();
    assert!(path.len() <= 64 && path.last().is_some_and(|last| last == "10.0.0.1:80"));
    let _ = (node.standing(), node.is_root());
}
