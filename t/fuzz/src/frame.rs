//! Records between workers: decoded, put together, and the calls of actions in them.

use ngx_http_cc_module::proto::ipc::ask::Ask;
use ngx_http_cc_module::proto::ipc::assemble::{Assembled, Assembler};
use ngx_http_cc_module::proto::ipc::frame::{HEADER, Header, Kind};
use ngx_http_cc_module::proto::ipc::{Addressee, Generation, Pid, Seat, WorkerId};

use crate::input::Input;

const MAX: usize = 4096;
const ME: Pid = Pid(7);

/// Takes any bytes.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let mut assembler = Assembler::new(MAX);
    while !input.is_empty() {
        match input.byte() % 4 {
            0 => accept(&mut assembler, input.text(512)),
            1 => assembler.retain(|pid| pid.0 % 2 == 0),
            2 => {
                let record = record(&mut input);
                accept(&mut assembler, &record);
            }
            _ => {
                let (name, data) = (input.text(254), input.text(512));
                if let Some(ask) = Ask::decode(name, data) {
                    let (mut to_name, mut to_data) = (Vec::new(), Vec::new());
                    if ask.encode(&mut to_name, &mut to_data).is_some() {
                        assert_eq!((&*to_name, &*to_data), (name, data));
                    }
                }
            }
        }
    }
}

/// One as a sender might write it, few of them in few messages.
fn record(input: &mut Input<'_>) -> Vec<u8> {
    let kinds = [Kind::Message, Kind::Hello, Kind::Call, Kind::Reply, Kind::Ask, Kind::Answer];
    let kind = kinds[usize::from(input.byte()) % kinds.len()];
    let name = input.text(254);
    let header = Header {
        kind,
        sender: Pid(u32::from(input.byte() % 8)),
        seat: Seat { generation: Generation(1), worker: WorkerId(u16::from(input.byte())) },
        addressee: if input.byte() % 4 == 0 { Addressee::Process(Pid(8)) } else { Addressee::Seat },
        name: name.len() as u8,
        total: input.below(MAX + 64) as u32,
        offset: input.below(MAX + 64) as u32,
        call: u32::from(input.byte()),
    };
    [&header.encode(), name, input.text(2048)].concat()
}

fn accept(assembler: &mut Assembler, record: &[u8]) {
    let decoded = Header::decode(record);
    if let Ok((header, name, piece)) = decoded {
        assert_eq!(header.encode(), record[..HEADER]);
        assert_eq!(HEADER + name.len() + piece.len(), record.len());
        assert!(header.offset as usize + piece.len() <= header.total as usize);
    }
    match assembler.accept(record, ME) {
        Assembled::Whole(message) => {
            assert!(message.data.len() <= MAX && message.name.len() <= 254);
            assert!(decoded.is_ok_and(|(header, ..)| header.addressee.admits(ME)));
            std::hint::black_box((message.name.to_vec(), message.data.to_vec()));
            assembler.release();
        }
        Assembled::Broken(error) => assert_eq!(decoded.err(), Some(error)),
        _ => {}
    }
}
