//! Packets that leave and come in by devices that rules speak of.

use std::net::{IpAddr, SocketAddr};

use netsys::probe::{Device, Owner};
use rules::Packet;
use rules::intent::{Dns, Selection};
use rules::ruleset::IpProtocol;

use super::list::List;

impl List<'_> {
    pub(super) fn devices(&mut self) {
        let port = self.ground.free[0];
        let application = self.application();
        for device in self.ground.devices {
            if device.lets_leave(self.family) {
                let elsewhere = self.ground.addresses.elsewhere(self.family);
                let plain = self.leaving(device, application, SocketAddr::new(elsewhere, port));
                self.add(true, plain);
                for ip in self.included() {
                    let captured = self.leaving(device, application, SocketAddr::new(ip, port));
                    self.add(false, captured);
                }
                for protocol in [IpProtocol::Udp, IpProtocol::Tcp] {
                    let mut query = self.leaving(device, application, SocketAddr::new(elsewhere, Dns::PORT));
                    query.protocol = protocol;
                    self.add(false, query);
                }
            }
            if device.lets_come(self.family) {
                self.add(true, self.coming(device, SocketAddr::new(self.near(), port)));
                if let Selection::Only(ports) = &self.ground.intent.inbound.ports {
                    for port in ports {
                        let captured = self.coming(device, SocketAddr::new(self.near(), *port));
                        self.add(false, captured);
                    }
                }
                self.of_a_virtual_machine(device);
            }
        }
    }

    /// To the networks that are captured of a virtual machine.
    fn of_a_virtual_machine(&mut self, device: &Device) {
        let machines = &self.ground.intent.devices.virtual_machines;
        if machines.contains(&device.asked) {
            for ip in self.included() {
                let to = SocketAddr::new(ip, self.ground.free[0]);
                self.add(false, self.coming(device, to));
            }
        }
    }

    /// Addresses elsewhere of the networks that are captured, where not all are.
    fn included(&self) -> Vec<IpAddr> {
        let nets = match &self.ground.intent.outbound.cidrs {
            Selection::All => &[][..],
            Selection::Only(nets) => nets,
        };
        let all = nets.iter().flat_map(|net| self.fit_of(*net));
        all.filter(|ip| !self.stays(*ip)).collect()
    }

    /// What somebody sends by a device.
    pub(super) fn leaving(&self, device: &Device, owner: Owner, to: SocketAddr) -> Packet {
        Packet {
            source: device.source(self.family),
            device: device.name.clone(),
            ..self.made(owner, to)
        }
    }

    /// What the far end sends, as if it came by a device.
    pub(super) fn coming(&self, device: &Device, to: SocketAddr) -> Packet {
        Packet {
            device: device.name.clone(),
            ..self.remote(self.far(), to)
        }
    }
}
