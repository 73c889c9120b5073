//! Signatures of the calls between nodes, and of their answers: what they cover, and the header
//! `CC-Auth` that has them. Whether a signed call may run, `check` decides.
//!
//! A call's signature is HMAC-SHA256 with the secret over these, joined by line feeds: `cc1`, kid,
//! cluster, sender, epoch, counter, nonce or nothing, receiver, method, channel, path and query as
//! sent, Content-Type, CC-Cast, SHA-256 of the body in hexadecimal digits. An answer's is over `cc1
//! answer`, kid, the call's signature in hexadecimal digits, status, SHA-256 of the body. So an
//! answer belongs to one call, and none is taken for the other.

use std::str;

use sha2::{Digest as _, Sha256};

use super::secret::{Kid, Mac, Secret, Secrets, hex, unhex};
use super::window::{Nonce, Stamp};

/// The header of both signatures.
pub const AUTH: &str = "CC-Auth";
/// The header of an answer with 401: the nonce to sign in.
pub const CHALLENGE: &str = "CC-Challenge";
/// How often a call is sent at most: its counter may be unknown, then too low.
pub const TRIES: u32 = 3;
/// Longest header that is read, in bytes.
const AUTH_MAX: usize = 512;
/// Longest name of a node, in bytes.
const NODE_MAX: usize = 64;

/// A call, as far as it is signed.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The cluster's name.
    pub cluster: &'a str,
    /// `HOST:PORT` of who calls.
    pub sender: &'a str,
    /// And of who is called, by its own name.
    pub receiver: &'a str,
    /// As sent.
    pub method: &'a [u8],
    /// The channel's name.
    pub channel: &'a [u8],
    /// Path and query, as sent.
    pub target: &'a [u8],
    /// The header's value; "" where there is none.
    pub content_type: &'a [u8],
    /// The header CC-Cast; "" where there is none.
    pub cast: &'a [u8],
    /// All of it.
    pub body: &'a [u8],
}

/// What an answer's signature refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    kid: Kid,
    mac: Mac,
}

/// A part of the call holds a line feed, or a name is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the call cannot be signed")]
pub struct Unsignable;

/// A call's header, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Auth<'a> {
    /// Which secret.
    pub kid: Kid,
    /// Who calls.
    pub sender: &'a str,
    /// In which order.
    pub stamp: Stamp,
    /// Who is called.
    pub receiver: &'a str,
    /// The signature.
    pub mac: Mac,
}

impl Call<'_> {
    /// Signs the call: the header's value, and what its answer must refer to.
    pub fn sign(&self, secrets: &Secrets, stamp: Stamp) -> Result<(String, Receipt), Unsignable> {
        let secret = secrets.current();
        let mac = self.mac_with(secret, stamp, Secret::sign).ok_or(Unsignable)?;
        let (sender, receiver) = (self.sender, self.receiver);
        if !is_node(sender) || !is_node(receiver) {
            return Err(Unsignable);
        }
        let nonce = stamp.nonce.map(|nonce| format!("nonce={},", text(&nonce)));
        let header = format!(
            "v1 kid={},id={sender},ep={},ctr={},to={receiver},{}mac={}",
            String::from_utf8_lossy(secret.kid()),
            stamp.epoch,
            stamp.counter,
            nonce.unwrap_or_default(),
            text(&mac),
        );
        Ok((header, Receipt { kid: *secret.kid(), mac }))
    }

    /// Whether the call has the signature that its header says; what its answer refers to.
    pub fn verify(&self, secret: &Secret, auth: &Auth<'_>) -> Option<Receipt> {
        let call = Call { sender: auth.sender, receiver: auth.receiver, ..*self };
        let good =
            call.mac_with(secret, auth.stamp, |secret, text| secret.verifies(text, &auth.mac));
        good?.then_some(Receipt { kid: *secret.kid(), mac: auth.mac })
    }

    /// None where a part holds a line feed: two calls could have the same text.
    fn mac_with<T>(
        &self,
        secret: &Secret,
        stamp: Stamp,
        with: impl FnOnce(&Secret, &[&[u8]]) -> T,
    ) -> Option<T> {
        let (epoch, counter) = (stamp.epoch.to_string(), stamp.counter.to_string());
        let nonce = stamp.nonce.map(|nonce| hex(&nonce)).unwrap_or_default();
        let body = hex(&Sha256::digest(self.body));
        lines(
            [
                b"cc1",
                secret.kid(),
                self.cluster.as_bytes(),
                self.sender.as_bytes(),
                epoch.as_bytes(),
                counter.as_bytes(),
                &nonce,
                self.receiver.as_bytes(),
                self.method,
                self.channel,
                self.target,
                self.content_type,
                self.cast,
                &body,
            ],
            |text| with(secret, text),
        )
    }
}

impl Receipt {
    /// The header's value for the answer to the call.
    pub fn sign(&self, secrets: &Secrets, status: u16, body: &[u8]) -> Option<String> {
        let mac = self.mac_with(secrets.named(&self.kid)?, status, body, Secret::sign)?;
        Some(format!("v1 kid={},mac={}", String::from_utf8_lossy(&self.kid), text(&mac)))
    }

    /// Whether the answer is the one that the receiver of the call gave.
    pub fn verifies(&self, secrets: &Secrets, header: &[u8], status: u16, body: &[u8]) -> bool {
        let good = || {
            let mut fields = fields(header)?;
            let kid = fields.next_named("kid")?.as_bytes();
            let mac = unhex(fields.last_named("mac")?.as_bytes())?;
            let secret = secrets.named(&self.kid).filter(|_| *kid == self.kid)?;
            self.mac_with(secret, status, body, |secret, text| secret.verifies(text, &mac))
        };
        good().unwrap_or(false)
    }

    fn mac_with<T>(
        &self,
        secret: &Secret,
        status: u16,
        body: &[u8],
        with: impl FnOnce(&Secret, &[&[u8]]) -> T,
    ) -> Option<T> {
        let (call, status, body) = (hex(&self.mac), status.to_string(), hex(&Sha256::digest(body)));
        let parts: [&[u8]; 5] = [b"cc1 answer", &self.kid, &call, status.as_bytes(), &body];
        lines(parts, |text| with(secret, text))
    }
}

/// The parts, joined by line feeds; none where one holds such.
fn lines<T, const N: usize>(parts: [&[u8]; N], with: impl FnOnce(&[&[u8]]) -> T) -> Option<T> {
    if parts.iter().any(|part| part.contains(&b'\n')) {
        return None;
    }
    let mut text: Vec<&[u8]> = Vec::with_capacity(2 * N);
    for part in parts {
        text.extend([part, b"\n"]);
    }
    text.pop();
    Some(with(&text))
}

impl<'a> Auth<'a> {
    /// Reads a call's header: exactly what [`Call::sign`] writes.
    pub fn parse(header: &'a [u8]) -> Option<Auth<'a>> {
        let mut fields = fields(header)?;
        let kid = fields.next_named("kid")?.as_bytes().try_into().ok()?;
        let sender = fields.next_named("id").filter(|id| is_node(id))?;
        let (epoch, counter) =
            (number(fields.next_named("ep")?)?, number(fields.next_named("ctr")?)?);
        let receiver = fields.next_named("to").filter(|id| is_node(id))?;
        let nonce = match fields.next_named("nonce") {
            Some(nonce) => Some(unhex(nonce.as_bytes())?),
            None => None,
        };
        let mac = unhex(fields.last_named("mac")?.as_bytes())?;
        Some(Auth { kid, sender, stamp: Stamp { epoch, counter, nonce }, receiver, mac })
    }
}

/// Whether it can be a node's name: `HOST:PORT`.
fn is_node(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-.:[]_".contains(&byte);
    (1..=NODE_MAX).contains(&name.len()) && name.bytes().all(fits)
}

/// The fields behind the version.
fn fields(header: &[u8]) -> Option<Fields<'_>> {
    let short = Some(header).filter(|header| header.len() <= AUTH_MAX)?;
    str::from_utf8(short).ok()?.strip_prefix("v1 ").map(|left| Fields { left: Some(left) })
}

/// `NAME=VALUE`, with commas between.
struct Fields<'a> {
    left: Option<&'a str>,
}

impl<'a> Fields<'a> {
    /// The next one's value, where it has that name and is not the last.
    fn next_named(&mut self, name: &str) -> Option<&'a str> {
        let (field, left) = self.left?.split_once(',')?;
        let value = field.strip_prefix(name)?.strip_prefix('=')?;
        self.left = Some(left);
        Some(value)
    }

    /// The last one's.
    fn last_named(self, name: &str) -> Option<&'a str> {
        self.left?.strip_prefix(name)?.strip_prefix('=')
    }
}

/// A number as it is written: without sign or zeros in front, not 0.
fn number(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    text.parse().ok().filter(|_| digits)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(hex(bytes)).unwrap_or_default() // digits are UTF-8
}

/// A nonce as the header [`CHALLENGE`] has it.
pub fn challenge(nonce: &Nonce) -> String {
    text(nonce)
}

/// The nonce of the header [`CHALLENGE`].
pub fn challenged(header: &[u8]) -> Option<Nonce> {
    unhex(header)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CALL: Call<'_> = Call {
        cluster: "cc",
        sender: "10.0.0.1:80",
        receiver: "[::1]:8080",
        method: b"POST",
        channel: b"test",
        target: b"/test/hub?heartbeat",
        content_type: b"application/json",
        cast: b"",
        body: b"{}",
    };
    const STAMP: Stamp = Stamp { epoch: 1_700_000_000_000, counter: 7, nonce: Some([0xab; 16]) };

    fn secrets() -> Secrets {
        Secrets::parse(b"0123456789abcdef0123456789abcdef\nfedcba9876543210fedcba9876543210\n")
            .unwrap()
    }

    fn verified(secrets: &Secrets, call: &Call<'_>, header: &str) -> Option<Receipt> {
        let auth = Auth::parse(header.as_bytes())?;
        call.verify(secrets.named(&auth.kid)?, &auth)
    }

    #[test]
    fn the_header_is_what_it_was() {
        // made with another HMAC-SHA256: python3's hmac module, over the text of the module's head
        let (header, _) = CALL.sign(&secrets(), STAMP).unwrap();
        assert_eq!(
            header,
            "v1 kid=5e7455e7,id=10.0.0.1:80,ep=1700000000000,ctr=7,to=[::1]:8080,nonce=abababababababababababababababab,mac=e100453bca309629f91acd19cbf1510dd5e13b0b24fad3ce252eac09ec802e6d"
        );
    }

    #[test]
    fn what_is_signed_verifies_with_both_secrets() {
        let (header, receipt) = CALL.sign(&secrets(), STAMP).unwrap();
        let auth = Auth::parse(header.as_bytes()).unwrap();
        assert_eq!((auth.sender, auth.receiver, auth.stamp), (CALL.sender, CALL.receiver, STAMP));
        assert_eq!(verified(&secrets(), &CALL, &header), Some(receipt));
        let rotated = "a new secret, of at least 32 bytes\n0123456789abcdef0123456789abcdef";
        let rotated = Secrets::parse(rotated.as_bytes()).unwrap();
        assert_eq!(verified(&rotated, &CALL, &header), Some(receipt));
        let strange = Secrets::parse(b"a new secret, of at least 32 bytes").unwrap();
        assert_eq!(verified(&strange, &CALL, &header), None);
    }

    #[test]
    fn every_part_of_a_call_counts() {
        let secrets = secrets();
        let (header, _) = CALL.sign(&secrets, STAMP).unwrap();
        for (changed, what) in [
            (Call { cluster: "cd", ..CALL }, "cluster"),
            (Call { method: b"PUT", ..CALL }, "method"),
            (Call { channel: b"tesu", ..CALL }, "channel"),
            (Call { target: b"/test/hub?heartbeat&x", ..CALL }, "target"),
            (Call { content_type: b"", ..CALL }, "content type"),
            (Call { cast: b"tree", ..CALL }, "cast"),
            (Call { body: b"{ }", ..CALL }, "body"),
            // the same bytes, divided otherwise
            (Call { method: b"POSTt", channel: b"est", ..CALL }, "border"),
        ] {
            assert_eq!(verified(&secrets, &changed, &header), None, "{what}");
        }
        for (from, to) in [
            ("id=10.0.0.1", "id=10.0.0.2"),
            ("ep=17", "ep=18"),
            ("ctr=7", "ctr=8"),
            ("to=[::1]", "to=[::2]"),
            ("nonce=ab", "nonce=aa"),
            (",nonce=abababababababababababababababab", ""),
            ("mac=", "mac=0000"),
        ] {
            let mut changed = header.replacen(from, to, 1);
            assert_ne!(changed, header, "{from}");
            changed.truncate(header.len().min(changed.len()));
            assert_eq!(verified(&secrets, &CALL, &changed), None, "{from}");
        }
    }

    #[test]
    fn an_answer_belongs_to_its_call() {
        let secrets = secrets();
        let (_, receipt) = CALL.sign(&secrets, STAMP).unwrap();
        let (_, other) = CALL.sign(&secrets, Stamp { counter: 8, ..STAMP }).unwrap();
        let header = receipt.sign(&secrets, 200, b"fine").unwrap();
        assert!(receipt.verifies(&secrets, header.as_bytes(), 200, b"fine"));
        assert!(!receipt.verifies(&secrets, header.as_bytes(), 201, b"fine"));
        assert!(!receipt.verifies(&secrets, header.as_bytes(), 200, b"fin"));
        assert!(!other.verifies(&secrets, header.as_bytes(), 200, b"fine"));
        for wrong in [
            "",
            "v1",
            "v1 kid=",
            "v2 kid=",
            &header[..header.len() - 1],
            &format!("{header}0"),
            &header.replace("mac=", "mac=,"),
        ] {
            assert!(!receipt.verifies(&secrets, wrong.as_bytes(), 200, b"fine"), "{wrong}");
        }
        // a call's signature is no answer's
        let (call, _) = CALL.sign(&secrets, STAMP).unwrap();
        assert!(!receipt.verifies(&secrets, call.as_bytes(), 200, b"fine"));
    }

    #[test]
    fn the_header_is_read_strictly() {
        let (good, _) = CALL.sign(&secrets(), STAMP).unwrap();
        assert!(Auth::parse(good.as_bytes()).is_some());
        for (from, to) in [
            ("v1 ", "v2 "),
            ("v1 ", "V1 "),
            ("v1 ", "v1  "),
            ("kid=", "kid=0"),
            (",id=", ", id="),
            (",id=", ",id=a b"),
            (",id=", ",id=\","),
            (",id=10.0.0.1:80", ",id="),
            (",ep=", ",ep=+"),
            (",ep=", ",ep=0"),
            (",ep=", ",ep=99999999999999999999"),
            (",ep=1700000000000", ",ep="),
            (",ctr=7", ",ctr="),
            (",ctr=7", ""),
            (",ctr=7", ",ctr=7,ctr=7"),
            ("nonce=ab", "nonce=AB"),
            ("nonce=ab", "nonce="),
            (",mac=", ",mac=0"),
            (",mac=", ",mac=g"),
        ] {
            let bad = good.replacen(from, to, 1);
            assert_ne!(bad, good);
            assert_eq!(Auth::parse(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(Auth::parse(format!("{good},x=1").as_bytes()), None);
        assert_eq!(Auth::parse(format!("{good} ").as_bytes()), None);
        let long = good.replace("10.0.0.1", &"1".repeat(500));
        assert_eq!(Auth::parse(long.as_bytes()), None);
    }

    #[test]
    fn what_cannot_be_told_apart_is_not_signed() {
        for bad in [
            Call { target: b"/test\n/x", ..CALL },
            Call { content_type: b"a\nb", ..CALL },
            Call { sender: "a,b:80", ..CALL },
            Call { sender: "", ..CALL },
            Call { receiver: "a b:80", ..CALL },
        ] {
            assert_eq!(bad.sign(&secrets(), STAMP), Err(Unsignable));
        }
    }

    proptest! {
        #[test]
        fn any_changed_bit_breaks_the_signature(at in any::<prop::sample::Index>(), bit in 0u8..8, body in prop::collection::vec(any::<u8>(), 1..40), in_body in any::<bool>(), counter in 1u64.., nonce in any::<Option<[u8; 16]>>()) {
            let secrets = secrets();
            let call = Call { body: &body, ..CALL };
            let (header, receipt) = call.sign(&secrets, Stamp { counter, nonce, ..STAMP }).unwrap();
            prop_assert_eq!(verified(&secrets, &call, &header), Some(receipt));
            if in_body {
                let mut changed = body.clone();
                changed[at.index(body.len())] ^= 1 << bit;
                prop_assert_eq!(verified(&secrets, &Call { body: &changed, ..call }, &header), None);
            } else {
                let mut changed = header.clone().into_bytes();
                changed[at.index(header.len())] ^= 1 << bit;
                if let Ok(changed) = String::from_utf8(changed) {
                    prop_assert_eq!(verified(&secrets, &call, &changed), None);
                }
            }
        }

        #[test]
        fn any_header_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), text in "v1 kid=[0-9a-f]{7,9},id=[0-9.:]{1,9},ep=[0-9]{0,22},ctr=[0-9]{1,3},to=[a-z:]{0,3},(nonce=[0-9a-f]{32},)?mac=[0-9a-f]{63,65}") {
            let _ = (Auth::parse(&bytes), Auth::parse(text.as_bytes()), challenged(&bytes));
            let (_, receipt) = CALL.sign(&secrets(), STAMP).unwrap();
            prop_assert!(!receipt.verifies(&secrets(), &bytes, 200, b""));
            prop_assert!(!receipt.verifies(&secrets(), text.as_bytes(), 200, b""));
        }
    }
}
