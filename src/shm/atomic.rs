//! The atomics of shared memory: the standard ones. In tests every access can be watched, so that
//! the simulator (`sim`) stops or kills a process at any of them; under loom they are loom's.

pub use std::sync::atomic::Ordering;

#[cfg(loom)]
pub use loom::sync::atomic::{AtomicU32, AtomicU64, fence};
#[cfg(not(any(test, loom)))]
pub use std::sync::atomic::{AtomicU32, AtomicU64, fence};
#[cfg(all(test, not(loom)))]
pub use watched::{AtomicU32, AtomicU64, fence, watch};

/// Makes a locked instruction, and the SeqCst load behind it, one that nothing passes. They are
/// that already; loom takes SeqCst accesses for acquire and release only, but knows the fence.
#[inline(always)]
pub fn fence_for_loom() {
    #[cfg(loom)]
    fence(Ordering::SeqCst);
}

/// A store with Release, behind which the compiler moves nothing in front. The processor may, until
/// somebody's barrier interrupts it. Loom knows no such barrier, and takes this for a full one.
#[inline(always)]
pub fn store_for_poller(word: &AtomicU64, value: u64) {
    word.store(value, Ordering::Release);
    fence_for_loom();
    std::sync::atomic::compiler_fence(Ordering::SeqCst);
}

/// A store to a word that others change by exchanges. Loom has no one order of those and of stores, but
/// of exchanges.
#[inline(always)]
pub fn store_among_exchanges(word: &AtomicU64, value: u64) {
    #[cfg(loom)]
    word.swap(value, Ordering::Relaxed);
    #[cfg(not(loom))]
    word.store(value, Ordering::Relaxed);
}

#[cfg(all(test, not(loom)))]
mod watched {
    use std::cell::Cell;
    use std::sync::atomic::{self, Ordering};

    thread_local! {
        static WATCHER: Cell<Option<fn()>> = const { Cell::new(None) };
    }

    /// From now on `watcher` is called before and after each access of this thread.
    pub fn watch(watcher: Option<fn()>) {
        WATCHER.set(watcher);
    }

    fn watched<R>(access: impl FnOnce() -> R) -> R {
        let Some(watcher) = WATCHER.get() else { return access() };
        watcher();
        let result = access();
        watcher();
        result
    }

    pub fn fence(order: Ordering) {
        watched(|| atomic::fence(order));
    }

    macro_rules! atomic {
        ($name:ident, $value:ty) => {
            #[derive(Debug, Default)]
            #[repr(transparent)]
            pub struct $name(atomic::$name);

            impl $name {
                #[inline]
                pub fn load(&self, order: Ordering) -> $value {
                    watched(|| self.0.load(order))
                }

                #[inline]
                pub fn store(&self, value: $value, order: Ordering) {
                    watched(|| self.0.store(value, order))
                }

                #[inline]
                pub fn swap(&self, value: $value, order: Ordering) -> $value {
                    watched(|| self.0.swap(value, order))
                }

                #[inline]
                pub fn compare_exchange(
                    &self,
                    current: $value,
                    new: $value,
                    done: Ordering,
                    failed: Ordering,
                ) -> Result<$value, $value> {
                    watched(|| self.0.compare_exchange(current, new, done, failed))
                }
            }
        };
    }
    atomic!(AtomicU32, u32);
    atomic!(AtomicU64, u64);

    impl AtomicU64 {
        #[inline]
        pub fn fetch_or(&self, value: u64, order: Ordering) -> u64 {
            watched(|| self.0.fetch_or(value, order))
        }

        #[inline]
        pub fn fetch_add(&self, value: u64, order: Ordering) -> u64 {
            watched(|| self.0.fetch_add(value, order))
        }
    }
}
