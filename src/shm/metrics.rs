//! What is counted for all workers of a node beside their messages: how long messages and calls
//! took, how tries ended, what was refused. A stripe for each of some workers, so that seldom two of
//! them write to one cache line; who reads sums them up. Decides nothing: `modules::metrics` names
//! what is counted, `proto::status` shows it.

use super::Shared;
use super::atomic::{AtomicU64, Ordering};

/// Numbers of a stripe.
pub const COUNTERS: usize = 24;
/// Bounds of a histogram; what is above the last has a bucket, too.
pub const BOUNDS: usize = 7;
/// Histograms of a stripe.
pub const HISTOGRAMS: usize = 2;
/// A power of two. Workers with as many others between them share one.
const STRIPES: usize = if cfg!(loom) { 2 } else { 64 };

#[repr(C)]
struct Histogram {
    buckets: [AtomicU64; BOUNDS + 1],
    /// Of all values, in microseconds.
    sum: AtomicU64,
}

#[repr(C, align(128))] // as in `slots`
struct Stripe {
    counters: [AtomicU64; COUNTERS],
    histograms: [Histogram; HISTOGRAMS],
}

/// The table; zeroed memory is an empty one.
#[repr(C)]
pub struct Metrics {
    stripes: [Stripe; STRIPES],
}

// SAFETY: atomics only, repr(C).
unsafe impl Shared for Metrics {}

/// How many values were in which bucket, and their sum in microseconds.
pub type Buckets = ([u64; BOUNDS + 1], u64);

impl Metrics {
    /// Bytes that the table takes.
    pub const SIZE: usize = size_of::<Metrics>();

    fn stripe(&self, worker: usize) -> Option<&Stripe> {
        self.stripes.get(worker % STRIPES)
    }

    /// The worker of that number counts one.
    pub fn count(&self, worker: usize, counter: usize) {
        if let Some(cell) = self.stripe(worker).and_then(|stripe| stripe.counters.get(counter)) {
            cell.fetch_add(1, Ordering::Relaxed); // a counter orders nothing
        }
    }

    /// The worker of that number has seen a value; `bounds` are those of the histogram, rising.
    pub fn observe(&self, worker: usize, histogram: usize, bounds: &[u64; BOUNDS], micros: u64) {
        let found = self.stripe(worker).and_then(|stripe| stripe.histograms.get(histogram));
        let Some(Histogram { buckets, sum }) = found else { return };
        let place = bounds.iter().take_while(|bound| micros > **bound).count();
        if let Some(bucket) = buckets.get(place) {
            bucket.fetch_add(1, Ordering::Relaxed); // as above
            sum.fetch_add(micros, Ordering::Relaxed);
        }
    }

    /// What all have counted.
    pub fn total(&self, counter: usize) -> u64 {
        let cells = self.stripes.iter().filter_map(|stripe| stripe.counters.get(counter));
        add(cells)
    }

    /// What all have seen.
    pub fn histogram(&self, histogram: usize) -> Buckets {
        let all = || self.stripes.iter().filter_map(|stripe| stripe.histograms.get(histogram));
        let bucket = |place| add(all().filter_map(|h: &Histogram| h.buckets.get(place)));
        (std::array::from_fn(bucket), add(all().map(|h| &h.sum)))
    }
}

fn add<'a>(cells: impl Iterator<Item = &'a AtomicU64>) -> u64 {
    cells.fold(0, |sum, cell| sum.wrapping_add(cell.load(Ordering::Relaxed)))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::shm::{Word, at};

    fn memory() -> Vec<[Word; 16]> {
        // a Vec of lines would do no more than this for the alignment
        (0..Metrics::SIZE / 128 + 1).map(|_| std::array::from_fn(|_| Word::new(0))).collect()
    }

    fn with(f: impl FnOnce(&Metrics)) {
        let memory = memory();
        let words = memory.as_flattened();
        let skip = words.as_ptr().cast::<u8>().align_offset(128) / 8;
        f(at(&words[skip..]).unwrap());
    }

    #[test]
    fn all_workers_count_together() {
        with(|metrics| {
            for worker in [0, 1, 63, 64, 1023] {
                metrics.count(worker, 3);
                metrics.count(worker, COUNTERS); // none such
            }
            assert_eq!((metrics.total(3), metrics.total(4), metrics.total(COUNTERS)), (5, 0, 0));
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| (0..1000).for_each(|_| metrics.count(7, 5)));
                }
            });
            assert_eq!(metrics.total(5), 4000);
        });
    }

    #[test]
    fn a_value_falls_into_the_first_bucket_that_holds_it() {
        const BOUNDS: [u64; super::BOUNDS] = [10, 20, 30, 40, 50, 60, 70];
        with(|metrics| {
            for (worker, value) in [0, 10, 11, 70, 71, u64::MAX >> 8].into_iter().enumerate() {
                metrics.observe(worker, 1, &BOUNDS, value);
            }
            let (buckets, sum) = metrics.histogram(1);
            assert_eq!(buckets, [2, 1, 0, 0, 0, 0, 1, 2]);
            assert_eq!(sum, 10 + 11 + 70 + 71 + (u64::MAX >> 8));
            assert_eq!(metrics.histogram(0), ([0; super::BOUNDS + 1], 0));
        });
    }
}
