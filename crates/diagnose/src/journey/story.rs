//! Each step in words: which hop it is and what is told of it.

use std::net::SocketAddr;

use model::event::{AccessRecord, HttpRecord, Network, Step};
use model::{Direction, KnownBy, Local, OrigDst, Protocol, Remote, ports};

use super::layout::{Line, Tone, elapsed, size};

/// The title of a connection's block.
pub(super) fn title(direction: Direction, source: Remote, original_dst: OrigDst) -> String {
    match direction {
        Direction::Outbound => format!("→ {original_dst}  from {source}"),
        Direction::Inbound => format!("← {original_dst}  from {source}"),
    }
}

/// How it came to the proxy: by which rule, unless by none.
pub(super) fn rule(published: Option<Local>, rule: impl FnOnce() -> String) -> Line {
    let text = match published {
        Some(_) => String::from("none: it came to a published port"),
        None => rule(),
    };
    Line::hop("rule", text)
}

/// The lines that tell one step; those of a request are indented below it.
pub(super) fn lines(step: &Step, in_request: bool) -> Vec<Line> {
    let inner = if in_request { Line::request } else { Line::hop };
    match step {
        Step::Captured {
            direction, published, ..
        } => vec![Line::hop("listener", listener(*direction, *published))],
        Step::Decided {
            service,
            cluster,
            protocol,
            known_by,
            why,
        } => {
            let service = service.as_deref().unwrap_or("none");
            vec![
                Line::hop("service", format!("{service} ({why})")),
                Line::hop("protocol", declared(*protocol, *known_by)),
                Line::hop("cluster", cluster.as_str()),
            ]
        }
        Step::Detected {
            protocol,
            sni,
            server_first,
        } => vec![Line::hop(
            "protocol",
            detected(*protocol, sni.as_deref(), *server_first),
        )],
        Step::Request {
            number,
            method,
            authority,
            path,
            route,
        } => vec![
            Line::hop("request", format!("{number}: {method} {authority}{path}")).tone(Tone::Title),
            Line::request("route", &**route),
        ],
        Step::Chosen {
            endpoint,
            attempt,
            usable,
            of,
            network,
        } => {
            let place = match network {
                Network::Only => "",
                Network::Inside => ", inside",
                Network::Outside => ", the caller's own",
            };
            let text = chosen(*endpoint, *attempt, *usable, *of) + place;
            vec![inner("endpoint", text)]
        }
        Step::Connected { took, .. } => vec![inner(
            "connected",
            took.map_or_else(
                || String::from("a connection was kept from before"),
                |took| format!("in {}", elapsed(took)),
            ),
        )],
        Step::TryFailed { endpoint, why, retry } => {
            let (then, tone) = if *retry {
                ("tries again", Tone::Odd)
            } else {
                ("gives up", Tone::Bad)
            };
            vec![inner("failed", format!("{endpoint}: {why}; {then}")).tone(tone)]
        }
        Step::Response { status, took } => {
            vec![inner("answer", format!("{status} after {}", elapsed(*took))).tone(tone_of(*status))]
        }
        Step::Ended(record) => vec![end(record, inner)],
        // It is told on its own.
        Step::LookedUp(_) => vec![],
    }
}

fn listener(direction: Direction, published: Option<Local>) -> String {
    if let Some(at) = published {
        return format!("{direction}, published at {at}");
    }
    let port = match direction {
        Direction::Outbound => ports::OUTBOUND,
        Direction::Inbound => ports::INBOUND,
    };
    format!("{direction}, port {port}")
}

fn declared(protocol: Protocol, known_by: KnownBy) -> String {
    match known_by {
        KnownBy::FirstBytes => String::from("not declared: the first bytes will tell"),
        KnownBy::UnknownDestination => String::from("not looked at: bytes pass as they are"),
        known_by => format!("{protocol}, by {known_by}"),
    }
}

fn detected(protocol: Protocol, sni: Option<&str>, server_first: bool) -> String {
    let who = if server_first {
        "the server spoke first"
    } else {
        "by the client's first bytes"
    };
    let sni = sni
        .map(|name| format!(", server name {name}"))
        .unwrap_or_default();
    format!("{protocol}, {who}{sni}")
}

fn chosen(endpoint: SocketAddr, attempt: u32, usable: usize, of: usize) -> String {
    let among = match (usable, of) {
        (1, 1) => String::new(),
        (usable, of) if usable == of => format!(", one of {of}"),
        (usable, of) => format!(", one of {usable} usable, {of} in all"),
    };
    let again = if attempt > 1 {
        format!(", try {attempt}")
    } else {
        String::new()
    };
    format!("{endpoint}{among}{again}")
}

fn tone_of(status: u16) -> Tone {
    match status {
        500.. => Tone::Bad,
        400..500 => Tone::Odd,
        _ => Tone::Good,
    }
}

fn end(record: &AccessRecord, inner: fn(&'static str, String) -> Line) -> Line {
    let flags = if record.flags.is_empty() {
        String::new()
    } else {
        format!(", flags {}", record.flags)
    };
    let traffic = format!(
        "{} up, {} down in {}{flags}",
        size(record.bytes_received),
        size(record.bytes_sent),
        elapsed(record.duration)
    );
    match &record.http {
        Some(http) => inner("done", request_end(http, &traffic)).tone(match http.status {
            0 => Tone::Bad,
            status => tone_of(status),
        }),
        None => {
            let sni = record
                .sni
                .as_ref()
                .map(|name| format!("server name {name}, "))
                .unwrap_or_default();
            let tone = if record.flags.is_empty() {
                Tone::Good
            } else {
                Tone::Bad
            };
            Line::hop("closed", format!("{sni}{traffic}")).tone(tone)
        }
    }
}

fn request_end(http: &HttpRecord, traffic: &str) -> String {
    let tries = if http.tries > 1 {
        format!(" at try {}", http.tries)
    } else {
        String::new()
    };
    match http.status {
        0 => format!("no answer{tries}, {traffic}"),
        status => format!("{status}{tries}, {traffic}"),
    }
}
