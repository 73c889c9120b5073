//! Who calls: whether a call is proven, by whom, or why it is refused. A secret is the only proof
//! where there is one; without one it is the connection, if both ends of it are on this machine.
//! Nothing that a caller writes counts before its proof does.

use super::action::shown;
use super::cast::{Passage, PassageError};
use super::secret::Secrets;
use super::sign::{Auth, Call, Receipt};
use super::window::{Nonce, Stamp, Verdict};

/// This node.
#[derive(Clone, Copy, Debug)]
pub struct Me<'a> {
    /// The cluster's name.
    pub cluster: &'a str,
    /// `cc_node`: what calls to this node have as receiver.
    pub node: &'a str,
    /// `cc_secret_file`.
    pub secrets: Option<&'a Secrets>,
}

/// A call as it came in.
#[derive(Clone, Copy, Debug)]
pub struct Incoming<'a> {
    /// The header CC-Auth.
    pub auth: Option<&'a [u8]>,
    /// The header CC-Cast.
    pub cast: Option<&'a [u8]>,
    /// Whether who calls is on this machine, by the kernel's word.
    pub local: bool,
    /// As it came.
    pub method: &'a [u8],
    /// Of the location.
    pub channel: &'a [u8],
    /// Path and query, as they came.
    pub target: &'a [u8],
    /// The header; "" where there is none.
    pub content_type: &'a [u8],
    /// All of it.
    pub body: &'a [u8],
}

/// What is known of who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof<'a> {
    /// A node that has the secret; the call is new and for this node.
    Signed {
        /// The node's address, as it calls itself.
        sender: &'a str,
        /// The tree cast that the call belongs to.
        passage: Option<Passage>,
        /// To sign the answer with.
        receipt: Receipt,
    },
    /// Somebody on this machine, where there is no secret.
    Local {
        /// The tree cast that the call belongs to.
        passage: Option<Passage>,
    },
    /// Somebody. May run what the location lets anybody run, but change nothing in the cluster.
    Anybody,
    /// A node that has the secret, but the call may have run already: 401, and this to sign in.
    Challenged {
        /// For the header CC-Challenge, and the body.
        nonce: Nonce,
        /// To sign the answer with.
        receipt: Receipt,
    },
    /// Not to run.
    Refused(Refusal<'a>),
}

/// Why a call is not to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal<'a> {
    /// Of CC-Auth.
    #[error("invalid CC-Auth header")]
    Header,
    /// No `cc_secret_file` here.
    #[error("the call is signed, but this node has no secret")]
    NoSecret,
    /// None of the secrets here.
    #[error("the call is signed with an unknown secret")]
    UnknownSecret,
    /// Another node was meant, or this one has another name.
    #[error("the call is signed for node \"{}\"", shown(.0.as_bytes()))]
    Receiver(&'a str),
    /// The other end calls itself as this node does.
    #[error("the call is signed in this node's own name")]
    Own,
    /// Something was changed.
    #[error("the signature is wrong")]
    Signature,
    /// It was here.
    #[error("the call was here before")]
    Replayed,
    /// The table of peers is locked.
    #[error("the table of peers is busy")]
    Busy,
    /// Of CC-Cast.
    #[error(transparent)]
    Cast(PassageError),
}

impl Refusal<'_> {
    /// The status for it.
    pub fn status(&self) -> u16 {
        match self {
            Refusal::Busy => 503,
            Refusal::Cast(_) => 400,
            _ => 403,
        }
    }
}

impl<'a> Proof<'a> {
    /// Whether who calls may change the cluster.
    pub fn may_change(&self) -> bool {
        matches!(self, Proof::Signed { .. } | Proof::Local { .. })
    }

    /// The tree cast that the call belongs to.
    pub fn passage(&self) -> Option<Passage> {
        match self {
            Proof::Signed { passage, .. } | Proof::Local { passage } => *passage,
            _ => None,
        }
    }

    /// What the answer is to be signed with.
    pub fn receipt(&self) -> Option<&Receipt> {
        match self {
            Proof::Signed { receipt, .. } | Proof::Challenged { receipt, .. } => Some(receipt),
            _ => None,
        }
    }
}

/// Decides who calls. `admit` is the table of peers: whether the call of a sender is new; None
/// where it cannot be asked. It is asked only about calls whose signature is right.
pub fn check<'a>(
    me: Me<'_>,
    call: Incoming<'a>,
    admit: impl FnOnce(&str, Stamp) -> Option<Verdict>,
) -> Proof<'a> {
    let decided = match call.auth {
        Some(header) => signed(me, call, header, admit),
        None if me.secrets.is_none() && call.local => {
            passage(call).map(|passage| Proof::Local { passage })
        }
        None => Ok(Proof::Anybody),
    };
    decided.unwrap_or_else(Proof::Refused)
}

fn signed<'a>(
    me: Me<'_>,
    incoming: Incoming<'a>,
    header: &'a [u8],
    admit: impl FnOnce(&str, Stamp) -> Option<Verdict>,
) -> Result<Proof<'a>, Refusal<'a>> {
    let secrets = me.secrets.ok_or(Refusal::NoSecret)?;
    let auth = Auth::parse(header).ok_or(Refusal::Header)?;
    let secret = secrets.named(&auth.kid).ok_or(Refusal::UnknownSecret)?;
    let call = Call {
        cluster: me.cluster,
        sender: auth.sender,
        receiver: auth.receiver,
        method: incoming.method,
        channel: incoming.channel,
        target: incoming.target,
        content_type: incoming.content_type,
        cast: incoming.cast.unwrap_or_default(),
        body: incoming.body,
    };
    let receipt = call.verify(secret, &auth).ok_or(Refusal::Signature)?;
    if auth.receiver != me.node {
        return Err(Refusal::Receiver(auth.receiver));
    }
    if auth.sender == me.node {
        return Err(Refusal::Own);
    }
    match admit(auth.sender, auth.stamp).ok_or(Refusal::Busy)? {
        Verdict::Admitted => {
            Ok(Proof::Signed { sender: auth.sender, passage: passage(incoming)?, receipt })
        }
        Verdict::Challenged(nonce) => Ok(Proof::Challenged { nonce, receipt }),
        Verdict::Replayed => Err(Refusal::Replayed),
    }
}

fn passage(call: Incoming<'_>) -> Result<Option<Passage>, Refusal<'static>> {
    call.cast.map(Passage::parse).transpose().map_err(Refusal::Cast)
}

#[cfg(test)]
mod tests {
    use super::super::cast::CastId;
    use super::super::window::Known;
    use super::*;
    use proptest::prelude::*;
    use std::cell::RefCell;

    const KEYS: &[u8] = b"0123456789abcdef0123456789abcdef";

    /// A node that gets calls, and one that makes them.
    struct Pair {
        secrets: Option<Secrets>,
        known: RefCell<Known>,
    }

    const CALL: Call<'_> = Call {
        cluster: "cc",
        sender: "10.0.0.2:80",
        receiver: "10.0.0.1:80",
        method: b"GET",
        channel: b"test",
        target: b"/test/hub?x",
        content_type: b"",
        cast: b"",
        body: b"",
    };

    fn stamp(counter: u64, nonce: Option<Nonce>) -> Stamp {
        Stamp { epoch: 5, counter, nonce }
    }

    fn incoming<'a>(call: &Call<'a>, auth: Option<&'a [u8]>) -> Incoming<'a> {
        Incoming {
            auth,
            cast: Some(call.cast).filter(|cast| !cast.is_empty()),
            local: false,
            method: call.method,
            channel: call.channel,
            target: call.target,
            content_type: call.content_type,
            body: call.body,
        }
    }

    impl Pair {
        fn new(secret: bool) -> Pair {
            let secrets = secret.then(|| Secrets::parse(KEYS).unwrap());
            Pair { secrets, known: RefCell::new(Known::default()) }
        }

        fn sees<'a>(&self, call: Incoming<'a>) -> Proof<'a> {
            let me = Me { cluster: "cc", node: "10.0.0.1:80", secrets: self.secrets.as_ref() };
            check(me, call, |sender, stamp| {
                assert_ne!(sender, "10.0.0.1:80");
                Some(self.known.borrow_mut().admit(stamp, 1, [9; 16]))
            })
        }

        /// Opens the epoch.
        fn opened() -> Pair {
            let pair = Pair::new(true);
            let first = sign(&CALL, stamp(1, None));
            let Proof::Challenged { nonce, receipt } = pair.sees(incoming(&CALL, Some(&first)))
            else {
                panic!("no challenge");
            };
            assert!(receipt.sign(pair.secrets.as_ref().unwrap(), 401, b"").is_some());
            let second = sign(&CALL, stamp(2, Some(nonce)));
            let proof = pair.sees(incoming(&CALL, Some(&second)));
            assert!(matches!(proof, Proof::Signed { sender: "10.0.0.2:80", passage: None, .. }));
            pair
        }
    }

    fn sign(call: &Call<'_>, stamp: Stamp) -> Vec<u8> {
        call.sign(&Secrets::parse(KEYS).unwrap(), stamp).unwrap().0.into_bytes()
    }

    fn refusal(proof: Proof<'_>) -> (u16, String) {
        let Proof::Refused(refusal) = proof else { panic!("{proof:?}") };
        (refusal.status(), refusal.to_string())
    }

    #[test]
    fn a_signed_call_is_proven_once() {
        let pair = Pair::opened();
        let header = sign(&CALL, stamp(3, None));
        let call = incoming(&CALL, Some(&header));
        let proof = pair.sees(call);
        assert!(proof.may_change() && proof.receipt().is_some());
        assert_eq!(refusal(pair.sees(call)), (403, "the call was here before".into()));
        let local = Incoming { local: true, ..call };
        assert_eq!(refusal(pair.sees(local)).0, 403, "nor from this machine");
    }

    #[test]
    fn each_refusal_has_its_reason() {
        let pair = Pair::opened();
        let header = sign(&CALL, stamp(4, None));
        let call = incoming(&CALL, Some(&header));
        for (changed, reason) in [
            (Incoming { auth: Some(b"v1 nonsense"), ..call }, "invalid CC-Auth header"),
            (Incoming { method: b"PUT", ..call }, "the signature is wrong"),
            (Incoming { channel: b"kada", ..call }, "the signature is wrong"),
            (Incoming { target: b"/test/hub?y", ..call }, "the signature is wrong"),
            (Incoming { content_type: b"a/b", ..call }, "the signature is wrong"),
            (Incoming { cast: Some(b"tree"), ..call }, "the signature is wrong"),
            (Incoming { body: b"x", ..call }, "the signature is wrong"),
        ] {
            assert_eq!(refusal(pair.sees(changed)), (403, reason.into()));
        }
        for (call, reason) in [
            (
                Call { receiver: "10.0.0.3:80", ..CALL },
                "the call is signed for node \"10.0.0.3:80\"",
            ),
            (Call { sender: "10.0.0.1:80", ..CALL }, "the call is signed in this node's own name"),
            (Call { cluster: "other", ..CALL }, "the signature is wrong"),
        ] {
            let header = sign(&call, stamp(4, None));
            assert_eq!(refusal(pair.sees(incoming(&call, Some(&header)))), (403, reason.into()));
        }
        let strange = Secrets::parse(b"another secret of at least 32 bytes").unwrap();
        let header = CALL.sign(&strange, stamp(4, None)).unwrap().0.into_bytes();
        let proof = pair.sees(incoming(&CALL, Some(&header)));
        assert_eq!(refusal(proof).1, "the call is signed with an unknown secret");
        let header = sign(&CALL, stamp(4, None));
        let proof = Pair::new(false).sees(incoming(&CALL, Some(&header)));
        assert_eq!(refusal(proof).1, "the call is signed, but this node has no secret");
        let me = Me { cluster: "cc", node: "10.0.0.1:80", secrets: pair.secrets.as_ref() };
        let busy = check(me, incoming(&CALL, Some(&header)), |_, _| None);
        assert_eq!(refusal(busy), (503, "the table of peers is busy".into()));
        // none of them has used up the counter
        assert!(pair.sees(incoming(&CALL, Some(&header))).may_change());
    }

    #[test]
    fn without_a_secret_this_machine_is_trusted_and_with_one_it_is_not() {
        for (secret, local, proof) in [
            (false, true, Proof::Local { passage: None }),
            (false, false, Proof::Anybody),
            (true, true, Proof::Anybody),
            (true, false, Proof::Anybody),
        ] {
            let call = Incoming { local, ..incoming(&CALL, None) };
            assert_eq!(Pair::new(secret).sees(call), proof);
        }
    }

    #[test]
    fn a_cast_counts_when_its_call_is_proven() {
        let passage = Passage { id: CastId([1; 16]), hops: 2, deadline: 100 };
        let header = passage.header();
        let call = Call { cast: header.as_bytes(), ..CALL };
        let pair = Pair::opened();
        assert_eq!(pair.sees(incoming(&call, None)).passage(), None);
        let auth = sign(&call, stamp(3, None));
        assert_eq!(pair.sees(incoming(&call, Some(&auth))).passage(), Some(passage));
        let local = Incoming { local: true, ..incoming(&call, None) };
        assert_eq!(Pair::new(false).sees(local).passage(), Some(passage));
        let bad = Incoming { cast: Some(b"tree; hops=99"), ..local };
        assert_eq!(refusal(Pair::new(false).sees(bad)), (400, "invalid CC-Cast header".into()));
        assert_eq!(Pair::new(false).sees(Incoming { local: false, ..bad }), Proof::Anybody);
    }

    proptest! {
        #[test]
        fn nothing_but_a_signature_proves(header in prop::collection::vec(any::<u8>(), 0..200), local in any::<bool>()) {
            let call = Incoming { local, ..incoming(&CALL, Some(&header)) };
            prop_assert!(matches!(Pair::new(true).sees(call), Proof::Refused(_)));
            prop_assert!(matches!(Pair::new(false).sees(call), Proof::Refused(_)));
        }
    }
}
