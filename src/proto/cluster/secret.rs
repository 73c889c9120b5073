//! The secrets that the nodes of a cluster share (`cc_secret_file`): reading them, and the keyed
//! hashes made with them. A secret is never shown, only its short name, the kid.

use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

/// Fewest and most bytes of a secret.
pub const SECRET_MIN: usize = 32;
/// See [`SECRET_MIN`].
pub const SECRET_MAX: usize = 1024;
/// Longest file that can hold two.
pub const FILE_MAX: usize = 4096;

/// Bytes of a block of SHA-256.
const BLOCK: usize = 64;

/// A keyed hash of 256 bits.
pub type Mac = [u8; 32];

/// The name of a secret, in hexadecimal digits: what it signs first.
pub type Kid = [u8; 8];

/// Why a file is not one of secrets. Holds nothing of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// No line, or only empty ones.
    #[error("has no secret")]
    Empty,
    /// The file is larger than [`FILE_MAX`].
    #[error("is longer than {FILE_MAX} bytes")]
    File,
    /// More than the current secret and the previous one.
    #[error("has more than two lines: the current secret and the previous one")]
    Lines,
    /// An empty line before the last secret.
    #[error("line {0} is empty")]
    Blank(usize),
    /// Shorter than [`SECRET_MIN`].
    #[error("line {line} has {length} bytes, at least {SECRET_MIN} are needed")]
    Short {
        /// Which line, from 1.
        line: usize,
        /// What it has.
        length: usize,
    },
    /// Longer than [`SECRET_MAX`].
    #[error("line {0} is longer than {SECRET_MAX} bytes")]
    Long(usize),
    /// Not what a text editor shows, so likely not meant.
    #[error("line {0} has control characters, or spaces at its start or end")]
    Control(usize),
}

/// A secret, ready to sign.
#[derive(Clone)]
pub struct Secret {
    kid: Kid,
    hash: Hmac<Sha256>,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({})", String::from_utf8_lossy(&self.kid))
    }
}

/// The secrets of a node.
#[derive(Clone, Debug)]
pub struct Secrets {
    current: Secret,
    previous: Option<Secret>,
}

impl Secret {
    /// From its bytes.
    pub fn new(key: &[u8]) -> Secret {
        // as HMAC does it, for its constructor that cannot fail takes a whole block only
        let digest = Sha256::digest(key);
        let key = if key.len() > BLOCK { digest.as_slice() } else { key };
        let mut block = [0; BLOCK];
        block.iter_mut().zip(key).for_each(|(to, byte)| *to = *byte);
        let hash = Hmac::new(&block.into());
        let mut secret = Secret { kid: *b"........", hash };
        let name = hex(&secret.sign(&[b"cc1 kid"]));
        if let Some(kid) = name.first_chunk() {
            secret.kid = *kid;
        }
        secret
    }

    /// Its name.
    pub fn kid(&self) -> &Kid {
        &self.kid
    }

    /// The keyed hash of the pieces, joined.
    pub fn sign(&self, pieces: &[&[u8]]) -> Mac {
        self.hashed(pieces).finalize().into_bytes().into()
    }

    /// Whether the pieces, joined, have this hash. Takes the same time for all wrong ones.
    pub fn verifies(&self, pieces: &[&[u8]], mac: &Mac) -> bool {
        self.hashed(pieces).verify_slice(mac).is_ok()
    }

    fn hashed(&self, pieces: &[&[u8]]) -> Hmac<Sha256> {
        let mut hash = self.hash.clone();
        pieces.iter().for_each(|piece| hash.update(piece));
        hash
    }
}

impl Secrets {
    /// Reads the file: the current secret, then, if there is one, the previous one.
    pub fn parse(file: &[u8]) -> Result<Secrets, SecretError> {
        if file.len() > FILE_MAX {
            return Err(SecretError::File);
        }
        let mut lines: Vec<&[u8]> = file.split(|byte| *byte == b'\n').map(line).collect();
        while lines.last().is_some_and(|line| line.is_empty()) {
            lines.pop();
        }
        if lines.len() > 2 {
            return Err(SecretError::Lines);
        }
        let mut secrets = Vec::with_capacity(2);
        for (number, line) in (1..).zip(lines) {
            secrets.push(read(number, line)?);
        }
        let mut secrets = secrets.into_iter();
        let current = secrets.next().ok_or(SecretError::Empty)?;
        Ok(Secrets { current, previous: secrets.next() })
    }

    /// The one that signs.
    pub fn current(&self) -> &Secret {
        &self.current
    }

    /// The one of that name.
    pub fn named(&self, kid: &Kid) -> Option<&Secret> {
        [Some(&self.current), self.previous.as_ref()]
            .into_iter()
            .flatten()
            .find(|secret| secret.kid == *kid)
    }
}

fn line(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

fn read(number: usize, line: &[u8]) -> Result<Secret, SecretError> {
    let length = line.len();
    if length == 0 {
        Err(SecretError::Blank(number))
    } else if line.iter().any(u8::is_ascii_control) || line.trim_ascii().len() != length {
        Err(SecretError::Control(number))
    } else if length < SECRET_MIN {
        Err(SecretError::Short { line: number, length })
    } else if length > SECRET_MAX {
        Err(SecretError::Long(number))
    } else {
        Ok(Secret::new(line))
    }
}

/// In hexadecimal digits.
pub fn hex(bytes: &[u8]) -> Vec<u8> {
    let digit = |nibble: u8| if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// From hexadecimal digits, lower case, of exactly that many bytes.
pub fn unhex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let nibble = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *byte = nibble(*high)? << 4 | nibble(*low)?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_hash_is_hmac_sha256() {
        // RFC 4231, test cases 1, 2 and 6
        for (key, data, mac) in [
            (
                &[0x0b; 20][..],
                &b"Hi There"[..],
                "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
            ),
            (
                b"Jefe",
                b"what do ya want for nothing?",
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
            (
                &[0xaa; 131],
                b"Test Using Larger Than Block-Size Key - Hash Key First",
                "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
            ),
        ] {
            let secret = Secret::new(key);
            let (front, back) = data.split_at(3);
            let signed = secret.sign(&[front, back]);
            assert_eq!(hex(&signed), mac.as_bytes());
            assert!(secret.verifies(&[data], &signed));
            assert!(!secret.verifies(&[front], &signed));
        }
    }

    #[test]
    fn a_file_has_one_or_two_secrets() {
        let (one, two) = ("1".repeat(32), "2".repeat(1024));
        for file in [one.clone(), format!("{one}\n"), format!("{one}\r\n\n\n")] {
            let secrets = Secrets::parse(file.as_bytes()).unwrap();
            assert_eq!(secrets.current().kid(), Secret::new(one.as_bytes()).kid());
            assert!(secrets.previous.is_none());
        }
        let secrets = Secrets::parse(format!("{one}\n{two}\n").as_bytes()).unwrap();
        let previous = *secrets.previous.as_ref().unwrap().kid();
        assert_ne!(secrets.current().kid(), &previous);
        assert!(secrets.named(&previous).is_some());
        assert!(secrets.named(secrets.current().kid()).is_some());
        assert!(secrets.named(b"00000000").is_none());
    }

    #[test]
    fn a_wrong_file_is_refused_in_words() {
        let good = "x".repeat(32);
        for (file, error) in [
            ("".into(), "has no secret"),
            ("\n\n".into(), "has no secret"),
            ("short".into(), "line 1 has 5 bytes, at least 32 are needed"),
            (format!("{good}\nshort\n"), "line 2 has 5 bytes, at least 32 are needed"),
            (format!("\n{good}\n"), "line 1 is empty"),
            (
                format!("{good}\n{good}1\n{good}2\n"),
                "has more than two lines: the current secret and the previous one",
            ),
            (format!(" {good}"), "line 1 has control characters, or spaces at its start or end"),
            (format!("{good}\0"), "line 1 has control characters, or spaces at its start or end"),
            ("x".repeat(1025), "line 1 is longer than 1024 bytes"),
            ("x".repeat(4097), "is longer than 4096 bytes"),
        ] {
            assert_eq!(Secrets::parse(file.as_bytes()).unwrap_err().to_string(), error);
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let key = "sesame-open-sesame-open-sesame-open";
        let shown = format!("{:?}", Secrets::parse(format!("{key}\n{key}2").as_bytes()).unwrap());
        assert!(!shown.contains("sesame") && shown.contains("Secret("), "{shown}");
        assert!(shown.len() < 100, "{shown}");
    }

    proptest! {
        #[test]
        fn any_file_is_read_or_refused(file in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Secrets::parse(&file);
        }

        #[test]
        fn hexadecimal_digits_go_both_ways(bytes in any::<[u8; 16]>(), text in prop::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(unhex(&hex(&bytes)), Some(bytes));
            let _ = unhex::<16>(&text);
        }
    }
}
