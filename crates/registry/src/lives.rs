//! The lives of endpoints and clusters, found again when a cluster is put together anew.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use model::{ClusterName, Endpoint, ObjectName};

use crate::cluster::Cluster;
use crate::state::{ClusterState, Ejections, EndpointState};

/// An endpoint is another one when its workload, its address or its generation is another.
type Key = (Option<ObjectName>, SocketAddr, Arc<str>);

/// Every endpoint's life that some snapshot or some request still holds.
#[derive(Debug, Default)]
pub(crate) struct Lives {
    endpoints: HashMap<Key, Weak<EndpointState>>,
    /// Size at which those that ended are swept out.
    sweep_at: usize,
    ejections: Arc<Ejections>,
}

impl Lives {
    pub(crate) fn endpoint(&mut self, endpoint: &Endpoint) -> Arc<EndpointState> {
        let key = (
            endpoint.workload.clone(),
            endpoint.address,
            Arc::clone(&endpoint.generation),
        );
        if let Some(life) = self.endpoints.get(&key).and_then(Weak::upgrade) {
            return life;
        }
        if self.endpoints.len() >= self.sweep_at {
            self.endpoints.retain(|_, life| life.strong_count() > 0);
            self.sweep_at = (self.endpoints.len() * 2).max(1024);
        }
        let life = Arc::new(EndpointState::new(Arc::clone(&self.ejections)));
        self.endpoints.insert(key, Arc::downgrade(&life));
        life
    }

    pub(crate) fn cluster(&self, name: &ClusterName, before: &[Arc<Cluster>]) -> Arc<ClusterState> {
        match before.iter().find(|cluster| cluster.name == *name) {
            Some(cluster) => Arc::clone(&cluster.state),
            None => Arc::new(ClusterState::new(Arc::clone(&self.ejections))),
        }
    }
}
