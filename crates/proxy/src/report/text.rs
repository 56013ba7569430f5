//! The access log's two forms: one line of text, or one JSON object, a record. docs/access-log.md
//! lists the fields.

use std::fmt::Write as _;
use std::io::Write;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use model::event::AccessRecord;
use serde::Serialize;

/// One line for people. Fields in a fixed order, `-` for what is absent:
/// time, direction, source `->` original destination, protocol, service, endpoint, request, status,
/// flags, duration, then `name=value` for the rest.
pub(super) fn write_text(line: &mut Vec<u8>, record: &AccessRecord) {
    let service = record.service.as_deref().unwrap_or(record.cluster.as_str());
    let _ = write!(
        line,
        "{} {} {} -> {} {} {} ",
        time(record.start),
        record.direction,
        record.source,
        record.original_dst,
        record.protocol,
        service,
    );
    match record.endpoint {
        Some(endpoint) => {
            let _ = write!(line, "{endpoint} ");
        }
        None => line.extend_from_slice(b"- "),
    }
    if let Some(http) = &record.http {
        let _ = write!(
            line,
            "\"{} {} {}\" {} ",
            Quoted(&http.method),
            Quoted(&http.authority),
            Quoted(&http.path),
            http.status
        );
    } else {
        line.extend_from_slice(b"- - ");
    }
    let _ = write!(line, "{} {}", record.flags, Millis(record.duration));
    if let Some(connect) = record.connect {
        let _ = write!(line, " connect={}", Millis(connect));
    }
    if let Some(first_byte) = record.first_byte {
        let _ = write!(line, " first_byte={}", Millis(first_byte));
    }
    let _ = write!(
        line,
        " received={} sent={}",
        record.bytes_received, record.bytes_sent
    );
    if let Some(sni) = &record.sni {
        let _ = write!(line, " sni={}", Quoted(sni));
    }
    if let Some(http) = &record.http {
        if http.tries > 1 {
            let _ = write!(line, " tries={}", http.tries);
        }
        let _ = write!(line, " id={}", Quoted(&http.request_id));
    }
    let _ = writeln!(line, " conn={}", record.connection);
}

/// One JSON object, ended by a newline.
pub(super) fn write_json(line: &mut Vec<u8>, record: &AccessRecord) {
    let http = record.http.as_deref();
    let object = Json {
        time: time(record.start),
        direction: record.direction.as_str(),
        connection: record.connection,
        source: record.source.to_string(),
        original_dst: record.original_dst.to_string(),
        protocol: record.protocol.as_str(),
        known_by: record.known_by.as_str(),
        service: record.service.as_deref(),
        cluster: record.cluster.as_str(),
        endpoint: record.endpoint.map(|endpoint| endpoint.to_string()),
        method: http.map(|http| &*http.method),
        authority: http.map(|http| &*http.authority),
        path: http.map(|http| &*http.path),
        status: http.map(|http| http.status),
        request_id: http.map(|http| &*http.request_id),
        tries: http.map(|http| http.tries),
        sni: record.sni.as_deref(),
        flags: record.flags.codes().collect(),
        duration_us: record.duration.as_micros(),
        connect_us: record.connect.map(|time| time.as_micros()),
        first_byte_us: record.first_byte.map(|time| time.as_micros()),
        bytes_received: record.bytes_received,
        bytes_sent: record.bytes_sent,
    };
    // Neither can fail: every field is text or a number, and the sink is memory.
    let _ = serde_json::to_writer(&mut *line, &object);
    line.push(b'\n');
}

/// Field names are a promise to those who parse them.
#[derive(Serialize)]
struct Json<'a> {
    time: String,
    direction: &'a str,
    connection: u64,
    source: String,
    original_dst: String,
    protocol: &'a str,
    known_by: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<&'a str>,
    cluster: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    authority: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tries: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sni: Option<&'a str>,
    flags: Vec<&'a str>,
    duration_us: u128,
    #[serde(skip_serializing_if = "Option::is_none")]
    connect_us: Option<u128>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_byte_us: Option<u128>,
    bytes_received: u64,
    bytes_sent: u64,
}

/// UTC with microseconds.
fn time(at: SystemTime) -> String {
    let stamp = Timestamp::try_from(at).unwrap_or(Timestamp::UNIX_EPOCH);
    stamp.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

/// Milliseconds with three decimals.
struct Millis(Duration);

impl std::fmt::Display for Millis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let micros = self.0.as_micros();
        write!(f, "{}.{:03}ms", micros / 1000, micros % 1000)
    }
}

/// A client's text: it can break neither the line nor the quotes around it. `-` where empty.
struct Quoted<'a>(&'a str);

impl std::fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() {
            return f.write_char('-');
        }
        for character in self.0.chars() {
            match character {
                ' ' => f.write_str("%20")?,
                '"' | '\\' => write!(f, "\\{character}")?,
                control if control.is_control() => write!(f, "{}", control.escape_unicode())?,
                plain => f.write_char(plain)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use model::event::{Flags, HttpRecord};
    use model::{ClusterName, Direction, KnownBy, OrigDst, Protocol, Remote};

    use super::*;

    fn record() -> AccessRecord {
        let mut flags = Flags::RETRIED;
        flags.insert(Flags::UPSTREAM_CLOSED);
        AccessRecord {
            start: UNIX_EPOCH + Duration::from_millis(1_500),
            direction: Direction::Outbound,
            connection: 7,
            source: Remote::new(([10, 0, 0, 1], 4000).into()),
            original_dst: OrigDst::new(([10, 96, 0, 1], 80).into()),
            protocol: Protocol::Http,
            known_by: KnownBy::PortNamePrefix,
            service: Some("nginx.sidecar.svc.cluster.local".into()),
            cluster: ClusterName::new(Direction::Outbound, 80, "nginx.sidecar.svc.cluster.local"),
            endpoint: Some(([10, 1, 0, 5], 8080).into()),
            http: Some(Box::new(HttpRecord {
                method: "GET".into(),
                authority: "nginx".into(),
                path: "/a\"b\nc d".into(),
                request_id: "".into(),
                status: 200,
                tries: 2,
            })),
            sni: None,
            flags,
            duration: Duration::from_micros(1_234),
            connect: Some(Duration::from_micros(90)),
            first_byte: None,
            bytes_received: 0,
            bytes_sent: 612,
        }
    }

    #[test]
    fn text_is_one_line_whatever_the_client_sent() {
        let mut line = Vec::new();
        write_text(&mut line, &record());
        assert_eq!(
            String::from_utf8(line).unwrap(),
            "1970-01-01T00:00:01.500000Z outbound 10.0.0.1:4000 -> 10.96.0.1:80 http \
             nginx.sidecar.svc.cluster.local 10.1.0.5:8080 \"GET nginx /a\\\"b\\u{a}c%20d\" 200 UC,RT 1.234ms \
             connect=0.090ms received=0 sent=612 tries=2 id=- conn=7\n"
        );
    }

    #[test]
    fn json_says_the_same() {
        let mut line = Vec::new();
        write_json(&mut line, &record());
        let value: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(value["flags"], serde_json::json!(["UC", "RT"]));
        assert_eq!(value["duration_us"], 1234);
        assert_eq!(value["path"], "/a\"b\nc d");
        assert!(value.get("sni").is_none());
        assert_eq!(line.iter().filter(|&&byte| byte == b'\n').count(), 1);
    }

    #[test]
    fn every_field_and_flag_is_documented() {
        let document = include_str!("../../../../docs/access-log.md");
        let full = AccessRecord {
            sni: Some("a".into()),
            first_byte: Some(Duration::ZERO),
            flags: Flags::every(),
            ..record()
        };
        let mut line = Vec::new();
        write_json(&mut line, &full);
        let value: serde_json::Value = serde_json::from_slice(&line).unwrap();
        let mut words: Vec<&str> = Flags::every().codes().collect();
        words.extend(value.as_object().unwrap().keys().map(String::as_str));
        for word in words {
            let row = |line: &str| {
                line.starts_with("| `") && line.split(" | ").next().unwrap().contains(&format!("`{word}`"))
            };
            assert!(
                document.lines().any(row),
                "docs/access-log.md has no row for {word}"
            );
        }
    }
}
