//! The journey of made-up steps, line by line: widths, colour, connections side by side.

use std::sync::Arc;

use model::event::{AccessRecord, Flags, HttpRecord, LookUp, Network};
use model::{ClusterName, KnownBy, Protocol};

use super::*;

const HOST: &str = "nginx.sidecar.svc.cluster.local";

fn at(micros: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(3661) + Duration::from_micros(micros)
}

fn event(connection: u64, micros: u64, step: Step) -> Event {
    Event {
        at: at(micros),
        connection,
        step,
    }
}

fn remote() -> Remote {
    Remote::new("100.64.0.2:40312".parse().unwrap())
}

fn destination() -> OrigDst {
    OrigDst::new("10.96.0.10:80".parse().unwrap())
}

fn captured() -> Step {
    Step::Captured {
        direction: Direction::Outbound,
        source: remote(),
        original_dst: destination(),
        published: None,
    }
}

fn record(http: Option<HttpRecord>) -> Step {
    Step::Ended(Box::new(AccessRecord {
        start: at(0),
        direction: Direction::Outbound,
        connection: 1,
        source: remote(),
        original_dst: destination(),
        protocol: Protocol::Http,
        known_by: KnownBy::PortNamePrefix,
        service: Some(HOST.into()),
        cluster: ClusterName::new(Direction::Outbound, 80, HOST),
        endpoint: Some("10.0.0.2:8080".parse().unwrap()),
        http: http.map(Box::new),
        sni: None,
        flags: Flags::default(),
        duration: Duration::from_micros(2100),
        connect: None,
        first_byte: None,
        bytes_received: 0,
        bytes_sent: 12_700,
    }))
}

fn http(status: u16, tries: u32) -> Option<HttpRecord> {
    Some(HttpRecord {
        method: "GET".into(),
        authority: "nginx".into(),
        path: "/".into(),
        request_id: "".into(),
        status,
        tries,
    })
}

fn retried_request() -> Vec<Event> {
    let [one, two] = ["10.0.0.1:8080", "10.0.0.2:8080"].map(|text| text.parse().unwrap());
    let chosen = |endpoint, attempt| Step::Chosen {
        endpoint,
        attempt,
        usable: 3,
        of: 3,
        network: Network::Only,
    };
    let steps = [
        captured(),
        Step::Decided {
            service: Some(HOST.into()),
            cluster: ClusterName::new(Direction::Outbound, 80, HOST),
            protocol: Protocol::Http,
            known_by: KnownBy::PortNamePrefix,
            why: "a service owns this address and port".into(),
        },
        Step::Request {
            number: 1,
            method: "GET".into(),
            authority: "nginx".into(),
            path: "/".into(),
            route: Arc::from("default"),
        },
        chosen(one, 1),
        Step::TryFailed {
            endpoint: one,
            why: "connection refused".into(),
            retry: true,
        },
        chosen(two, 2),
        Step::Connected {
            endpoint: two,
            took: Some(Duration::from_micros(290)),
        },
        Step::Response {
            status: 200,
            took: Duration::from_micros(1700),
        },
        record(http(200, 2)),
    ];
    let steps = steps.into_iter().enumerate();
    steps
        .map(|(index, step)| event(1, index as u64 * 250, step))
        .collect()
}

fn journey(columns: usize, colour: bool) -> Journey {
    let rule_of: RuleOf = Box::new(|_, _, _| "nat OUTPUT: all TCP is redirected to port 15001".to_owned());
    Journey::new(Style::new(Some(columns), colour), rule_of)
}

fn tell(journey: &mut Journey, events: &[Event]) -> String {
    let told: String = events.iter().map(|event| journey.step(event)).collect();
    told + &journey.finish()
}

#[test]
fn a_retried_request_hop_by_hop() {
    let expected = "\
#1  → 10.96.0.10:80  from 100.64.0.2:40312 ─────────────────────── 01:01:01.000Z
  0.00 ms  rule      nat OUTPUT: all TCP is redirected to port 15001
  0.00 ms  listener  outbound, port 15001
  0.25 ms  service   nginx.sidecar.svc.cluster.local (a service owns this
                     address and port)
  0.25 ms  protocol  http, by port name
  0.25 ms  cluster   outbound|80||nginx.sidecar.svc.cluster.local
  0.50 ms  request   1: GET nginx/
  0.50 ms    route     default
  0.75 ms    endpoint  10.0.0.1:8080, one of 3
  1.00 ms    failed    10.0.0.1:8080: connection refused; tries again
  1.25 ms    endpoint  10.0.0.2:8080, one of 3, try 2
  1.50 ms    connected in 0.29 ms
  1.75 ms    answer    200 after 1.70 ms
  2.00 ms    done      200 at try 2, 0 B up, 12.4 KiB down in 2.10 ms
";
    let told = tell(&mut journey(80, false), &retried_request());
    assert_eq!(told, expected, "\n{told}");
}

#[test]
fn every_line_fits_the_terminal() {
    for columns in [40, 50, 80, 120] {
        let told = tell(&mut journey(columns, false), &retried_request());
        for line in told.lines() {
            assert!(line.chars().count() <= columns, "{columns}: {line}");
        }
    }
}

#[test]
fn colour_only_where_it_was_asked_for() {
    assert!(!tell(&mut journey(80, false), &retried_request()).contains('\x1b'));
    assert!(tell(&mut journey(80, true), &retried_request()).contains('\x1b'));
}

#[test]
fn connections_side_by_side_are_kept_apart() {
    let mut journey = journey(80, false);
    let detected = || Step::Detected {
        protocol: Protocol::Redis,
        sni: None,
        server_first: true,
    };
    let mut told = journey.step(&event(1, 0, captured()));
    told += &journey.step(&event(2, 10, captured()));
    told += &journey.step(&event(1, 20, detected()));
    told += &journey.step(&event(2, 30, detected()));
    assert_eq!(told.matches('#').count(), 1, "the second waits\n{told}");
    told += &journey.step(&event(1, 40, record(None)));
    assert_eq!(
        told.matches("#2  →").count(),
        1,
        "the second has the floor\n{told}"
    );
    told += &journey.step(&event(3, 50, captured()));
    told += &journey.tick(at(400_000));
    assert!(told.contains("\n\n#3"), "a silent one gives it up\n{told}");
    told += &journey.step(&event(2, 500_000, record(None)));
    told += &journey.finish();
    assert!(
        told.contains("#2  → 10.96.0.10:80  from 100.64.0.2:40312 (goes on)"),
        "{told}"
    );
    assert_eq!(told.matches("closed").count(), 2, "{told}");
}

#[test]
fn look_ups_are_told_and_name_what_comes_after_them() {
    let look_up = |name: &str, code: &'static str, records: &[&str], service: Option<&str>| LookUp {
        name: name.into(),
        kind: "A".into(),
        service: service.map(|name| name.parse().unwrap()),
        resolver: service.is_none().then(|| "10.0.0.53:53".parse().unwrap()),
        code: code.into(),
        is_truncated: false,
        addresses: records.iter().map(|text| text.parse().unwrap()).collect(),
        records: records.iter().map(|&text| text.into()).collect(),
        records_count: records.len(),
        took: Duration::from_micros(50),
    };
    let mut journey = Journey::new(
        Style::new(Some(100), false),
        Box::new(|_, _, _| String::from("r")),
    );
    let mut text = String::new();
    for (connection, micros, step) in [
        (
            0,
            0,
            Step::LookedUp(Box::new(look_up("nginx.x", "NXDOMAIN", &[], None))),
        ),
        (
            0,
            100,
            Step::LookedUp(Box::new(look_up(
                "nginx",
                "NOERROR",
                &["10.96.0.10"],
                Some("sidecar/nginx"),
            ))),
        ),
        (1, 1_000, captured()),
    ] {
        text += &journey.step(&event(connection, micros, step));
    }
    text += &journey.finish();
    for line in [
        "look-ups ",
        " 0.05 ms  A         nginx.x: NXDOMAIN (resolver 10.0.0.53)\n",
        " 0.05 ms  A         nginx: 10.96.0.10 (service sidecar/nginx)\n",
        "#1  → 10.96.0.10:80",
        "name      nginx, looked up 0.90 ms before\n",
    ] {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }
}
