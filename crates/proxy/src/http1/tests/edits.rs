//! Edits in place do what the same edits on text would do.

use std::fmt::Write as _;

use proptest::prelude::*;

use super::super::{RequestHead, Scan};

proptest! {
    #[test]
    fn edits_in_place_are_edits_of_text(
        fields in prop::collection::vec((0usize..7, "[a-z]{0,9}"), 0..12),
        absolute in any::<bool>(),
        added in prop::collection::vec("[a-z]{1,20}", 0..3),
        room in 0usize..400,
    ) {
        const NAMES: [&str; 7] =
            ["Accept", "Connection", "Keep-Alive", "X-Hop", "Cookie", "Proxy-Connection", "Upgrade"];
        let target = if absolute { "http://name/p" } else { "/p" };
        let mut input = format!("GET {target} HTTP/1.1\r\nHost: other\r\n");
        let mut kept = String::new();
        let named: Vec<_> = fields
            .iter()
            .filter(|(kind, _)| *kind == 1)
            .map(|(_, value)| value.as_str())
            .filter(|value| !["host", "te", "upgrade", "close"].contains(value))
            .collect();
        for (kind, value) in &fields {
            write!(input, "{}: {value}\r\n", NAMES[*kind]).expect("to a string");
            if matches!(kind, 0 | 3 | 4) && !named.iter().any(|name| NAMES[*kind].eq_ignore_ascii_case(name)) {
                write!(kept, "{}: {value}\r\n", NAMES[*kind]).expect("to a string");
            }
        }
        input.push_str("\r\nBODY");
        prop_assume!(!fields.iter().any(|(kind, value)| *kind == 1 && (value == "upgrade" || value == "host")));

        let mut head = RequestHead::parse(input.as_bytes(), &mut Scan::default())
            .expect("valid")
            .expect("complete");
        let mut expected = "GET /p HTTP/1.1\r\n".to_owned();
        if absolute {
            expected.push_str("Host: name\r\n");
        }
        for value in &added {
            head.edits.insert("X-Added", value.as_bytes());
            write!(expected, "X-Added: {value}\r\n").expect("to a string");
        }
        if !absolute {
            expected.push_str("Host: other\r\n");
        }
        expected.push_str(&kept);
        expected.push_str("\r\nBODY");

        let mut bytes = vec![b'~'; room];
        bytes.extend_from_slice(input.as_bytes());
        let before = bytes.clone();
        match head.edits.apply(&mut bytes, room, &head.range, head.start_line) {
            Some(start) => prop_assert_eq!(String::from_utf8_lossy(&bytes[start..]), expected),
            None => {
                prop_assert!(head.edits.length(&head.range, head.start_line) > room + head.range.end);
                prop_assert_eq!(bytes, before);
            }
        }
    }
}
