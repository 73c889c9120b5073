//! Retained values in memory that somebody scribbles on.

use ngx_http_cc_module::proto::ipc::Pid;
use ngx_http_cc_module::shm::retained::{Retained, SIZE_MIN};

use crate::input::Input;
use crate::memory::Memory;

/// Takes any bytes.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let memory = Memory::new(SIZE_MIN + input.below(16 * 1024));
    if input.byte() % 8 == 0 {
        memory.fill(&mut input);
    }
    if !Retained::<fn(Pid) -> bool>::init(memory.words()) {
        return;
    }
    let dead = |_: Pid| false;
    let Some(retained) = Retained::attach(memory.words(), Pid(7), dead) else { return };
    let mut value = Vec::new();
    while !input.is_empty() {
        let what = input.byte();
        match what % 8 {
            0 | 1 => memory.scribble(&mut input),
            2 | 3 => {
                let (name, key) = (input.text(12), input.text(12));
                let _ = retained.set(name, key, input.text(3000));
            }
            4 => {
                let _ = retained.delete(input.text(12), input.text(12));
            }
            5 => {
                if let Ok(Some(_)) = retained.get(input.text(12), input.text(12), &mut value) {
                    assert!(value.len() <= memory.words().len() * 8);
                }
            }
            6 => {
                let (name, since) = (input.text(12), input.word());
                let mut seen = 0;
                let _ = retained.visit(name, since, |value| {
                    std::hint::black_box((value.key.to_vec(), value.value.to_vec()));
                    seen += 1;
                });
                assert!(seen <= memory.words().len());
            }
            _ => {
                let _ = (retained.names(), retained.last(input.text(12)), retained.sequence());
                let _ = (retained.len(), retained.bytes_used(), retained.capacity());
                // one that comes next, and finds the lock of a dead one
                let next = Retained::attach(memory.words(), Pid(8), |_: Pid| false);
                let _ = next.map(|next| next.set(b"next", b"", &[what; 100]));
            }
        }
    }
}
