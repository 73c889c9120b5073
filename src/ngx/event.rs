//! nginx's event loop for our own descriptors, posted events and timers. Handlers are plain
//! functions: the state they work on is the process's own.

use std::mem::offset_of;
use std::os::fd::RawFd;
use std::ptr;

use ngx::ffi;

use crate::ngx::guard::guard;

// values of enum macros, from the shim
unsafe extern "C" {
    safe static cc_read_event: ffi::ngx_int_t;
    safe static cc_write_event: ffi::ngx_int_t;
    safe static cc_clear_event: ffi::ngx_uint_t;
}

/// Whether the event method reports readiness again and again until it is used up.
pub fn reports_level() -> bool {
    // SAFETY: set by the event module's init in this process, before any event.
    (unsafe { ffi::ngx_event_flags } as u32 & ffi::NGX_USE_CLEAR_EVENT) == 0
}

/// Watches a connection whose handlers are set for data and for room, edge-triggered where the event
/// method can.
///
/// # Safety
/// `connection` is live, from ngx_get_connection, and not yet watched.
pub(crate) unsafe fn watch_both(connection: *mut ffi::ngx_connection_t) -> bool {
    let ok = ffi::NGX_OK as ffi::ngx_int_t;
    // SAFETY: the caller's contract; the table of the event method is set in this process.
    unsafe {
        if let Some(add) = ffi::ngx_event_actions.add_conn {
            return add(connection) == ok;
        }
        let flags = if reports_level() { 0 } else { cc_clear_event };
        ffi::ngx_event_actions.add.is_some_and(|add| {
            add((*connection).read, cc_read_event, flags) == ok
                && add((*connection).write, cc_write_event, flags) == ok
        })
    }
}

/// What happens on a watched descriptor.
#[derive(Clone, Copy)]
pub struct Handlers {
    /// There is something to read.
    pub readable: fn(),
    /// There is room to write.
    pub writable: fn(),
    /// nginx closes idle connections: the worker is leaving. Called once, from the event loop.
    pub closing: fn(),
}

/// A descriptor in the event loop. nginx takes it for one of its own channels: it neither counts as
/// an open socket at exit nor keeps the worker from leaving.
pub struct Watch {
    connection: *mut ffi::ngx_connection_t,
}

// SAFETY: workers are single-threaded; the pointer never leaves the process that made it.
unsafe impl Send for Watch {}

/// Which way a descriptor is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// For data.
    Read,
    /// For room.
    Write,
}

impl Watch {
    /// Watches `fd`, edge-triggered where the event method can. None when worker_connections are
    /// used up.
    pub fn new(fd: RawFd, direction: Direction, handlers: &'static Handlers) -> Option<Watch> {
        // SAFETY: called in a worker whose event module is initialised; the cycle and its log
        // outlive the connection.
        unsafe {
            let log = (*ffi::ngx_cycle).log;
            let connection = ffi::ngx_get_connection(fd, log);
            let c = connection.as_mut()?;
            c.data = ptr::from_ref(handlers).cast_mut().cast();
            // only an idle connection is told that the worker leaves; one that waits to write need not be
            c.set_idle(u32::from(direction == Direction::Read));
            for event in [c.read, c.write] {
                (*event).log = log;
                (*event).set_channel(1);
            }
            (*c.read).handler = Some(on_read);
            (*c.write).handler = Some(on_write);
            let (event, kind) = match direction {
                Direction::Read => (c.read, cc_read_event),
                Direction::Write => (c.write, cc_write_event),
            };
            let watch = Watch { connection };
            let flags = if reports_level() { 0 } else { cc_clear_event };
            let add = ffi::ngx_event_actions.add?;
            // dropping `watch` gives the connection back
            (add(event, kind, flags) == ffi::NGX_OK as ffi::ngx_int_t).then_some(watch)
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // SAFETY: the connection is ours until ngx_free_connection; its events are removed from
        // the loop and from the posted queues first. The descriptor stays open: its owner closes it.
        unsafe {
            let c = &mut *self.connection;
            let del = ffi::ngx_event_actions.del;
            for (event, kind) in [(c.read, cc_read_event), (c.write, cc_write_event)] {
                let event = &mut *event;
                if let (1, Some(del)) = (event.active(), del) {
                    del(event, kind, 0);
                }
                if event.posted() != 0 {
                    ffi::ngx_delete_posted_event(event);
                }
            }
            ffi::ngx_free_connection(c);
            c.fd = -1;
        }
    }
}

/// # Safety
/// `event` is a live event whose data is the connection of a Watch.
unsafe fn of<'a>(
    event: *mut ffi::ngx_event_t,
) -> (&'a mut ffi::ngx_connection_t, Option<&'static Handlers>) {
    // SAFETY: ngx_get_connection sets event->data; Watch::new sets connection->data.
    unsafe {
        let connection = &mut *(*event).data.cast::<ffi::ngx_connection_t>();
        let handlers = connection.data.cast::<Handlers>().as_ref();
        (connection, handlers)
    }
}

unsafe extern "C" fn on_read(event: *mut ffi::ngx_event_t) {
    guard("ipc event", (), || {
        // SAFETY: nginx calls the handler with the event it belongs to.
        let (connection, Some(handlers)) = (unsafe { of(event) }) else { return };
        if connection.close() != 0 {
            // ngx_close_idle_connections calls at a moment when a posted wake-up may no longer be
            // run before the worker counts its timers (nginx < 1.23.3)
            connection.set_close(0);
            connection.set_idle(0);
            (handlers.closing)();
        } else {
            (handlers.readable)();
        }
    });
}

unsafe extern "C" fn on_write(event: *mut ffi::ngx_event_t) {
    guard("ipc event", (), || {
        // SAFETY: as in on_read.
        if let (_, Some(handlers)) = unsafe { of(event) } {
            (handlers.writable)();
        }
    });
}

/// A function that the event loop calls later.
pub struct Deferred {
    event: Box<ffi::ngx_event_t>,
}

// SAFETY: as for Watch.
unsafe impl Send for Deferred {}

impl Deferred {
    /// Calls `callback` whenever one of the methods below comes due.
    pub fn new(callback: &'static fn()) -> Deferred {
        // SAFETY: ngx_event_t is plain data; all-zero is nginx's own fresh event.
        let mut event: Box<ffi::ngx_event_t> = Box::new(unsafe { std::mem::zeroed() });
        event.data = ptr::from_ref(callback).cast_mut().cast();
        event.handler = Some(on_deferred);
        // SAFETY: the cycle's log outlives the worker's events.
        event.log = unsafe { (*ffi::ngx_cycle).log };
        event.set_cancelable(1);
        Deferred { event }
    }

    /// After this turn of the event loop, once I/O was polled.
    pub fn next_turn(&mut self) {
        // SAFETY: the queue head is a static of nginx; the event stays in place in its box.
        unsafe { ffi::ngx_post_event(&mut *self.event, &raw mut ffi::ngx_posted_next_events) };
    }

    /// In this turn of the event loop, once what runs now has returned.
    pub fn soon(&mut self) {
        // SAFETY: as for next_turn; ngx_event_process_posted goes on until the queue is empty.
        unsafe { ffi::ngx_post_event(&mut *self.event, &raw mut ffi::ngx_posted_events) };
    }

    /// In `milliseconds`; `holds` keeps a leaving worker until then.
    pub fn after(&mut self, milliseconds: usize, holds: bool) {
        self.event.set_cancelable(u32::from(!holds));
        // SAFETY: the timer tree is initialised before init_process (ngx_event_process_init is
        // the event core's, and ngx_event_timer_init runs in it; callers are in the loop or after
        // it).
        unsafe { ffi::ngx_add_timer(&mut *self.event, milliseconds) };
    }

    /// Whether a timer is set.
    pub fn is_set(&self) -> bool {
        self.event.timer_set() != 0
    }

    /// Forgets a timer that is set.
    pub fn cancel(&mut self) {
        if self.event.timer_set() != 0 {
            // SAFETY: it is in the tree.
            unsafe { ffi::ngx_del_timer(&mut *self.event) };
        }
    }
}

/// Whether more than `own` timers keep a leaving worker, which is what nginx asks before it goes.
pub fn others_hold(own: usize) -> bool {
    // SAFETY: the tree of this single-threaded process; a node in it is the `timer` of an event.
    unsafe {
        let tree = &raw mut ffi::ngx_event_timer_rbtree;
        let (mut node, sentinel) = ((*tree).root, (*tree).sentinel);
        if node == sentinel {
            return false;
        }
        while (*node).left != sentinel {
            node = (*node).left;
        }
        let mut holding = 0;
        while !node.is_null() && holding <= own {
            let event =
                node.byte_sub(offset_of!(ffi::ngx_event_t, timer)).cast::<ffi::ngx_event_t>();
            holding += usize::from((*event).cancelable() == 0);
            node = ffi::ngx_rbtree_next(tree, node);
        }
        holding > own
    }
}

impl Drop for Deferred {
    fn drop(&mut self) {
        self.cancel();
        if self.event.posted() != 0 {
            // SAFETY: it is in a queue of posted events.
            unsafe { ffi::ngx_delete_posted_event(&mut *self.event) };
        }
    }
}

unsafe extern "C" fn on_deferred(event: *mut ffi::ngx_event_t) {
    guard("ipc event", (), || {
        // SAFETY: Deferred::new set data to a static function.
        if let Some(callback) = unsafe { (*event).data.cast::<fn()>().as_ref() } {
            callback();
        }
    });
}
