//! Resolvers that answer, fail or are silent, on a clock that passes while everybody waits.

use runtime::metrics::Metrics;
use runtime::tap::Tap;
use tokio::time::advance;

use super::*;
use crate::Reports;
use crate::fake::{Does, Fake, run};

const QUERY: &[u8] = b"\x07\x09\x01\0\0\x01\0\0\0\0\0\0\x05other\x07example\0\0\x01\0\x01";
const PATIENCE: Duration = Duration::from_secs(5);

fn forwarder(resolvers: &[&Fake]) -> Forwarder {
    let addresses = resolvers.iter().map(|fake| fake.at).collect();
    let reports = Reports::new(&Metrics::default(), Tap::default());
    Forwarder::new(Resolvers::of(addresses), None, reports.upstream)
}

/// The code of the answer and how long it took; no code where there was none.
async fn ask(forwarder: &Forwarder) -> (Option<u8>, Duration) {
    let begin = Instant::now();
    let asked = forwarder.ask(QUERY, By::Datagram).await;
    let code = asked.map(|asked| {
        assert_eq!(asked.answer[..2], QUERY[..2]);
        asked.answer[3] & 0xf
    });
    (code, begin.elapsed())
}

#[test]
fn a_dead_resolver_costs_one_look_up_a_part_of_its_patience_and_others_nothing() {
    run(async {
        let (dead, live) = (Fake::start(Does::Nothing).await, Fake::start(Does::Answer).await);
        let forwarder = forwarder(&[&dead, &live]);
        let (code, took) = ask(&forwarder).await;
        assert!(code == Some(0) && took < PATIENCE / 2, "{code:?} {took:?}");
        let asked = dead.count();
        for _ in 0..50 {
            let (code, took) = ask(&forwarder).await;
            assert!(code == Some(0) && took < PATIENCE / 10, "{code:?} {took:?}");
        }
        assert_eq!(dead.count(), asked, "it is asked last");
        // From time to time one look-up sees whether it is back.
        advance(Duration::from_secs(30)).await;
        for _ in 0..50 {
            ask(&forwarder).await;
        }
        assert_eq!(dead.count(), asked + 1);
        dead.does.set(Does::Answer);
        advance(Duration::from_secs(30)).await;
        let of_live = live.count();
        for _ in 0..50 {
            ask(&forwarder).await;
        }
        assert_eq!((live.count(), dead.count()), (of_live, asked + 51), "it is back");
    });
}

#[test]
fn a_look_up_ends_when_its_client_gives_up() {
    run(async {
        let dead = [(); 3].map(|()| Fake::start(Does::Nothing));
        let [one, two, three] = dead;
        let (one, two, three) = (one.await, two.await, three.await);
        let forwarder = forwarder(&[&one, &two, &three]);
        let (code, took) = ask(&forwarder).await;
        assert!(code.is_none() && took <= PATIENCE + PATIENCE / 10, "{took:?}");
        assert!([one, two, three].iter().all(|fake| fake.count() > 0));
    });
}

#[test]
fn a_failure_is_passed_on_before_the_client_gives_up() {
    run(async {
        let (failing, dead) = (Fake::start(Does::Fail).await, Fake::start(Does::Nothing).await);
        for order in [[&failing, &dead], [&dead, &failing]] {
            let (code, took) = ask(&forwarder(&order)).await;
            assert!(code == Some(2) && took < PATIENCE * 3 / 4, "{code:?} {took:?}");
        }
        let (code, took) = ask(&forwarder(&[&failing])).await;
        assert!(code == Some(2) && took < PATIENCE / 10, "{code:?} {took:?}");
    });
}

#[test]
fn a_datagram_that_is_lost_is_sent_again() {
    run(async {
        let dead = Fake::start(Does::Nothing).await;
        let forwarder = forwarder(&[&dead]);
        assert_eq!(ask(&forwarder).await.0, None);
        let asked = dead.asked.borrow();
        assert!(asked.len() >= 2 && asked[0] == asked[1], "{asked:?}");
    });
}

#[test]
fn a_query_that_comes_back_is_known() {
    run(async {
        let dead = Fake::start(Does::Nothing).await;
        let forwarder = forwarder(&[&dead]);
        let own = forwarder.own.note(dead.at, QUERY);
        assert!(forwarder.is_own(QUERY, dead.at));
        let other = [&[1, 1], &QUERY[2..]].concat();
        assert!(!forwarder.is_own(&other, dead.at));
        drop(own);
        assert!(!forwarder.is_own(QUERY, dead.at));
    });
}
