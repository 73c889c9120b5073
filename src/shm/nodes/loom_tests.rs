//! Every order (up to a number of preemptions) in which a reader meets writers of a record.

use loom::model::Builder;
use loom::sync::Arc;
use loom::thread;

use super::record::{self, Record};
use crate::proto::ipc::Pid;
use crate::shm::atomic::AtomicU64;

const BODY: usize = 2;

fn model(writers: usize, writes: u64) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(move || {
        let words: Arc<Vec<AtomicU64>> =
            Arc::new((0..record::words(BODY)).map(|_| AtomicU64::new(0)).collect());
        over(&words).write(Pid(1), &[1; BODY]).unwrap();
        let others: Vec<_> = (0..writers as u64)
            .map(|writer| {
                let words = words.clone();
                thread::spawn(move || {
                    for n in 0..writes {
                        let done =
                            over(&words).write(Pid(2 + writer as u32), &[10 * writer + n; BODY]);
                        assert!(done.is_ok() || writers > 1);
                    }
                })
            })
            .collect();
        if let Some(body) = over(&words).read() {
            assert!(body.iter().all(|word| *word == body[0]), "{body:?}");
        }
        others.into_iter().for_each(|other| other.join().unwrap());
        over(&words).write(Pid(1), &[77; BODY]).unwrap();
        assert_eq!(over(&words).read(), Some([77; BODY]));
    });
}

fn over(words: &[AtomicU64]) -> Record<'_, BODY> {
    Record::over(words).unwrap()
}

#[test]
fn loom_a_reader_sees_whole_bodies() {
    model(1, 2);
}

#[test]
fn loom_two_routers_that_overlap_show_readers_whole_bodies() {
    model(2, 1);
}
