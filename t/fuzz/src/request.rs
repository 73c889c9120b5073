//! What a request says: its query, the action that it names, its headers, and what a cast carries.

use ngx_http_cc_module::proto::cluster::action;
use ngx_http_cc_module::proto::cluster::builtin::{BuiltIn, command};
use ngx_http_cc_module::proto::cluster::cast::{Direction, Passage, Target, Via};
use ngx_http_cc_module::proto::cluster::gather::{Failure, Gather};
use ngx_http_cc_module::proto::cluster::headers::{self, Road};
use ngx_http_cc_module::proto::cluster::query::{self, Args, Value};
use ngx_http_cc_module::proto::cluster::stat::Stat;
use ngx_http_cc_module::proto::ipc::WorkerId;

use crate::input::Input;

/// Takes any bytes.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    match input.byte() % 5 {
        0 => of_query(input.0),
        1 => of_headers(input),
        2 => of_target(input.0),
        3 => of_cast(input),
        _ => of_stat(input),
    }
}

fn of_query(text: &[u8]) {
    for arg in query::parse(text) {
        let mut encoded = Vec::new();
        query::encode(&arg.name, &mut encoded);
        assert_eq!(query::decode(&encoded), arg.name);
        assert_eq!(
            headers::target(&[b"/", encoded.as_slice()].concat()).map(|t| t.len()),
            Ok(1 + encoded.len())
        );
        let _ = (action::check_channel(&arg.name), action::check_action(&arg.name));
        assert!(action::shown(&arg.name).chars().all(|letter| !letter.is_control()));
    }
    // what was built is read as it was
    let args = Args::of(text);
    let built = args.build();
    let again = Args::of(&built);
    assert_eq!(again.build(), built);
    let mut merged = Args::of(&built);
    merged.merge(&args);
    merged.push(b"one", Value::True);
    let behind = merged.behind(b"/path?a=b");
    assert!(behind.starts_with(b"/path?a=b"));

    let caller = Some(std::net::Ipv4Addr::LOCALHOST.into());
    if let Some(arg) = action::first(text, |name| BuiltIn::named(name).is_some())
        && let Some(built_in) = BuiltIn::named(&arg.name)
    {
        let _ = command(built_in, text, caller).map_err(|error| error.to_string());
        let _ = command(built_in, text, None).map_err(|error| error.to_string());
    }
    let _ = action::unknown(text);
}

fn of_headers(mut input: Input<'_>) {
    let mut all = Vec::new();
    while !input.is_empty() {
        all.push((input.text(40), input.text(80)));
    }
    for road in [Road::Hub, Road::Workers, Road::Nodes] {
        let Ok(sent) = headers::request(all.iter().copied(), road) else { continue };
        for (name, value) in sent {
            assert!(headers::check((name, value)).is_ok() && !headers::is_own(name));
            assert!(!name.eq_ignore_ascii_case(b"connection"));
            assert!(!value.contains(&b'\n') && !value.contains(&b'\r'));
        }
    }
    let _ = headers::answer(all.iter().copied());
    for (method, direction) in &all {
        let _ = (headers::check_method(method), Direction::parse(direction).map(Direction::name));
    }
}

fn of_target(text: &[u8]) {
    if let Ok(target) = headers::target(text) {
        assert!(target.iter().all(|byte| byte.is_ascii_graphic()) && target.starts_with(b"/"));
        assert_eq!(headers::target(&target).as_deref(), Ok(&*target));
        let (path, query) = query::split(&target);
        assert!(path.len() + query.len() <= target.len());
    }
    if let Some(channel) = action::channel_of(text) {
        assert!(
            text.windows(channel.len().max(1)).any(|part| part == channel) || channel.is_empty()
        );
    }
}

fn of_cast(mut input: Input<'_>) {
    if let Ok(passage) = Passage::parse(input.0) {
        assert_eq!(passage.header().as_bytes(), input.0);
        if let Ok(next) = passage.next(input.0.len() as u32 * 100) {
            assert!(
                next.hops > passage.hops && Passage::parse(next.header().as_bytes()) == Ok(next)
            );
        }
    }
    let target = |via| Target { node: "n".into(), port: None, via };
    let targets = vec![target(Via::Tree), target(Via::Worker(WorkerId(0))), target(Via::Tree)];
    let mut gather = Gather::new("main", Direction::Workers, targets);
    gather.reply(input.below(3), 200 + u16::from(input.byte()), input.text(2048).to_vec());
    gather.fail(input.below(3), Failure::Wrong(input.string(40)));
    gather.reply(0, if input.byte() % 2 == 0 { 200 } else { 502 }, input.0.to_vec());
    let (status, json) = gather.finish();
    assert!((200..600).contains(&status));
    assert!(serde_json::from_slice::<serde_json::Value>(&json).is_ok());
}

fn of_stat(mut input: Input<'_>) {
    let mut stat = Stat::of("http://n".into(), &[80, 81], Some(80), None, false);
    stat.add("one", 200, input.text(2048));
    stat.add("two", 200, input.0);
    assert!(serde_json::from_slice::<serde_json::Value>(&stat.json()).is_ok());
}
