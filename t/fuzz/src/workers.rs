//! The tables of workers and of their lives, in memory that somebody scribbles on.

use ngx_http_cc_module::proto::ipc::{Generation, Pid, Seat, WorkerId};
use ngx_http_cc_module::proto::lifecycle::{Said, Status, Why};
use ngx_http_cc_module::shm::at;
use ngx_http_cc_module::shm::lifecycle::{Life, Read, What};
use ngx_http_cc_module::shm::slots::{Counter, SLOTS, State, Table, Worker};

use crate::input::Input;
use crate::memory::Memory;

/// Takes any bytes.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    if input.byte() % 2 == 0 { slots(input) } else { lives(input) }
}

fn seat(input: &mut Input<'_>) -> Seat {
    let generation = Generation(u32::from(input.byte() % 4));
    Seat { generation, worker: WorkerId(u16::from(input.byte() % 4)) }
}

fn slots(mut input: Input<'_>) {
    let memory = Memory::new(Table::SIZE);
    if input.byte() % 8 == 0 {
        memory.fill(&mut input);
    }
    let Some(table) = at::<Table>(memory.words()) else { panic!("no room") };
    table.init();
    while !input.is_empty() {
        let pid = Pid(u32::from(input.byte()));
        match input.byte() % 6 {
            0 | 1 => memory.scribble(&mut input),
            2 => {
                let seat = seat(&mut input);
                let even = |pid: Pid| pid.0 % 2 == 0;
                if let Some(slot) = table.claim(pid, seat, even) {
                    assert!(slot.index() < SLOTS);
                    table.hold(slot, input.word());
                    table.count(slot, Counter::Late, input.word());
                    table.set_state(slot, Worker { pid, seat, state: State::Retiring });
                }
            }
            3 => {
                if let Some(slot) = table.find(pid) {
                    table.release(slot, pid)
                }
            }
            4 => {
                if let Some(me) = table.find(pid) {
                    let _ = (table.bury(me, |pid| pid.0 % 2 == 0), table.fits());
                }
            }
            _ => {
                let (_, workers) = table.current();
                assert!(workers <= SLOTS && table.workers().count() <= SLOTS);
                table.next_generation(input.word() as usize);
                let _ =
                    (table.total(Counter::Sent), table.find(pid).map(|slot| table.worker(slot)));
            }
        }
    }
}

fn lives(mut input: Input<'_>) {
    let memory = Memory::new(size_of::<Life>());
    if input.byte() % 8 == 0 {
        memory.fill(&mut input);
    }
    let Some(life) = at::<Life>(memory.words()) else { panic!("no room") };
    life.init();
    let me = life.attach(Pid(7), |_| false);
    while !input.is_empty() {
        let (slot, time) = (input.word() as usize, input.word());
        match input.byte() % 10 {
            0 | 1 => memory.scribble(&mut input),
            2 => {
                let _ = me.enter(slot % SLOTS, seat(&mut input), |_| Some(Status(9)), time);
            }
            3 => {
                let _ = me.leave(slot % SLOTS, Why::Reload, time);
            }
            4 => {
                let _ = me.retire(slot % SLOTS, Why::Upgrade, time);
            }
            5 => {
                let pid = Pid(u32::from(input.byte() % 8));
                let _ = me.died(slot % SLOTS, pid, seat(&mut input), None, time);
            }
            6 => {
                let _ = (me.claim(input.text(70)), me.release(input.text(70)));
                let _ = (life.held(input.text(70)), life.leases(), me.hold(), me.let_go());
            }
            7 => journal(life, time),
            8 => {
                life.set_ready(slot, true, input.text(100));
                life.set_said(slot, Said::of(time));
                let _ = (
                    life.saw(slot % SLOTS, input.text(20), time),
                    life.last_seen(slot % SLOTS, b"x"),
                );
                life.forget(slot % SLOTS);
                let _ = me.loaded(Why::Reload, Generation(1), time);
            }
            _ => {
                assert!(life.views().count() <= SLOTS && life.members().count() <= SLOTS);
                let _ = (life.load(), life.before(What::Reload, Generation(1)), life.view(slot));
            }
        }
    }
    journal(life, 0);
}

/// Each read leads on or ends.
fn journal(life: &Life, mut after: u64) {
    for _ in 0..5000 {
        after = match life.read(after) {
            Read::Nothing => return,
            Read::Event(number, event) => {
                std::hint::black_box(event);
                assert!(number > after);
                number
            }
            Read::Missed(_, number) => {
                assert!(number > after);
                number
            }
        };
    }
    panic!("the journal has no end");
}
