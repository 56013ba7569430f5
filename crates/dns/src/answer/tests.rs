//! What an alias is answered whose end others have.

use model::settings::Overrides;
use model::{Created, ObjectName, Service, ServiceKind, SessionAffinity, Update};
use registry::Table;
use runtime::metrics::Metrics;
use runtime::tap::Tap;

use super::*;
use crate::fake::{Does, Fake, run};
use crate::message::answers;
use crate::resolvers::Resolvers;

/// `db.example.com MX`, by way of `db.mesh`.
const QUERY: &[u8] = b"\x07\x09\x01\0\0\x01\0\0\0\0\0\0\x02db\x04mesh\0\0\x0f\0\x01";

fn answerer(resolver: &Fake) -> Answerer {
    let mut table = Table::new(None);
    table.apply(Update::Service(Box::new(Service {
        name: ObjectName::new("mesh", "db"),
        host: "db.mesh.svc.cluster.local".into(),
        kind: ServiceKind::ExternalName("db.example.com".into()),
        ports: Vec::new(),
        affinity: SessionAffinity::None,
        created: Created::Unknown,
        publish_not_ready: false,
        settings: Overrides::default(),
    })));
    let reports = Reports::new(&Metrics::default(), Tap::default());
    let upstream = reports.upstream.clone();
    let mut answerer = Answerer::new(Config {
        snapshots: watch::channel(table.snapshot()).1,
        resolv_conf: "/nonexistent".into(),
        ttl: None,
        mark: None,
        gives_signs: false,
        places: crate::Places::within(usize::MAX),
        reports,
    });
    answerer.forwarder = Forwarder::new(Resolvers::of(vec![resolver.at]), None, upstream);
    answerer
}

async fn answer(does: Does) -> Vec<u8> {
    let resolver = Fake::start(does).await;
    let answerer = answerer(&resolver);
    let AtOnce::Asks(asks) = answerer.at_once(QUERY, By::Datagram) else {
        panic!("it is not all ours")
    };
    let client = "127.0.0.1:9".parse().unwrap();
    answerer.ask(QUERY, client, By::Datagram, asks).await.unwrap()
}

#[test]
fn how_long_there_is_no_such_record_is_said_by_who_knows() {
    run(async {
        const START: &[u8] = b"\xc0\x0f\0\x06\0\x01\0\0\0\x3c\0\x1c\x01a\xc0\x0f\x01b\xc0\x0f\0\0\0\x01\0\0\0\x02\0\0\0\x03\0\0\0\x04\0\0\0\x05";
        let answer = answer(Does::Say(0, [0, 0, 0, 1, 0, 0], START)).await;
        assert_eq!(answer[3] & 0xf, 0);
        let (list, authority) = sections(&answer).unwrap();
        assert_eq!(list.len(), 1, "the alias");
        let [(zone, start)] = &authority[..] else {
            panic!("{authority:?}")
        };
        assert_eq!(*zone, encode_name("example.com").unwrap());
        assert_eq!((start.kind, start.ttl), (kind::SOA, 60));
        assert!(answer.ends_with(&START[START.len() - 20..]));
    });
}

#[test]
fn an_end_that_is_cut_off_is_passed_on_as_such() {
    run(async {
        const MAIL: &[u8] = b"\xc0\x0c\0\x0f\0\x01\0\0\0\x3c\0\x05\0\x0a\x01m\0";
        let answer = answer(Does::Say(2, [0, 1, 0, 0, 0, 0], MAIL)).await;
        assert_eq!((answer[3] & 0xf, is_truncated(&answer)), (0, true));
        assert_eq!(
            answers(&answer).unwrap().len(),
            2,
            "the alias, and what there was"
        );
    });
}
