//! Packets of TCP and UDP, taken apart and put together again.

use netsys::probe::Segment;

/// What is read of a packet is read again of the packet that is made of it.
///
/// # Panics
/// Where it is not.
pub fn check_segment(input: &[u8]) {
    if let Some(segment) = Segment::parse(input) {
        assert_eq!(Segment::parse(&segment.packet()), Some(segment));
    }
}
