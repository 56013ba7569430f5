//! The flags of DNS capture.

use model::ports;

use super::{Flags, Reader};
use crate::intent::{Dns, Selection, WithoutProxy};

impl Flags {
    /// Without a server there is nothing to capture; istio-iptables then only warns.
    pub(super) fn dns(&self, read: &mut Reader) -> Option<Dns> {
        const REDIRECT: &str = "--redirect-dns";
        let is_wanted = read.boolean(REDIRECT, self.redirect_dns.as_deref());
        let all = read.boolean("--capture-all-dns", self.capture_all_dns.as_deref());
        let fails_closed = read.boolean("--dns-fail-closed", self.dns_fail_closed.as_deref());
        if !is_wanted {
            return None;
        }
        let is_left = |server| Dns::OF_ONE_LINK.contains(server);
        if !all && !self.dns_servers.is_empty() && self.dns_servers.iter().all(is_left) {
            read.wrong(
                REDIRECT,
                format!(
                    "{} names DNS servers of one link alone ({}), whose queries cannot be captured; name one that has \
                     another address, for the applications too, or capture those to any other server with --capture-all-dns",
                    self.resolv_conf,
                    Dns::OF_ONE_LINK
                ),
            );
        }
        if !all && self.dns_servers.is_empty() {
            read.wrong(
                REDIRECT,
                format!(
                    "{} names no DNS server whose queries could be captured; name a file that does with --resolv-conf, \
                     or capture those to any server with --capture-all-dns",
                    self.resolv_conf
                ),
            );
        }
        Some(Dns {
            servers: match all {
                true => Selection::All,
                false => Selection::Only(self.dns_servers.clone()),
            },
            to_port: ports::DNS,
            without_proxy: match fails_closed {
                true => WithoutProxy::Fail,
                false => WithoutProxy::Direct,
            },
        })
    }
}
