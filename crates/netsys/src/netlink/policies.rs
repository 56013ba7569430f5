//! What is asked of routing rules: that packets with a mark have a table of their own.

use rules::plan::PolicyRoute;

use super::message::{address_family, attribute};
use super::routes::TABLE;
use super::{CREATE_EXCLUSIVE, Changes, REQUEST_ACK};

pub(crate) const NEW_POLICY: u16 = 32;
pub(crate) const REMOVE_POLICY: u16 = 33;
pub(crate) const LIST_POLICIES: u16 = 34;

/// Attributes of a routing rule; that of the table is also a route's.
pub(crate) const POLICY_MARK: u16 = 10;
pub(crate) const POLICY_MASK: u16 = 16;
pub(crate) const POLICY_PROTOCOL: u16 = 21;

impl Changes {
    /// Sends packets with a mark to a routing table of their own, by a rule with this `protocol`, which says
    /// who made it.
    pub fn policy(&mut self, policy: PolicyRoute, protocol: u8) -> &mut Self {
        let what = format!("route mark {:#x} by table {}", policy.mark, policy.table);
        self.message(NEW_POLICY, REQUEST_ACK | CREATE_EXCLUSIVE, what, |bytes| {
            policy_rule(bytes, policy, protocol);
        })
    }

    /// Takes away what [`Changes::policy`] made.
    pub fn remove_policy(&mut self, policy: PolicyRoute, protocol: u8) -> &mut Self {
        let what = format!("take away the routing rule of mark {:#x}", policy.mark);
        self.message(REMOVE_POLICY, REQUEST_ACK, what, |bytes| {
            policy_rule(bytes, policy, protocol);
        })
    }
}

/// A `fib_rule_hdr` and its attributes.
fn policy_rule(bytes: &mut Vec<u8>, policy: PolicyRoute, protocol: u8) {
    const TO_TABLE: u8 = 1;
    bytes.extend([address_family(policy.family), 0, 0, 0, 0, 0, 0, TO_TABLE]);
    bytes.extend(0_u32.to_ne_bytes());
    attribute(bytes, POLICY_MARK, &policy.mark.to_ne_bytes());
    attribute(bytes, POLICY_MASK, &u32::MAX.to_ne_bytes());
    attribute(bytes, TABLE, &policy.table.to_ne_bytes());
    attribute(bytes, POLICY_PROTOCOL, &[protocol]);
}
