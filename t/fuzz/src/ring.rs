//! The rings between workers and their bells, in memory that somebody scribbles on: what is read
//! comes from inside, and every turn ends.

use ngx_http_cc_module::shm::mesh::Mesh;
use ngx_http_cc_module::shm::ring::{Consumer, Producer};
use ngx_http_cc_module::shm::tally::Tallies;

use crate::input::Input;
use crate::memory::Memory;

const WORKERS: usize = 2;
/// Bytes of a ring.
const RING: usize = 1024;

/// Takes any bytes.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let memory = Memory::new(Mesh::size_with(WORKERS, RING));
    if input.byte() % 4 == 0 {
        memory.fill(&mut input);
    }
    let Some(mesh) = Mesh::with_rings(memory.words(), WORKERS, RING) else { panic!("no room") };
    let Some(ring) = mesh.ring(0, 1) else { panic!("no ring") };
    let (mut producer, mut consumer) = (ring.producer(), ring.consumer());
    while !input.is_empty() {
        match input.byte() % 8 {
            0 | 1 => memory.scribble(&mut input),
            2 => put(&mut producer, &mut input),
            3 => take(&mut consumer),
            // a successor
            4 => producer = ring.producer(),
            5 => consumer = ring.consumer(),
            6 => bells(&mesh, &mut input),
            _ => tallies(&memory, &mut input),
        }
    }
    take(&mut consumer);
}

fn put(producer: &mut Producer<'_>, input: &mut Input<'_>) {
    let parts = [input.text(32), input.text(16), input.text(600)];
    let _ = producer.put(parts);
    let _ = (producer.is_used(), producer.want_room());
}

/// All that a reader takes before it looks after something else. A ring holds so many records at
/// most, whatever is written in it; then a look finds it empty at least once.
fn take(consumer: &mut Consumer<'_>) {
    let most = 2 * RING / 8;
    for turn in 0.. {
        assert!(turn <= most, "more records than a ring can hold");
        let Some(record) = consumer.take() else { break };
        assert!(record.len() <= RING - 8);
        std::hint::black_box(record.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)));
        let _ = consumer.half() && consumer.wanted();
    }
    let _ = (consumer.is_empty(), consumer.is_used(), consumer.wanted());
}

fn bells(mesh: &Mesh<'_>, input: &mut Input<'_>) {
    let (me, other) = (usize::from(input.byte()), usize::from(input.byte() % 3));
    let _ = (mesh.mail(other, me % 3), mesh.room(other), mesh.rouse(me));
    let _ = (mesh.senders(other), mesh.has_room(other), mesh.any(me), mesh.sleep(other));
    let _ = (mesh.has_left(me), mesh.settle(), mesh.is_crowded(1), mesh.enter(other));
    mesh.leave(other);
}

fn tallies(memory: &Memory, input: &mut Input<'_>) {
    if let Some(tallies) = Tallies::new(memory.words(), 1) {
        let (worker, call) = (usize::from(input.byte() % 3), input.word() as u32);
        tallies.begin(worker, call, u32::from(input.byte()));
        let _ = tallies.answered(worker, input.word() as u32);
    }
}
