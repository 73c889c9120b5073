//! Every target over its corpus, and over some thousand changed copies of it: the same ones each time,
//! without an engine. What an engine finds, `run` does; this keeps the targets and the corpus alive.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use ngx_cc_fuzz::TARGETS;

/// Changed copies for each target.
const COPIES: u64 = 10_000;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 11) as usize % bound.max(1)
    }
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut paths: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

fn change(bytes: &mut Vec<u8>, all: &[Vec<u8>], random: &mut Random) {
    for _ in 0..1 + random.below(6) {
        let at = random.below(bytes.len());
        match random.below(7) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, random.next() as u8),
            2 => {
                let other = &all[random.below(all.len())];
                bytes.extend_from_slice(&other[random.below(other.len()).min(other.len())..]);
            }
            3 => {
                let again = bytes[at.min(bytes.len())..].to_vec();
                bytes.extend(again);
            }
            4 => bytes.extend((0..16).map(|_| random.next() as u8)),
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = match random.below(4) {
                        0 => *byte ^ 1 << random.below(8),
                        1 => [0, 1, 0x7f, 0x80, 0xff, b'\n', b','][random.below(7)],
                        _ => random.next() as u8,
                    };
                }
            }
        }
        bytes.truncate(4096);
    }
}

#[test]
fn no_target_fails() {
    for (name, run) in TARGETS {
        let all = corpus(name);
        assert!(!all.is_empty(), "{name} has no corpus");
        let try_one = |bytes: &[u8]| {
            let shown = || bytes.escape_ascii().to_string();
            assert!(catch_unwind(AssertUnwindSafe(|| run(bytes))).is_ok(), "{name}: {}", shown());
        };
        all.iter().for_each(|bytes| try_one(bytes));
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        for copy in 0..COPIES {
            let mut bytes = all[copy as usize % all.len()].clone();
            change(&mut bytes, &all, &mut random);
            try_one(&bytes);
        }
    }
}
