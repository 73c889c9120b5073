use super::*;

const HTTP: usize = 1;
const STREAM: usize = 2;

/// `text` as in the directive, but always with an address: `127.0.0.1:80`, `[::]:80`, `unix:/p`.
fn listen(line: usize, text: &str) -> Listen {
    let address = match text.strip_prefix("unix:") {
        Some(path) => Address::Unix(path.as_bytes().to_vec()),
        None => Address::Inet(text.parse().unwrap()),
    };
    Listen {
        block: HTTP,
        transport: Transport::Stream,
        address,
        ipv6only: true,
        per_worker: false,
        named: Some(Named { text: text.into(), place: format!("nginx.conf:{line}") }),
    }
}

fn each(line: usize, text: &str) -> Listen {
    Listen { per_worker: true, ..listen(line, text) }
}

fn udp(listen: Listen) -> Listen {
    Listen { transport: Transport::Datagram, ..listen }
}

fn dual(listen: Listen) -> Listen {
    Listen { ipv6only: false, ..listen }
}

fn in_stream(listen: Listen) -> Listen {
    Listen { block: STREAM, ..listen }
}

fn listens(all: impl IntoIterator<Item = Listen>) -> Listens {
    let mut listens = Listens::default();
    for listen in all {
        listens.note(listen);
    }
    listens
}

fn planned(workers: usize, all: impl IntoIterator<Item = Listen>) -> Result<Vec<String>, String> {
    let listens = listens(all);
    let plans = listens.plan(workers).map_err(|error| error.to_string())?;
    let line = |plan: &Plan<'_>| {
        let addresses: Vec<_> = plan.addresses.iter().map(Address::to_string).collect();
        addresses.join(" ")
    };
    Ok(plans.iter().map(line).collect())
}

fn fits(workers: usize, all: impl IntoIterator<Item = Listen>) -> bool {
    planned(workers, all).is_ok()
}

#[test]
fn each_worker_gets_the_next_port() {
    let all = [each(1, "127.0.0.1:8010"), listen(2, "127.0.0.1:80"), each(3, "[::1]:9000")];
    let plan = planned(3, all).unwrap();
    assert_eq!(
        plan,
        ["127.0.0.1:8010 127.0.0.1:8011 127.0.0.1:8012", "[::1]:9000 [::1]:9001 [::1]:9002"]
    );
}

#[test]
fn each_worker_gets_a_path_of_its_own() {
    assert_eq!(planned(2, [each(1, "unix:/p")]).unwrap(), ["unix:/p.0 unix:/p.1"]);
    assert_eq!(planned(1, [each(1, "unix:/p")]).unwrap(), ["unix:/p.0"]);
}

#[test]
fn the_last_port_may_be_65535() {
    assert!(fits(4, [each(1, "127.0.0.1:65532")]));
    let error = planned(4, [each(7, "127.0.0.1:65533")]).unwrap_err();
    let expected = "invalid port 65536 of worker 3 of \
                    \"listen 127.0.0.1:65533 per_worker\" in nginx.conf:7";
    assert_eq!(error, expected);
}

#[test]
fn a_path_must_hold_the_longest_suffix() {
    let path = |len: usize| format!("unix:/{}", "p".repeat(len - 1));
    // ".9" and the NUL fit, ".10" does not
    assert!(fits(10, [each(1, &path(SUN_PATH - 3))]));
    let error = planned(11, [each(1, &path(SUN_PATH - 3))]).unwrap_err();
    assert!(
        error.starts_with("too long path in the unix domain socket of worker 10 of"),
        "{error}"
    );
}

#[test]
fn ranges_that_overlap_clash() {
    let error = planned(4, [each(1, "127.0.0.1:8010"), each(2, "127.0.0.1:8013")]).unwrap_err();
    let expected = "127.0.0.1:8013 of worker 3 of \"listen 127.0.0.1:8010 per_worker\" in \
                    nginx.conf:1 conflicts with 127.0.0.1:8013 of worker 0 of \
                    \"listen 127.0.0.1:8013 per_worker\" in nginx.conf:2";
    assert_eq!(error, expected);
    assert!(!fits(4, [each(1, "127.0.0.1:8013"), each(2, "127.0.0.1:8010")]));
    assert!(fits(3, [each(1, "127.0.0.1:8010"), each(2, "127.0.0.1:8013")]));
    assert!(fits(4, [each(1, "127.0.0.1:8010"), each(2, "127.0.0.2:8010")]));
}

#[test]
fn a_range_clashes_with_a_plain_listen() {
    let error = planned(4, [listen(3, "127.0.0.1:8012"), each(9, "127.0.0.1:8010")]).unwrap_err();
    let expected = "127.0.0.1:8012 of worker 2 of \"listen 127.0.0.1:8010 per_worker\" in \
                    nginx.conf:9 conflicts with \"listen 127.0.0.1:8012\" in nginx.conf:3";
    assert_eq!(error, expected);
    assert!(fits(2, [listen(3, "127.0.0.1:8012"), each(9, "127.0.0.1:8010")]));
}

#[test]
fn a_wildcard_clashes_with_each_address_of_its_port() {
    for port in [8010, 8011, 8013] {
        assert!(!fits(4, [each(1, "127.0.0.1:8010"), listen(2, &format!("0.0.0.0:{port}"))]));
        assert!(!fits(4, [each(1, "0.0.0.0:8010"), listen(2, &format!("127.0.0.1:{port}"))]));
        assert!(!fits(4, [each(1, "[::]:8010"), listen(2, &format!("[::1]:{port}"))]));
    }
    assert!(fits(4, [each(1, "127.0.0.1:8010"), listen(2, "0.0.0.0:8014")]));
    assert!(fits(4, [each(1, "127.0.0.1:8010"), listen(2, "0.0.0.0:8009")]));
}

#[test]
fn ipv6_meets_ipv4_where_it_takes_both() {
    assert!(fits(4, [each(1, "[::]:8010"), each(2, "0.0.0.0:8010")]));
    assert!(fits(4, [each(1, "[::1]:8010"), each(2, "127.0.0.1:8010")]));
    assert!(fits(4, [dual(each(1, "[::1]:8010")), each(2, "127.0.0.1:8010")]));
    assert!(!fits(4, [dual(each(1, "[::]:8010")), each(2, "0.0.0.0:8010")]));
    assert!(!fits(4, [each(1, "127.0.0.1:8010"), dual(listen(2, "[::]:8011"))]));
    assert!(!fits(4, [each(1, "127.0.0.1:8010"), dual(listen(2, "[::ffff:127.0.0.1]:8011"))]));
}

#[test]
fn tcp_and_udp_have_ports_of_their_own() {
    assert!(fits(4, [each(1, "127.0.0.1:8010"), udp(each(2, "127.0.0.1:8010"))]));
    assert!(!fits(4, [udp(each(1, "127.0.0.1:8010")), udp(listen(2, "0.0.0.0:8013"))]));
}

#[test]
fn a_path_clashes_with_the_suffixed_one() {
    let error = planned(3, [each(1, "unix:/p"), listen(2, "unix:/p.2")]).unwrap_err();
    let expected = "unix:/p.2 of worker 2 of \"listen unix:/p per_worker\" in nginx.conf:1 \
                    conflicts with \"listen unix:/p.2\" in nginx.conf:2";
    assert_eq!(error, expected);
    assert!(fits(2, [each(1, "unix:/p"), listen(2, "unix:/p.2")]));
    // /p.1.0 is not among /p.0 /p.1, nor the other way round
    assert!(fits(2, [each(1, "unix:/p"), each(2, "unix:/p.1")]));
}

#[test]
fn one_block_shares_an_address() {
    let mut all = Listens::default();
    assert!(!all.note(listen(1, "127.0.0.1:8010")));
    assert!(all.note(each(2, "127.0.0.1:8010")), "the first to ask");
    assert!(!all.note(each(3, "127.0.0.1:8010")), "asks again");
    assert!(!all.note(listen(4, "127.0.0.1:8010")));
    let plans = all.plan(2).unwrap();
    assert_eq!(plans.len(), 1);
    assert_eq!(plans[0].listen.shown(), "\"listen 127.0.0.1:8010 per_worker\" in nginx.conf:2");
}

#[test]
fn two_blocks_do_not_share() {
    let error = planned(2, [each(1, "0.0.0.0:8010"), in_stream(listen(2, "0.0.0.0:8010"))]);
    assert!(error.unwrap_err().ends_with("conflicts with \"listen 0.0.0.0:8010\" in nginx.conf:2"));
    // the path itself is free when it is spread
    let all = listens([in_stream(listen(1, "unix:/p")), each(2, "unix:/p")]);
    assert_eq!(all.plan(2).unwrap()[0].nth, 1);
}

#[test]
fn ipv6only_off_counts_wherever_it_stands() {
    let plain = [listen(1, "[::]:8010"), dual(each(2, "[::]:8010")), listen(3, "127.0.0.1:8011")];
    assert!(!fits(2, plain));
}

#[test]
fn sockets_without_a_directive_count_too() {
    let mut all = listens([each(1, "127.0.0.1:7999")]);
    let plain = |text: &str| listen(0, text).address;
    all.found(Transport::Stream, plain("127.0.0.1:7999"), true);
    assert!(all.plan(2).is_ok());
    all.found(Transport::Stream, plain("0.0.0.0:8000"), true);
    let error = all.plan(2).unwrap_err().to_string();
    let expected = "conflicts with 0.0.0.0:8000, the default of a server without \"listen\"";
    assert!(error.ends_with(expected), "{error}");

    let mut all = listens([each(1, "127.0.0.1:9000")]);
    all.found(Transport::Stream, plain("127.0.0.1:9001"), true);
    let error = all.plan(2).unwrap_err().to_string();
    let expected = "conflicts with 127.0.0.1:9001, which no \"listen\" directive names";
    assert!(error.ends_with(expected), "{error}");
}

#[test]
fn ports_come_in_the_order_of_the_configuration() {
    let all =
        listens([each(1, "unix:/p"), listen(2, "[::]:70"), each(3, "[::]:90"), each(4, "[::]:80")]);
    assert_eq!(all.base_ports().collect::<Vec<_>>(), [90, 80]);
    let all = listens([listen(1, "[::]:80"), each(2, "[::]:90"), each(3, "[::]:80")]);
    assert_eq!(all.base_ports().collect::<Vec<_>>(), [90, 80]);
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    fn any_listen() -> impl Strategy<Value = Listen> {
        const IPS: &[&str] = &["0.0.0.0", "127.0.0.1", "127.0.0.2", "[::]", "[::1]"];
        let parts = (prop::sample::select(IPS), 1000u16..1024, any::<bool>(), any::<bool>());
        parts.prop_map(|(ip, port, per_worker, ipv6only)| Listen {
            per_worker,
            ipv6only,
            ..listen(1, &format!("{ip}:{port}"))
        })
    }

    /// What the kernel would say of two sockets on one port.
    fn kernel_refuses(a: &Listen, b: &Listen) -> bool {
        let families = |listen: &Listen| {
            let ip = listen.address.ip().unwrap();
            let both = ip.is_unspecified() && ip.is_ipv6() && !listen.ipv6only;
            (ip, ip.is_ipv4() || both, ip.is_ipv6())
        };
        let ((a, a4, a6), (b, b4, b6)) = (families(a), families(b));
        let any = a.is_unspecified() || b.is_unspecified();
        a == b || any && (a4 && b4 || a6 && b6)
    }

    proptest! {
        #[test]
        fn a_plan_is_what_the_kernel_would_take(
            all in prop::collection::vec(any_listen(), 1..6),
            workers in 1usize..6,
        ) {
            let all = listens(all);
            let mut clash = false;
            for (at, a) in all.0.iter().enumerate() {
                for b in all.0.iter().skip(at + 1).filter(|b| a.per_worker || b.per_worker) {
                    for (of_a, of_b) in (0..workers).flat_map(|i| (0..workers).map(move |j| (i, j))) {
                        let ports = (a.of_worker(of_a).unwrap().port(), b.of_worker(of_b).unwrap().port());
                        clash |= ports.0 == ports.1 && kernel_refuses(a, b);
                    }
                }
            }
            prop_assert_eq!(all.plan(workers).is_err(), clash);
        }
    }
}

#[test]
fn a_worker_is_reached_at_its_first_own_address_of_the_block() {
    let all = [
        listen(1, "127.0.0.1:80"),
        in_stream(each(2, "127.0.0.1:7000")),
        udp(each(3, "127.0.0.1:8443")),
        each(4, "0.0.0.0:8010"),
        each(5, "127.0.0.1:9010"),
    ];
    let at = |all: &[Listen], block, worker| {
        let address = listens(all.to_vec()).of_worker(block, Transport::Stream, worker);
        address.map(|address| address.to_string())
    };
    assert_eq!(at(&all, HTTP, 2).as_deref(), Some("127.0.0.1:8012"));
    assert_eq!(at(&all, STREAM, 0).as_deref(), Some("127.0.0.1:7000"));
    assert_eq!(at(&all[..2], HTTP, 0), None);
    assert_eq!(at(&[each(1, "unix:/run/w")], HTTP, 3).as_deref(), Some("unix:/run/w.3"));
    assert_eq!(at(&[each(1, "[::]:65535")], HTTP, 0).as_deref(), Some("[::1]:65535"));
    assert_eq!(at(&[each(1, "[::]:65535")], HTTP, 1), None);
}
