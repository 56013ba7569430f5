//! Why there is no answer to deliver, and how the client and the log are told.

use model::event::Flags;

use crate::http1::Malformed;

/// Why there is no answer to deliver.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("the service has no ready endpoint")]
    NoEndpoint,
    #[error("cannot connect to the endpoint: {0}")]
    Connect(Box<str>),
    /// Before any byte of an answer, on a connection that had been unused.
    #[error("the endpoint closed the unused connection")]
    Stale,
    /// Before any byte of an answer.
    #[error("no answer from the endpoint: {0}")]
    Lost(Box<str>),
    /// It acknowledges nothing of what it is sent.
    #[error("the endpoint is gone or cut off: it acknowledges nothing")]
    Vanished,
    #[error("the endpoint broke off within the answer's head")]
    Partial,
    #[error("malformed answer from the endpoint: {0}")]
    Malformed(Malformed),
    /// It answered 503; the answer is at hand.
    #[error("the endpoint answered 503")]
    Unavailable,
    #[error("no answer within the time for one try")]
    TryLate,
    #[error("no answer within the time for the request")]
    Late,
    #[error("nothing moved for too long")]
    Idle,
    #[error("the proxy's drain ended")]
    Drained,
    #[error("the client is gone")]
    ClientGone,
    #[error("malformed request body: {0}")]
    ClientMalformed(Malformed),
}

impl Failure {
    /// The status that tells the client, if one does, and the flag that tells the log.
    pub(super) fn told_by(&self) -> (u16, Flags) {
        match self {
            Self::NoEndpoint => (503, Flags::NO_HEALTHY_UPSTREAM),
            Self::Connect(_) => (503, Flags::UPSTREAM_CONNECT_FAILURE),
            // Not 502: the caller's own sidecar tries another endpoint on 503, where that is safe.
            Self::Stale | Self::Lost(_) | Self::Vanished | Self::Unavailable => (503, Flags::UPSTREAM_CLOSED),
            Self::Partial => (502, Flags::UPSTREAM_CLOSED),
            Self::Malformed(_) => (502, Flags::UPSTREAM_PROTOCOL),
            Self::TryLate | Self::Late => (504, Flags::UPSTREAM_TIMEOUT),
            Self::Idle => (504, Flags::IDLE_TIMEOUT),
            Self::Drained => (0, Flags::DRAINED),
            Self::ClientGone => (0, Flags::DOWNSTREAM_CLOSED),
            Self::ClientMalformed(malformed) => (malformed.status(), Flags::DOWNSTREAM_PROTOCOL),
        }
    }
}
