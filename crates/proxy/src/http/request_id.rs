//! The id that a request without one is given: a random UUID (RFC 9562 section 5.4), as the field line that
//! goes into its head.

use std::ops::Range;

/// The line as it is before the id is known.
const LINE: &[u8; 52] = b"x-request-id: 00000000-0000-0000-0000-000000000000\r\n";
/// Where in it the id stands.
const ID: Range<usize> = 14..50;

/// `x-request-id: ` and a UUID of version 4.
pub(super) struct RequestId([u8; LINE.len()]);

impl RequestId {
    /// The id of so many random bits.
    pub(super) fn random(high: u64, low: u64) -> Self {
        let high = high & !0xf000 | 0x4000;
        let low = low & !(0x3 << 62) | 2 << 62;
        let digits = [hex(high >> 32), hex(high), hex(low >> 32), hex(low)];
        let mut line = *LINE;
        let id = &mut line[ID];
        id[..8].copy_from_slice(&digits[0]);
        id[9..13].copy_from_slice(&digits[1][..4]);
        id[14..18].copy_from_slice(&digits[1][4..]);
        id[19..23].copy_from_slice(&digits[2][..4]);
        id[24..28].copy_from_slice(&digits[2][4..]);
        id[28..].copy_from_slice(&digits[3]);
        Self(line)
    }

    /// The field line, with its CRLF.
    pub(super) fn line(&self) -> &[u8] {
        &self.0
    }

    /// The id alone.
    pub(super) fn id(&self) -> &[u8] {
        &self.0[ID]
    }
}

/// The lowest 32 bits as eight digits, all at a time: each request needs four of these.
fn hex(bits: u64) -> [u8; 8] {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    let spread = bits & 0xffff_ffff;
    let spread = (spread << 16 | spread) & 0x0000_ffff_0000_ffff;
    let spread = (spread << 8 | spread) & 0x00ff_00ff_00ff_00ff;
    let nibbles = (spread << 4 | spread) & (ONES * 0x0f);
    // 1 in each byte whose nibble is over 9.
    let letters = (nibbles + ONES * 6) >> 4 & ONES;
    const TO_LETTER: u64 = b'a' as u64 - 10 - b'0' as u64;
    (nibbles + ONES * b'0' as u64 + letters * TO_LETTER).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn digits_are_those_of_the_number(bits in any::<u64>()) {
            let digits = format!("{:08x}", bits as u32);
            prop_assert_eq!(&hex(bits)[..], digits.as_bytes());
        }
    }

    #[test]
    fn request_ids_are_uuids_of_version_4() {
        let text = |high, low| {
            let id = RequestId::random(high, low);
            assert_eq!(id.line(), [b"x-request-id: ", id.id(), b"\r\n"].concat());
            String::from_utf8(id.id().to_vec()).expect("ASCII")
        };
        assert_eq!(text(0, 0), "00000000-0000-4000-8000-000000000000");
        assert_eq!(text(u64::MAX, u64::MAX), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(
            text(0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210),
            "01234567-89ab-4def-bedc-ba9876543210"
        );
    }
}
