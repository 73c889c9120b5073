//! Who calls: signed headers, made up ones and changed ones. Nothing but what was signed is proven.

use std::collections::HashSet;

use ngx_http_cc_module::proto::cluster::check::{Incoming, Me, Proof, check};
use ngx_http_cc_module::proto::cluster::secret::Secrets;
use ngx_http_cc_module::proto::cluster::sign::{Auth, Call, Receipt, challenged};
use ngx_http_cc_module::proto::cluster::window::{Known, Stamp, Verdict};

use crate::input::Input;

const KEYS: &[u8] = b"0123456789abcdef0123456789abcdef\nfedcba9876543210fedcba9876543210\n";

/// Takes any bytes.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    match input.byte() % 4 {
        0 => made_up(input),
        1 => changed(input),
        2 => file(input.0),
        _ => window(input),
    }
}

fn incoming<'a>(auth: &'a [u8], cast: Option<&'a [u8]>, body: &'a [u8]) -> Incoming<'a> {
    Incoming {
        auth: Some(auth),
        cast,
        local: true,
        method: b"POST",
        channel: b"main",
        target: b"/main?who",
        content_type: b"",
        body,
    }
}

fn me(secrets: &Secrets) -> Me<'_> {
    Me { cluster: "c", node: "10.0.0.1:80", secrets: Some(secrets) }
}

/// Nobody without a secret is let in.
fn made_up(input: Input<'_>) {
    let Ok(secrets) = Secrets::parse(KEYS) else { return };
    let header = input.0;
    if let Some(auth) = Auth::parse(header) {
        assert!(auth.stamp.epoch > 0 && auth.stamp.counter > 0);
        assert!(auth.sender.len() <= 64 && auth.receiver.len() <= 64);
    }
    let proof = check(me(&secrets), incoming(header, Some(header), header), |_, _| {
        unreachable!("only who has the secret is asked about")
    });
    assert!(!proof.may_change());
    let _ = challenged(header);
}

/// A call that was signed, and then changed by some bytes.
fn changed(mut input: Input<'_>) {
    let Ok(secrets) = Secrets::parse(KEYS) else { return };
    let stamp = Stamp { epoch: input.word().max(1), counter: input.word().max(1), nonce: None };
    let sender = input.string(40);
    let body = input.text(64);
    let call = Call {
        cluster: "c",
        sender: &sender,
        receiver: "10.0.0.1:80",
        method: b"POST",
        channel: b"main",
        target: b"/main?who",
        content_type: b"",
        cast: b"",
        body,
    };
    let Ok((header, receipt)) = call.sign(&secrets, stamp) else { return };
    let (mut other, mut text) = (header.clone().into_bytes(), body.to_vec());
    for _ in 0..input.byte() % 4 {
        let (at, xor) = (input.below(other.len() + text.len()), input.byte());
        let byte = other.iter_mut().chain(&mut text).nth(at);
        byte.into_iter().for_each(|byte| *byte ^= xor);
    }
    let proof = check(me(&secrets), incoming(&other, None, &text), |_, _| Some(Verdict::Admitted));
    let same = other == header.as_bytes() && text == body && sender != "10.0.0.1:80";
    assert_eq!(proof.may_change(), same, "{proof:?}");
    if same {
        assert!(matches!(proof, Proof::Signed { sender: by, .. } if by == sender));
    }
    answered(&secrets, receipt, input);
}

fn answered(secrets: &Secrets, receipt: Receipt, mut input: Input<'_>) {
    let Some(header) = receipt.sign(secrets, 200, b"body") else { panic!("not signed") };
    assert!(receipt.verifies(secrets, header.as_bytes(), 200, b"body"));
    let mut other = header.clone().into_bytes();
    let (at, xor) = (input.below(other.len()), input.byte());
    other[at] ^= xor;
    assert_eq!(receipt.verifies(secrets, &other, 200, b"body"), xor == 0);
    assert!(!receipt.verifies(secrets, input.0, 200, b"body") || input.0 == header.as_bytes());
}

fn file(file: &[u8]) {
    if let Ok(secrets) = Secrets::parse(file) {
        let kid = *secrets.current().kid();
        assert!(secrets.named(&kid).is_some() && file.len() >= 32);
    }
}

/// No call is admitted twice, whatever comes between: a peer signs calls, whose counters grow in each
/// of its lives; they arrive in any order, and again.
fn window(mut input: Input<'_>) {
    let mut known = Known::default();
    let (mut signed, mut counters, mut ran) = (Vec::new(), [0u64; 3], HashSet::new());
    let (mut now, mut nonces) = (1, 0u8);
    while !input.is_empty() && nonces < u8::MAX {
        now += u64::from(input.byte()) << (input.byte() % 12);
        let life = usize::from(input.byte() % 3);
        let what = input.byte() % 4;
        if what < 2 {
            let skipped = if input.byte() % 16 == 0 { input.word() } else { 0 };
            counters[life] = counters[life].saturating_add(1).saturating_add(skipped);
            if counters[life] < u64::MAX {
                let nonce = (what == 1).then_some(known.pending);
                signed.push(Stamp { epoch: 1 + life as u64, counter: counters[life], nonce });
            }
        }
        let Some(at) =
            signed.len().checked_sub(1 + input.below(signed.len()) * usize::from(what > 2))
        else {
            continue;
        };
        // a nonce is given out once
        nonces += 1;
        let stamp = signed[at];
        if known.admit(stamp, now, [nonces; 16]) == Verdict::Admitted {
            assert!(ran.insert((stamp.epoch, stamp.counter)), "{stamp:?} twice");
        }
    }
}
