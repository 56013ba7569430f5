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
    /// The proxy itself lacks something; it says nothing of the endpoint.
    #[error("the proxy cannot make a connection: {0}")]
    Local(Box<str>),
    #[error("the address that was asked for is no HTTP service any more")]
    NoRoute,
    /// Before any byte of an answer, on a connection that had been unused.
    #[error("the endpoint closed the unused connection")]
    Stale,
    /// Before any byte of an answer.
    #[error("no answer from the endpoint: {0}")]
    Lost(Box<str>),
    /// It acknowledges nothing of what it is sent.
    #[error("the endpoint is gone or cut off: it acknowledges nothing")]
    Vanished,
    /// It acknowledged the request, but answers no probe any more.
    #[error("the endpoint is gone or cut off: it has the request, and answers no probe")]
    Silent,
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
    /// Whether the try came to no endpoint: nobody did any work for it.
    pub(super) fn reached_nobody(&self) -> bool {
        matches!(self, Self::Connect(_) | Self::Stale | Self::Vanished)
    }

    /// Whether the endpoint, or the way to it, is gone: no other connection to it is of use, and asking it
    /// again is not either.
    pub(super) fn is_of_the_way(&self) -> bool {
        matches!(self, Self::Connect(_) | Self::Vanished | Self::Silent)
    }

    /// The status that tells the client, if one does, and the flag that tells the log.
    pub(super) fn told_by(&self) -> (u16, Flags) {
        match self {
            Self::NoEndpoint => (503, Flags::NO_HEALTHY_UPSTREAM),
            Self::Connect(_) => (503, Flags::UPSTREAM_CONNECT_FAILURE),
            Self::Local(_) => (503, Flags::OVERLOAD),
            Self::NoRoute => (503, Flags::NO_ROUTE),
            // Not 502: the caller's own sidecar tries another endpoint on 503, where that is safe.
            Self::Stale | Self::Lost(_) | Self::Vanished | Self::Silent | Self::Unavailable => {
                (503, Flags::UPSTREAM_CLOSED)
            }
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
