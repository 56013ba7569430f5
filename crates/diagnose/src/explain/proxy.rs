//! What the proxy does with a connection that reaches it: the data path's own decision, and what it is by.

use std::net::{IpAddr, SocketAddr};

use model::{Direction, Handling, KnownBy, Local, OrigDst, ports};
use netsys::socket_table::Listener;
use registry::{Cluster, Decision, Deny};
use rules::ruleset::IpProtocol;

use super::{End, Finding, Mesh, Outcome, Side, Story};

impl Story<'_> {
    /// From the outbound listener on.
    pub(super) fn outbound(&mut self, listener: Option<Listener>) -> End {
        match self.decide(Direction::Outbound, listener) {
            Err(end) => end,
            Ok(Decision::Cluster(cluster)) => self.balanced(&cluster, listener),
            Ok(Decision::Endpoint(cluster, target)) => {
                self.of_cluster(&cluster, "an endpoint of a service has this address and port");
                self.direct_endpoint(&cluster, &target, listener)
            }
            Ok(Decision::Passthrough(why)) => {
                self.step("cluster", format!("PassthroughCluster: {}", why.as_str()));
                let to = self.question.to;
                self.onward(to, listener)
                    .or_else(|| self.probe_endpoints(&[to], listener))
                    .unwrap_or_else(|| End::Works(format!("the proxy passes it on to {to}, byte for byte")))
            }
            Ok(Decision::Deny(why)) => self.denied(why),
        }
    }

    /// From the inbound listener on: to the application itself.
    pub(super) fn inbound(&mut self, listener: Option<Listener>) -> End {
        let to = self.question.to;
        match self.decide(Direction::Inbound, listener) {
            Err(end) => return end,
            Ok(Decision::Cluster(cluster) | Decision::Endpoint(cluster, _)) => {
                self.of_cluster(&cluster, "a service has this port of the pod");
            }
            Ok(Decision::Passthrough(why)) => {
                self.step("cluster", format!("InboundPassthroughCluster: {}", why.as_str()));
            }
            Ok(Decision::Deny(why)) => return self.denied(why),
        }
        if self.listener(IpProtocol::Tcp, to).is_err() {
            self.step("endpoint", format!("nobody listens at {to}"));
            return End::fails(
                format!("the proxy calls the application at {to}, where nobody listens"),
                Finding::new(
                    Side::Endpoint,
                    format!("no process of this namespace listens at {to}"),
                    "start the application on that port; one that listens on 127.0.0.1 alone is not reached from outside",
                ),
            );
        }
        self.step("endpoint", format!("the application at {to}"));
        End::Works(format!("the proxy hands it to the application at {to}"))
    }

    fn decide(&mut self, direction: Direction, listener: Option<Listener>) -> Result<Decision, End> {
        let port = match direction {
            Direction::Outbound => ports::OUTBOUND,
            Direction::Inbound => ports::INBOUND,
        };
        let (snapshot, from) = match self.mesh {
            Mesh::Known { snapshot, from, .. } => (snapshot, from),
            Mesh::Unknown { why, fix } => {
                return Err(End::Stops(
                    Outcome::Unknown,
                    format!("it is captured: it goes to the proxy on port {port}"),
                    Finding::new(
                        Side::Registry,
                        format!("what the proxy then does is not known: {why}"),
                        *fix,
                    ),
                ));
            }
            Mesh::Silent(admin) => {
                return Err(End::fails(
                    "the proxy takes the connection, and then nothing comes: the client waits until it times out",
                    Finding::new(
                        Side::Proxy,
                        format!(
                            "the proxy listens and does not answer, at {admin} neither: it is stopped, or hangs"
                        ),
                        "see its state (`ps -o pid,stat,wchan,args -C weir`; T is stopped, which kill -CONT ends), its CPU and memory \
                         limits, and its log; else start it anew",
                    ),
                ));
            }
        };
        self.step(
            "listener",
            format!("{direction}, port {port}; the registry is that of {from}"),
        );
        let ip = listener.map_or(IpAddr::from([0, 0, 0, 0]), |listener| listener.address.ip());
        let local = Local::new(SocketAddr::new(ip, port));
        Ok(snapshot.decide(direction, OrigDst::new(self.question.to), local))
    }

    pub(super) fn denied(&mut self, why: Deny) -> End {
        let to = self.question.to;
        self.step("cluster", format!("BlackHoleCluster: {}", why.as_str()));
        let service = self
            .snapshot()
            .and_then(|snapshot| snapshot.by_vip_ip.get(&to.ip()));
        let (side, what, fix) = match why {
            Deny::Loop => (
                Side::Client,
                format!(
                    "{to} is the proxy's own port: a connection made to it is closed, as it would come back to it"
                ),
                String::from("connect to the service or the application, not to the proxy"),
            ),
            Deny::RegistryOnly => (
                Side::Registry,
                format!("no service owns {to}, and outboundPolicy is registry-only"),
                String::from(
                    "describe the destination by a Service and its EndpointSlice, or set outboundPolicy: allow-any in the MeshConfig",
                ),
            ),
            Deny::UnknownServicePort => {
                let ports: Vec<_> = service
                    .iter()
                    .flat_map(|service| &service.ports)
                    .map(|port| port.number.to_string())
                    .collect();
                let host = service.map_or_else(String::new, |service| service.host.to_string());
                (
                    Side::Client,
                    format!("{host} has no port {}: it has {}", to.port(), ports.join(", ")),
                    String::from("call one of its ports, or add this one to the Service"),
                )
            }
        };
        End::fails("the proxy closes it at once", Finding::new(side, what, fix))
    }

    /// Service, protocol, route and cluster.
    pub(super) fn of_cluster(&mut self, cluster: &Cluster, why: &str) {
        self.step("service", format!("{} ({why})", cluster.host));
        self.step("protocol", protocol(cluster));
        if cluster.known_by == KnownBy::FirstBytes {
            self.remark(undeclared(cluster));
        }
        if cluster.protocol.handling() == Handling::Http1 {
            let host = match self.question.host.parse::<IpAddr>() {
                Ok(_) => self.question.to.to_string(),
                Err(_) => format!("{}:{}", self.question.host, self.question.to.port()),
            };
            let route = cluster.route(&host).as_str();
            self.step(
                "route",
                format!("{}:{}, {route} for Host {host}", cluster.host, cluster.port),
            );
        }
        self.step("cluster", cluster.name.as_str());
    }
}

fn protocol(cluster: &Cluster) -> String {
    match cluster.known_by {
        KnownBy::FirstBytes => String::from("not declared: whichever side speaks first decides"),
        known_by => format!("{}, by {known_by} `{}`", cluster.protocol, cluster.port_name),
    }
}

fn undeclared(cluster: &Cluster) -> String {
    let name = match cluster.port_name.is_empty() {
        true => format!("port {} has no name", cluster.port),
        false => format!("the port name `{}` declares no protocol", cluster.port_name),
    };
    format!(
        "{name}: what is detected is balanced by request only where it is HTTP/1; declare it by appProtocol, or by a name \
         such as http, http-NAME, grpc, tls, tcp, mysql, redis or mongo"
    )
}
