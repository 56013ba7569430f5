//! The queries that we have sent and wait for, by which one is known that comes back to us: where rules capture the
//! proxy's own look-ups, each would be forwarded again, without an end.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use model::ErrorName;

use crate::message::number;

type Place = (IpAddr, u16);

/// Whence each was sent, and its id: in `weir run` the client lives in another network, where somebody may have the
/// same address and port.
#[derive(Debug, Default)]
pub(super) struct OwnQueries(RefCell<HashMap<Place, u16>>);

/// Forgets it when dropped.
pub(super) struct Noted<'a> {
    all: &'a OwnQueries,
    place: Place,
}

fn place(of: SocketAddr) -> Place {
    (of.ip(), of.port())
}

fn id(query: &[u8]) -> u16 {
    number(query, 0).unwrap_or(0)
}

impl OwnQueries {
    pub(super) fn note(&self, local: SocketAddr, query: &[u8]) -> Noted<'_> {
        let place = place(local);
        self.0.borrow_mut().insert(place, id(query));
        Noted { all: self, place }
    }

    pub(super) fn has(&self, client: SocketAddr, query: &[u8]) -> bool {
        self.0.borrow().get(&place(client)) == Some(&id(query))
    }

    pub(super) fn tell(&self) {
        tracing::warn!(
            see = %ErrorName::Loop,
            "the capture rules lead the proxy's own look-ups back to it: no name outside the mesh is found; run the \
             proxy as the user that the rules let pass (weir init -u), or name its mark to both"
        );
    }
}

impl Drop for Noted<'_> {
    fn drop(&mut self) {
        self.all.0.borrow_mut().remove(&self.place);
    }
}
