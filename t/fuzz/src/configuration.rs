//! Values of the configuration, and of variables: addresses, lists of them, networks, packages.

use std::net::SocketAddr;

use ngx_http_cc_module::proto::cluster::allow::{self, AllowList};
use ngx_http_cc_module::proto::listen::{Address, Listen, Listens, Named, Transport};
use ngx_http_cc_module::proto::preload::Preload;
use ngx_http_cc_module::proto::upstream::address::{Beside, list, peer};
use ngx_http_cc_module::proto::zone;

use crate::input::Input;

/// Takes any bytes.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    match input.byte() % 4 {
        0 => addresses(input.0),
        1 => networks(input),
        2 => listens(input),
        _ => {
            let words = String::from_utf8_lossy(input.0).split(' ').map(String::from).collect();
            if let Ok(preload) = Preload::parse(words, &["ipc", "ngx_cc"]) {
                let _ = preload.has("ipc");
            }
            let bytes = data.iter().take(6).fold(0, |sum, byte| sum << 8 | usize::from(*byte));
            assert!(zone::largest(zone::smallest(bytes)) >= bytes.saturating_sub(2 * 4096));
        }
    }
}

fn addresses(text: &[u8]) {
    let told = |address: &Address| peer(&address.text(), Beside::Nothing);
    if let Ok(address) = peer(text, Beside::Nothing) {
        assert_eq!(told(&address).as_ref(), Ok(&address));
        assert_ne!(address.port(), Some(0));
    }
    let _ = peer(text, Beside::Port(text.len() as i64 * 4096));
    match list(text) {
        Ok(all) => all.iter().for_each(|one| assert_eq!(told(one).as_ref(), Ok(one))),
        Err((word, _)) => assert!(!word.is_empty()),
    }
    // a path is shown with what is UTF-8 in it
    if let Ok(address) = allow::configured(text)
        && !matches!(address, allow::Address::Unix(_))
    {
        assert_eq!(allow::configured(address.to_string().as_bytes()).as_ref(), Ok(&address));
    }
    if let Ok(address) = allow::learned(text) {
        assert_eq!(allow::learned(address.to_string().as_bytes()), Ok(address));
    }
    let _ = allow::port(text).map_err(|error| error.to_string());
}

fn networks(mut input: Input<'_>) {
    let mut list = AllowList::default();
    let mut any = false;
    for _ in 0..input.byte() % 8 {
        any |= list.add(input.text(50));
    }
    for _ in 0..4 {
        let bytes = [input.byte(), input.byte(), input.byte(), input.byte()];
        let address = SocketAddr::from((bytes, u16::from(input.byte())));
        assert!(any || list.check(&address).is_err());
    }
    if let Ok(address) = allow::learned(input.0) {
        assert!(any || list.check(&address).is_err());
    }
}

fn listens(mut input: Input<'_>) {
    let mut all = Listens::default();
    for at in 0..1 + input.byte() % 6 {
        let block = usize::from(input.byte() % 2);
        let transport = if input.byte() % 4 == 0 { Transport::Datagram } else { Transport::Stream };
        let address = match input.byte() % 4 {
            0 => Address::Unix(input.text(110).to_vec()),
            1 => Address::Inet(([0; 16], 65_500 + u16::from(input.byte() % 36)).into()),
            2 => Address::Inet(([127, 0, 0, 1], 80 + u16::from(input.byte() % 64)).into()),
            _ => Address::Inet(([0; 4], 80 + u16::from(input.byte() % 64)).into()),
        };
        let named = Named { text: input.string(20), place: format!("nginx.conf:{at}") };
        all.note(Listen {
            block,
            transport,
            address,
            ipv6only: input.byte() % 2 == 0,
            per_worker: input.byte() % 2 == 0,
            named: Some(named),
        });
    }
    let workers = usize::from(input.byte() % 40);
    match all.plan(workers) {
        Err(error) => assert!(!error.to_string().is_empty()),
        Ok(plans) => {
            for plan in &plans {
                assert_eq!(plan.addresses.len(), workers);
                // no two workers of a plan share an address
                let mut own: Vec<_> = plan.addresses.iter().map(Address::text).collect();
                own.sort();
                own.dedup();
                assert_eq!(own.len(), workers);
            }
        }
    }
    let _ = (all.any_per_worker(), all.base_ports().count());
    let _ = all.of_worker(0, Transport::Stream, workers);
}
