//! One request as it is reported: counted always; written down in words only where somebody reads them.

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use model::Settings;
use model::event::{AccessRecord, Flags, HttpRecord, Step};

use crate::capture::Origin;
use crate::http1::{Asked, Method, RequestHead, Upgrade, Version};
use crate::route::Route;
use crate::worker::Worker;

use super::Client;

/// One request, and what became of it.
pub(super) struct Request {
    pub(super) asked: Asked,
    pub(super) start: Instant,
    pub(super) flags: Flags,
    /// Status sent to the client; 0 where none was.
    pub(super) status: u16,
    pub(super) tries: u32,
    /// Endpoint of the last try.
    pub(super) endpoint: Option<SocketAddr>,
    /// How long the last try's connection took; none where it was there already.
    pub(super) connect: Option<Duration>,
    pub(super) first_byte: Option<Duration>,
    /// Bytes of bodies, framing included.
    pub(super) received: u64,
    pub(super) sent: u64,
    words: Option<Box<Words>>,
}

/// What the request line says.
struct Words {
    method: Box<str>,
    authority: Box<str>,
    path: Box<str>,
    request_id: Box<str>,
}

impl Request {
    /// A request whose head was never read.
    pub(super) fn unread(start: Instant) -> Self {
        Self {
            asked: Asked {
                method: Method::Other,
                version: Version::Http11,
                upgrade: Upgrade::No,
            },
            start,
            flags: Flags::default(),
            status: 0,
            tries: 0,
            endpoint: None,
            connect: None,
            first_byte: None,
            received: 0,
            sent: 0,
            words: None,
        }
    }

    /// A request whose head stands in `input`.
    pub(super) fn new(client: &Client, input: &[u8], head: &RequestHead, request_id: Option<&[u8]>) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned().into_boxed_str();
        let words = client
            .worker
            .reports
            .wants_records(client.settings.access_log)
            .then(|| {
                let id = head.request_id.map(|id| id.of(input)).or(request_id);
                Box::new(Words {
                    method: text(head.method_name.of(input)),
                    authority: text(head.authority.of(input)),
                    path: text(head.path.of(input)),
                    request_id: text(id.unwrap_or_default()),
                })
            });
        let request = Self {
            asked: Asked {
                method: head.method,
                version: head.version,
                upgrade: head.upgrade,
            },
            words,
            ..Self::unread(client.began)
        };
        request.announce(client);
        request
    }

    fn announce(&self, client: &Client) {
        let (Some(words), Some(cluster)) = (&self.words, client.route.cluster()) else {
            return;
        };
        client.worker.reports.event(&client.origin, || Step::Request {
            number: client.requests,
            method: words.method.clone(),
            authority: words.authority.clone(),
            path: words.path.clone(),
            route: cluster.route(&words.authority).as_str().into(),
        });
    }

    /// A byte of an answer came. Only a record asks when.
    pub(super) fn first_byte_came(&mut self) {
        if self.words.is_some() && self.first_byte.is_none() {
            self.first_byte = Some(self.start.elapsed());
        }
    }

    /// The answer's head goes to the client.
    pub(super) fn answered(&mut self, client: &Client, status: u16) {
        self.status = status;
        let start = self.start;
        client.worker.reports.event(&client.origin, || Step::Response {
            status,
            took: start.elapsed(),
        });
    }

    /// Counts it, and tells of it where that is wanted.
    pub(super) fn report(&mut self, client: &Client) {
        self.report_of(&client.worker, &client.origin, &client.route, &client.settings);
    }

    /// As [`Self::report`], where there is no client left.
    pub(super) fn report_of(&mut self, worker: &Worker, origin: &Origin, route: &Route, settings: &Settings) {
        let duration = self.start.elapsed();
        route
            .counters
            .request(self.status, self.received, self.sent, self.flags, duration);
        worker.reports.record(origin, settings.access_log, || {
            let words = self.words.take().map_or_else(Words::none, |words| *words);
            let now = SystemTime::now();
            let start = now.checked_sub(duration).unwrap_or(now);
            AccessRecord {
                endpoint: self.endpoint,
                http: Some(Box::new(HttpRecord {
                    method: words.method,
                    authority: words.authority,
                    path: words.path,
                    request_id: words.request_id,
                    status: self.status,
                    tries: self.tries,
                })),
                flags: self.flags,
                duration,
                connect: self.connect,
                first_byte: self.first_byte,
                bytes_received: self.received,
                bytes_sent: self.sent,
                ..route.record(origin, start)
            }
        });
    }
}

impl Words {
    fn none() -> Self {
        Self {
            method: Box::default(),
            authority: Box::default(),
            path: Box::default(),
            request_id: Box::default(),
        }
    }
}
