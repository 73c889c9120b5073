//! A closure that the event loop calls once, later.

use ngx::ffi;

use crate::ngx::guard::guard;

/// The wait; dropping it calls it off.
pub struct Timer(Box<Inner>);

struct Inner {
    event: ffi::ngx_event_t,
    run: Option<Box<dyn FnOnce()>>,
}

impl Timer {
    /// Calls `run` in `milliseconds`. It does not keep a leaving worker.
    pub fn after(milliseconds: usize, run: impl FnOnce() + 'static) -> Timer {
        // SAFETY: ngx_event_t is plain data; all-zero is nginx's own fresh event.
        let event: ffi::ngx_event_t = unsafe { std::mem::zeroed() };
        let mut inner = Box::new(Inner { event, run: Some(Box::new(run)) });
        let data: *mut Inner = &mut *inner;
        inner.event.data = data.cast();
        inner.event.handler = Some(on_time);
        // SAFETY: the cycle's log outlives the worker's events.
        inner.event.log = unsafe { (*ffi::ngx_cycle).log };
        inner.event.set_cancelable(1);
        // SAFETY: callers are in the event loop; the event stays in place in its box.
        unsafe { ffi::ngx_add_timer(&mut inner.event, milliseconds) };
        Timer(inner)
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        if self.0.event.timer_set() != 0 {
            // SAFETY: it is in the tree.
            unsafe { ffi::ngx_del_timer(&mut self.0.event) };
        }
    }
}

unsafe extern "C" fn on_time(event: *mut ffi::ngx_event_t) {
    guard("timer", (), || {
        // SAFETY: after() set data to the timer's Inner, which lives as long as the timer is set.
        let run = unsafe { (*(*event).data.cast::<Inner>()).run.take() };
        // this may drop the timer
        if let Some(run) = run {
            run();
        }
    });
}
