//! A ring for one producer and one consumer in memory that two processes share: nothing but positions
//! and bytes. `Awake` never sleeps; `Sleepy` does as soon as there is nothing to read, and is woken
//! through an eventfd.

use std::fs::File;
use std::hint::spin_loop;
use std::io::{self, Read, Write};
use std::os::fd::FromRawFd;
use std::ptr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use std::thread;

use crate::link::{LONGEST, Link};

/// Bytes of data, a power of two. Much more no longer fits the cache, much less lets one wait for the
/// other too often.
const ROOM: usize = 1 << 18;
/// A record is its length, padding to 8 bytes, the data, and again padding.
const HEADER: usize = 8;
/// In place of a length: the rest up to the end of the memory is unused.
const SKIP: u32 = u32::MAX;
/// Turns of waiting before the core is offered to others.
const TURNS: u32 = 2000;

const _: () = assert!(LONGEST + HEADER <= ROOM / 2);

/// Alone on its cache line, and on the one that is fetched with it.
#[repr(C, align(128))]
struct Apart<T>(T);

/// All zero is an empty ring.
#[repr(C)]
struct Shared {
    /// Bytes ever written; the producer's.
    tail: Apart<AtomicU64>,
    /// Bytes ever read; the consumer's.
    head: Apart<AtomicU64>,
    /// 1 from when the consumer is about to sleep until somebody rings.
    asleep: Apart<AtomicU32>,
    data: Apart<[u8; ROOM]>,
}

/// One direction, as one of the processes sees it.
struct Ring {
    shared: *mut Shared,
    /// Own position; nobody else writes it.
    mine: u64,
    /// The other's position when last looked at, so that its cache line stays with it.
    seen: u64,
    bell: File,
}

impl Ring {
    fn pair() -> io::Result<(Self, Self)> {
        // SAFETY: a new anonymous mapping touches no memory that exists.
        let memory = unsafe {
            libc::mmap(
                ptr::null_mut(),
                size_of::<Shared>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_POPULATE,
                -1,
                0,
            )
        };
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: eventfd takes no pointers.
        let bell = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if bell < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just opened, and nobody else closes it.
        let bell = unsafe { File::from_raw_fd(bell) };
        let shared = memory.cast::<Shared>();
        Ok((
            Self { shared, mine: 0, seen: 0, bell: bell.try_clone()? },
            Self { shared, mine: 0, seen: 0, bell },
        ))
    }

    fn shared(&self) -> &Shared {
        // SAFETY: page-aligned, zeroed, as long as Shared, and never unmapped; what both processes
        // write is atomic, and the bytes are reached by pointer only.
        unsafe { &*self.shared }
    }

    /// Where the record at this position begins, and how much memory follows.
    fn at(&self, position: u64) -> (*mut u8, usize) {
        let offset = position as usize & (ROOM - 1);
        // SAFETY: the offset is within the array by the mask.
        let place = unsafe { (&raw mut (*self.shared).data.0).cast::<u8>().add(offset) };
        (place, ROOM - offset)
    }

    /// Waits until `need` bytes fit behind the own position.
    fn await_room(&mut self, need: usize) {
        let mut turns = 0;
        while self.mine + need as u64 - self.seen > ROOM as u64 {
            // pairs with the Release in `receive`: the data was copied out before it is overwritten
            self.seen = self.shared().head.0.load(Ordering::Acquire);
            pause(&mut turns);
        }
    }

    fn publish(&mut self, length: usize) {
        self.mine += length as u64;
        // pairs with the Acquire in `is_empty`: the record is whole before it is seen
        self.shared().tail.0.store(self.mine, Ordering::Release);
    }

    fn send(&mut self, message: &[u8]) {
        let need = (HEADER + message.len()).next_multiple_of(HEADER);
        let (mut place, left) = self.at(self.mine);
        if left < need {
            self.await_room(left);
            // SAFETY: positions are multiples of 8, so a length fits; the room is ours by await_room.
            unsafe { place.cast::<u32>().write(SKIP) };
            self.publish(left);
            (place, _) = self.at(self.mine);
        }
        self.await_room(need);
        // SAFETY: `need` bytes from here are within the memory and ours by await_room.
        unsafe {
            place.cast::<u32>().write(message.len() as u32);
            ptr::copy_nonoverlapping(message.as_ptr(), place.add(HEADER), message.len());
        }
        self.publish(need);
    }

    fn is_empty(&mut self) -> bool {
        if self.seen == self.mine {
            self.seen = self.shared().tail.0.load(Ordering::Acquire);
        }
        self.seen == self.mine
    }

    /// Of a ring that is not empty; nothing when it only went round.
    fn receive(&mut self, into: &mut [u8]) -> Option<usize> {
        let (place, left) = self.at(self.mine);
        // SAFETY: not empty, so a record begins here, written before the tail was.
        let length = unsafe { place.cast::<u32>().read() };
        let record = if length == SKIP { left } else { HEADER + length as usize };
        if length != SKIP {
            let fits = (length as usize).min(into.len());
            // SAFETY: the record lies within the memory, and `fits` within `into`.
            unsafe { ptr::copy_nonoverlapping(place.add(HEADER), into.as_mut_ptr(), fits) };
        }
        self.mine += record.next_multiple_of(HEADER) as u64;
        self.shared().head.0.store(self.mine, Ordering::Release);
        (length != SKIP).then_some(length as usize)
    }

    /// Behind each publish of a sleepy ring.
    fn ring(&mut self) -> io::Result<()> {
        // pairs with the one in `sleep`: either we see `asleep` or the consumer sees the new tail
        fence(Ordering::SeqCst);
        let asleep = &self.shared().asleep.0;
        if asleep.load(Ordering::Relaxed) == 1 && asleep.swap(0, Ordering::Relaxed) == 1 {
            self.bell.write_all(&1u64.to_ne_bytes())?;
        }
        Ok(())
    }

    fn sleep(&mut self) -> io::Result<()> {
        self.shared().asleep.0.store(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        // a bell that rang meanwhile is waited for, or it would wake the next sleep at once
        if self.is_empty() || self.shared().asleep.0.swap(0, Ordering::Relaxed) == 0 {
            self.bell.read_exact(&mut [0; 8])?;
        }
        Ok(())
    }
}

fn pause(turns: &mut u32) {
    *turns += 1;
    if *turns < TURNS {
        spin_loop();
    } else {
        thread::yield_now();
    }
}

/// Two rings, one for each direction.
struct Duplex {
    out: Ring,
    back: Ring,
}

impl Duplex {
    fn pair() -> io::Result<(Self, Self)> {
        let (a_out, b_back) = Ring::pair()?;
        let (b_out, a_back) = Ring::pair()?;
        Ok((Self { out: a_out, back: a_back }, Self { out: b_out, back: b_back }))
    }
}

/// Looks for messages without a pause.
pub struct Awake(Duplex);

impl Link for Awake {
    fn pair() -> io::Result<(Self, Self)> {
        let (one, other) = Duplex::pair()?;
        Ok((Self(one), Self(other)))
    }

    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        self.0.out.send(message);
        Ok(())
    }

    fn receive(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut turns = 0;
            while self.0.back.is_empty() {
                pause(&mut turns);
            }
            if let Some(length) = self.0.back.receive(into) {
                return Ok(length);
            }
        }
    }
}

/// Sleeps whenever there is nothing to do.
pub struct Sleepy(Duplex);

impl Link for Sleepy {
    fn pair() -> io::Result<(Self, Self)> {
        let (one, other) = Duplex::pair()?;
        Ok((Self(one), Self(other)))
    }

    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        self.0.out.send(message);
        self.0.out.ring()
    }

    fn receive(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            while self.0.back.is_empty() {
                self.0.back.sleep()?;
            }
            if let Some(length) = self.0.back.receive(into) {
                return Ok(length);
            }
        }
    }
}
