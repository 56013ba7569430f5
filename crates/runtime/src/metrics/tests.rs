//! Tests of the metrics: what a scrape shows.

use std::time::Duration;

use super::*;

#[test]
fn a_scrape_shows_every_kind() {
    let metrics = Metrics::default();
    metrics
        .counter("weir_things_total", "Things that happened")
        .inc_by(3);
    metrics.gauge("weir_level", "How high it is").set(-2);
    let histogram = metrics.histogram("weir_time_seconds", "How long it took", &[0.1, 1.0]);
    for millis in [50, 100, 101, 5000] {
        histogram.observe(Duration::from_millis(millis));
    }
    let family = metrics.counters(
        "weir_requests_total",
        "Requests",
        [Label::fixed("direction"), Label::open("service")],
    );
    family.with(["outbound", "a\"b"]).inc();
    let expected = "\
# HELP weir_things Things that happened.
# TYPE weir_things counter
weir_things_total 3
# HELP weir_level How high it is.
# TYPE weir_level gauge
weir_level -2
# HELP weir_time_seconds How long it took.
# TYPE weir_time_seconds histogram
weir_time_seconds_sum 5.251
weir_time_seconds_count 4
weir_time_seconds_bucket{le=\"0.1\"} 2
weir_time_seconds_bucket{le=\"1.0\"} 3
weir_time_seconds_bucket{le=\"+Inf\"} 4
# HELP weir_requests Requests.
# TYPE weir_requests counter
weir_requests_total{direction=\"outbound\",service=\"a\\\"b\"} 1
# EOF
";
    assert_eq!(metrics.encode(), expected);
    let kinds: Vec<_> = metrics
        .descriptions()
        .into_iter()
        .map(|it| (it.name, it.kind))
        .collect();
    assert_eq!(kinds.first(), Some(&("weir_things_total", "counter")));
    assert_eq!(kinds.last(), Some(&("weir_requests_total", "counter")));
}

#[test]
fn threads_count_into_one_sum() {
    let counter = Counter::default();
    let threads: Vec<_> = (0..9)
        .map(|_| {
            let counter = counter.clone();
            std::thread::spawn(move || (0..1000).for_each(|_| counter.inc()))
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(counter.total(), 9000);
}

#[test]
fn a_family_past_its_bound_counts_open_labels_as_other() {
    let metrics = Metrics::default();
    let family = metrics.counters(
        "weir_x_total",
        "X",
        [Label::fixed("direction"), Label::open("service")],
    );
    for number in 0..MOST_SERIES + 100 {
        family.with(["outbound", &format!("service-{number}")]).inc();
    }
    family.with(["outbound", "service-0"]).inc();
    assert_eq!(family.with(["outbound", "other"]).total(), 100);
    assert_eq!(family.with(["outbound", "service-0"]).total(), 2);
    assert_eq!(
        metrics
            .encode()
            .lines()
            .filter(|line| !line.starts_with('#'))
            .count(),
        MOST_SERIES + 1
    );
    family.retain(|[_, service]| &**service == "service-0");
    family.with(["outbound", "late"]).inc();
    assert_eq!(
        metrics
            .encode()
            .lines()
            .filter(|line| !line.starts_with('#'))
            .count(),
        2
    );
}

#[test]
fn the_process_describes_itself() {
    let text = Metrics::of_process("1.2.3", "abcdef").encode();
    assert!(
        text.contains("weir_build_info{version=\"1.2.3\",commit=\"abcdef\"} 1"),
        "{text}"
    );
    for name in [
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_max_fds",
        "process_threads",
        "process_start_time_seconds",
    ] {
        let line = text.lines().find(|line| line.starts_with(&format!("{name} ")));
        let value: f64 = line
            .and_then(|line| line.rsplit_once(' '))
            .unwrap()
            .1
            .parse()
            .unwrap();
        assert!(value >= 0.0, "{name} {value}");
    }
}
