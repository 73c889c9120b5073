//! The module's own ring between two workers (`shm::ends`), with the header and the name of a real
//! message, looked at without a pause: what it costs beside the bare ring that a reader has many
//! senders, that it may sleep, and that either side may be killed.

use std::hint::spin_loop;
use std::io;
use std::ptr;
use std::thread;

use ngx_http_cc_module::proto::ipc::frame::{Header, Kind};
use ngx_http_cc_module::proto::ipc::outbox::{Put, Wire};
use ngx_http_cc_module::proto::ipc::{Addressee, Generation, Pid, Seat, WorkerId};
use ngx_http_cc_module::shm::Word;
use ngx_http_cc_module::shm::ends::{Bell, Bells, Reader, Writer};
use ngx_http_cc_module::shm::mesh::Mesh;

use crate::link::{LONGEST, Link};

const WORKERS: usize = 2;
const NAME: &[u8] = b"flood";
/// Turns of waiting before the core is offered to others.
const TURNS: u32 = 2000;

/// Nobody sleeps here.
#[derive(Clone)]
struct Silent;

impl Bell for Silent {
    fn ring(&self, _worker: usize) {}

    // as `ngx::membarrier` does
    fn takes_part(&self) -> bool {
        const REGISTER_GLOBAL_EXPEDITED: libc::c_int = 1 << 2;
        // SAFETY: takes two numbers and no pointer.
        unsafe { libc::syscall(libc::SYS_membarrier, REGISTER_GLOBAL_EXPEDITED, 0) == 0 }
    }
}

/// One worker's end.
pub struct Ours {
    me: usize,
    out: Writer<'static, Silent>,
    back: Reader<'static, Silent>,
}

/// A generation of two workers, in memory that both processes share.
fn mesh() -> io::Result<Mesh<'static>> {
    let failed = || io::Error::other("no mesh fits");
    let bytes = Mesh::size(WORKERS).ok_or_else(failed)?;
    // SAFETY: a new anonymous mapping touches no memory that exists.
    let memory = unsafe {
        libc::mmap(
            ptr::null_mut(),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if memory == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: page-aligned, zeroed, `bytes` long, never unmapped; words are atomics.
    let words = unsafe { std::slice::from_raw_parts(memory.cast::<Word>(), bytes / 8) };
    Mesh::new(words, WORKERS).ok_or_else(failed)
}

impl Ours {
    fn new(mesh: Mesh<'static>, me: usize) -> io::Result<Self> {
        let bells = Bells::new(mesh, me, Silent);
        let out = bells.writer(1 - me).ok_or_else(|| io::Error::other("no ring"))?;
        Ok(Self { me, out, back: Reader::new(bells) })
    }
}

impl Link for Ours {
    fn pair() -> io::Result<(Self, Self)> {
        let mesh = mesh()?;
        Ok((Self::new(mesh, 0)?, Self::new(mesh, 1)?))
    }

    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        let header = Header {
            kind: Kind::Message,
            sender: Pid(1 + self.me as u32),
            seat: Seat { generation: Generation(1), worker: WorkerId(self.me as u16) },
            addressee: Addressee::Seat,
            name: NAME.len() as u8,
            total: message.len() as u32,
            offset: 0,
            call: 0,
        };
        let header = header.encode();
        let mut turns = 0;
        loop {
            match self.out.put(&header, NAME, message) {
                Put::Taken => return Ok(()),
                Put::Blocked => pause(&mut turns),
                Put::Gone => return Err(io::ErrorKind::BrokenPipe.into()),
            }
        }
    }

    fn receive(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut turns = 0;
        while !self.back.ready() {
            pause(&mut turns);
        }
        let record = self.back.record().unwrap_or_default();
        let (_, _, data) = Header::decode(record).map_err(io::Error::other)?;
        let length = data.len().min(LONGEST);
        into.get_mut(..length)
            .zip(data.get(..length))
            .ok_or_else(|| io::Error::other("no room"))
            .map(|(to, from)| to.copy_from_slice(from))?;
        Ok(length)
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
