//! What the fuzz targets check. Comes in: any bytes. Goes out: nothing, or a panic that says how Weir's
//! reading of HTTP/1 and hyper's reading of what Weir would pass on differ.
//!
//! The property that forbids request smuggling: whoever reads what Weir passes on finds exactly the
//! messages that Weir found. Another reader may refuse what Weir passes; it must never read it otherwise.

mod dumps;
mod manifests;
mod oracle;
mod segment;
mod weir;

pub use dumps::check_dump;
pub use manifests::check_manifests;
pub use oracle::{Reading, read_requests, read_response};
pub use segment::check_segment;
pub use weir::{pass_requests, pass_response};

/// One message as a reader understood it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// Method of a request, status code of a response.
    pub kind: String,
    /// Path of a request; empty for a response.
    pub path: String,
    /// Body, without its chunk framing.
    pub body: Vec<u8>,
}

/// Weir's requests, and hyper's reading of what Weir passes on for them.
///
/// # Panics
/// Where they differ.
pub fn check_requests(input: &[u8]) {
    let (passed, ours) = pass_requests(input, input.len().max(1));
    let (piecewise, ours_piecewise) = pass_requests(input, 1);
    assert_eq!(
        (passed.escape_ascii().to_string(), &ours),
        (piecewise.escape_ascii().to_string(), &ours_piecewise),
        "the same bytes one by one"
    );
    let theirs = read_requests(&passed);
    compare(&ours, &theirs, &passed);
}

/// Weir's reading of a response, and hyper's of what Weir passes on for it. The first byte says
/// whether it answers HEAD.
///
/// # Panics
/// Where they differ.
pub fn check_response(input: &[u8]) {
    let Some((&first, input)) = input.split_first() else {
        return;
    };
    let is_head = first == b'H';
    let passed = pass_response(input, is_head, input.len().max(1));
    assert_eq!(
        passed,
        pass_response(input, is_head, 1),
        "the same bytes one by one"
    );
    let Some((passed, ours)) = passed else { return };
    let theirs = read_response(&passed, is_head);
    compare(&[ours], &theirs, &passed);
}

fn compare(ours: &[Message], theirs: &Reading, passed: &[u8]) {
    let common = theirs.messages.len();
    let shown = passed.escape_ascii();
    assert!(
        common <= ours.len() && theirs.messages == ours[..common],
        "read otherwise:\n{shown}\nours   {ours:?}\ntheirs {theirs:?}"
    );
    assert!(
        theirs.refused || common == ours.len(),
        "neither read nor refused:\n{shown}\nours   {ours:?}\ntheirs {theirs:?}"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seeds(target: &str) -> Vec<Vec<u8>> {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("seeds")
            .join(target);
        std::fs::read_dir(folder)
            .expect("the seeds are in the repository")
            .map(|entry| std::fs::read(entry.expect("listed").path()).expect("readable"))
            .collect()
    }

    #[test]
    fn seeds_are_read_alike() {
        for input in seeds("request") {
            check_requests(&input);
        }
        for input in seeds("response") {
            check_response(&input);
        }
        for input in seeds("manifests") {
            check_manifests(&input);
        }
        for input in seeds("dumps") {
            check_dump(&input);
        }
        for input in seeds("dns") {
            dns::check_bytes(&input);
        }
        for input in seeds("segment") {
            check_segment(&input);
        }
    }

    #[test]
    fn honest_messages_are_read_by_both() {
        let input = b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\n\r\nGET /b HTTP/1.1\r\nHost: b\r\nConnection: keep-alive\r\n\r\n";
        let (passed, ours) = pass_requests(input, input.len());
        assert_eq!(ours.len(), 2);
        let theirs = read_requests(&passed);
        assert_eq!((theirs.messages, theirs.refused), (ours, false));

        let input = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";
        let (passed, ours) = pass_response(input, false, 1000).expect("whole");
        let theirs = read_response(&passed, false);
        assert_eq!((theirs.messages, theirs.refused), (vec![ours], false));
    }
}
