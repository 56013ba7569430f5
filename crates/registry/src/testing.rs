//! Short spellings for the tests of this crate.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use model::settings::{Overrides, Settings};
use model::{
    Condition, Endpoint, KnownBy, Local, ObjectName, OrigDst, Protocol, Service, ServiceKind, ServicePort,
    SessionAffinity, TargetPort, Update, Workload,
};

use crate::Table;

pub(crate) const LEAVING: Condition = Condition {
    ready: false,
    serving: true,
    terminating: true,
};

pub(crate) fn name(text: &str) -> ObjectName {
    text.parse().expect("a test's object name")
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().expect("a test's address")
}

pub(crate) fn socket(text: &str) -> SocketAddr {
    text.parse().expect("a test's socket address")
}

pub(crate) fn dst(text: &str) -> OrigDst {
    OrigDst::new(socket(text))
}

/// Our end of a redirected connection.
pub(crate) fn listener() -> Local {
    Local::new(socket("127.0.0.1:15001"))
}

/// A service with HTTP ports; no address makes it headless.
pub(crate) fn service(text: &str, addresses: &[&str], ports: &[u16]) -> Service {
    let name = name(text);
    Service {
        host: format!("{}.{}.svc.cluster.local", name.name, name.namespace).into(),
        kind: if addresses.is_empty() {
            ServiceKind::Headless
        } else {
            ServiceKind::ClusterIp(addresses.iter().map(|a| ip(a)).collect())
        },
        ports: ports.iter().map(|&number| port(number)).collect(),
        affinity: SessionAffinity::None,
        created: model::Created::Unknown,
        publish_not_ready: false,
        settings: Overrides::default(),
        name,
    }
}

fn port(number: u16) -> ServicePort {
    ServicePort {
        number,
        name: format!("http-{number}").into(),
        protocol: Protocol::Http,
        known_by: KnownBy::PortNamePrefix,
        target: TargetPort::Number(number),
    }
}

/// A ready endpoint of the port `http-PORT` of a service; its pod is named after its IP address.
pub(crate) fn endpoint(port: u16, address: &str) -> Endpoint {
    let address = socket(address);
    Endpoint {
        port_name: format!("http-{port}").into(),
        address,
        condition: Condition::READY,
        workload: Some(ObjectName::new("mesh", address.ip().to_string())),
        hostname: None,
        generation: "1".into(),
    }
}

pub(crate) fn endpoints(service: &str, endpoints: Vec<Endpoint>) -> Update {
    Update::Endpoints {
        service: name(service),
        endpoints,
    }
}

pub(crate) fn workload(text: &str, addresses: &[&str]) -> Update {
    Update::Workload(Box::new(Workload {
        name: name(text),
        uid: "1".into(),
        addresses: addresses.iter().map(|a| ip(a)).collect(),
        service_account: "default".into(),
        node: "".into(),
        ready: true,
    }))
}

pub(crate) fn mesh(change: impl FnOnce(&mut Settings)) -> Update {
    let mut settings = Settings::default();
    change(&mut settings);
    Update::Mesh(Box::new(settings))
}

pub(crate) fn table(own: Option<&str>, updates: impl IntoIterator<Item = Update>) -> Table {
    let mut table = Table::new(own.map(name));
    for update in updates {
        table.apply(update);
    }
    table
}

pub(crate) fn put(service: Service) -> Update {
    Update::Service(Box::new(service))
}

/// A source of numbers that look random and are the same in each run.
pub(crate) fn numbers() -> impl FnMut() -> u64 {
    let mut state = 1_u64;
    move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        state ^ (state >> 29)
    }
}

pub(crate) fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}
