//! One shared memory zone that survives reloads of the same size and layout by the same library.

use std::ffi::c_void;
use std::mem;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use ngx::ffi;

use crate::ngx::conf::borrowed;
use crate::ngx::cycle::Cycle;
use crate::ngx::guard::guard;

/// What a cycle's conf keeps of its zone. It must not move once `add` was called: nginx keeps its
/// address.
#[derive(Default)]
pub struct Zone {
    name: String,
    words: usize,
    memory: Option<NonNull<AtomicU64>>,
    reused: bool,
}

impl Zone {
    /// The memory, zeroed when the zone was new; None before the cycle is in force.
    pub fn memory(&self) -> Option<&'static [AtomicU64]> {
        // SAFETY: `memory` points at `words` words of a slab allocation that is never freed. The
        // mapping outlives every user: a worker never unmaps it, the master only with the cycle
        // whose conf holds this.
        self.memory.map(|start| unsafe { std::slice::from_raw_parts(start.as_ptr(), self.words) })
    }

    /// Whether the memory is the previous configuration's.
    pub fn reused(&self) -> bool {
        self.reused
    }
}

/// Asks nginx for a zone of `size` bytes, `bytes` of which `zone` will hand out. From init_conf only.
///
/// `bytes` is part of its name: nginx reuses a zone of the same name and size, but only one that
/// hands out as much can be taken over.
pub fn add(
    cycle: Cycle<'_>,
    name: &str,
    tag: *mut ffi::ngx_module_t,
    size: usize,
    bytes: usize,
    zone: &mut Zone,
) -> Result<(), String> {
    // SAFETY: ngx_conf_t is plain data; ngx_shared_memory_add reads cycle, pool and log only.
    let mut cf: ffi::ngx_conf_t = unsafe { mem::zeroed() };
    cf.cycle = cycle.as_raw();
    cf.pool = cycle.get().pool;
    cf.log = cycle.get().log;
    zone.name = format!("{name}_{bytes}");
    let mut name_str = borrowed(zone.name.as_bytes());
    // SAFETY: as above; nginx keeps the name's address, which belongs to the conf's Zone and lives
    // as long as the cycle that the zone is added to.
    let raw = unsafe { ffi::ngx_shared_memory_add(&mut cf, &mut name_str, size, tag.cast()) };
    // SAFETY: null or an element of cycle->shared_memory.
    let raw = unsafe { raw.as_mut() }
        .ok_or_else(|| format!("cannot add shared memory zone \"{name}\""))?;
    zone.words = bytes.div_ceil(size_of::<AtomicU64>());
    raw.init = Some(init);
    raw.data = (zone as *mut Zone).cast();
    Ok(())
}

unsafe extern "C" fn init(raw: *mut ffi::ngx_shm_zone_t, old: *mut c_void) -> ffi::ngx_int_t {
    guard("zone", ffi::NGX_ERROR as ffi::ngx_int_t, || {
        // SAFETY: ngx_init_cycle passes a zone whose memory is mapped; data is the conf's Zone,
        // which lives in the cycle's pool.
        let (shm, zone, pool) = unsafe {
            let shm = &(*raw).shm;
            let pool = shm.addr.cast::<ffi::ngx_slab_pool_t>();
            (shm, &mut *(*raw).data.cast::<Zone>(), &mut *pool)
        };
        zone.reused = !old.is_null();
        if !zone.reused {
            // SAFETY: the pool was made by ngx_init_zone_pool just before this call.
            pool.data = unsafe { ffi::ngx_slab_calloc(pool, zone.words * size_of::<AtomicU64>()) };
        }
        let (start, end) = (shm.addr as usize, shm.addr as usize + shm.size);
        let memory = pool.data as usize;
        let inside = memory >= start && memory + zone.words * size_of::<AtomicU64>() <= end;
        zone.memory = NonNull::new(pool.data.cast()).filter(|_| inside);
        if zone.memory.is_some() { ffi::NGX_OK as _ } else { ffi::NGX_ERROR as _ }
    })
}
