//! Weir's codec, driven as the engine drives it: what is passed on, and what was understood.

use proxy::http1::{Asked, Body, Method, RequestHead, ResponseHead, Scan, Span, Upgrade, Version};

use crate::Message;

/// The bytes passed on for the whole requests that `input` begins with, offered `step` bytes at a time,
/// and those requests. Stops where the engine would stop reading requests.
pub fn pass_requests(mut input: &[u8], step: usize) -> (Vec<u8>, Vec<Message>) {
    let mut passed = Vec::new();
    let mut messages = Vec::new();
    loop {
        let mut scan = Scan::default();
        let mut shown = 0;
        let head = loop {
            shown = (shown + step).min(input.len());
            match RequestHead::parse(&input[..shown], &mut scan) {
                Ok(Some(head)) => break head,
                Ok(None) if shown < input.len() => {}
                Ok(None) | Err(_) => return (passed, messages),
            }
        };
        let mut out = edited(input, &head.edits, &head.range, head.start_line);
        let Some((length, body)) = pass_body(&input[head.range.end..], head.body, step, &mut out, false)
        else {
            return (passed, messages);
        };
        passed.append(&mut out);
        // What has no path of its own is asked for at the root.
        let path = text(head.path.of(input));
        messages.push(Message {
            kind: text(head.method_name.of(input)),
            path: if path.is_empty() || path.starts_with('?') {
                format!("/{path}")
            } else {
                path
            },
            body,
        });
        if !head.persists || head.upgrade != Upgrade::No {
            return (passed, messages);
        }
        input = &input[head.range.end + length..];
    }
}

/// The bytes passed on for the final response that `input` begins with, and that response; `None`
/// where it is refused or incomplete.
pub fn pass_response(mut input: &[u8], is_head: bool, step: usize) -> Option<(Vec<u8>, Message)> {
    let asked = Asked {
        method: if is_head { Method::Head } else { Method::Get },
        version: Version::Http11,
        upgrade: Upgrade::No,
    };
    loop {
        let mut scan = Scan::default();
        let mut shown = 0;
        let head = loop {
            shown = (shown + step).min(input.len());
            match ResponseHead::parse(&input[..shown], &mut scan, asked) {
                Ok(Some(head)) => break head,
                Ok(None) if shown < input.len() => {}
                Ok(None) | Err(_) => return None,
            }
        };
        if head.is_interim() {
            input = &input[head.range.end..];
            continue;
        }
        let mut out = edited(input, &head.edits, &head.range, head.start_line);
        let rest = &input[head.range.end..];
        let (_, body) = pass_body(rest, head.body, step, &mut out, true)?;
        let message = Message {
            kind: head.status.to_string(),
            path: String::new(),
            body,
        };
        return Some((out, message));
    }
}

fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

fn edited(
    input: &[u8],
    edits: &proxy::http1::Edits,
    range: &std::ops::Range<usize>,
    start_line: Span,
) -> Vec<u8> {
    let length = edits.length(range, start_line);
    let mut bytes = vec![0; length];
    bytes.extend_from_slice(input);
    let start = edits
        .apply(&mut bytes, length, range, start_line)
        .expect("as much room as the new head needs");
    assert_eq!(length + range.end - start, length, "the length announced");
    bytes[start..length + range.end].to_vec()
}

/// Length of the body and its content; `None` where it is refused or has no end.
fn pass_body(
    input: &[u8],
    mut body: Body,
    step: usize,
    out: &mut Vec<u8>,
    closes: bool,
) -> Option<(usize, Vec<u8>)> {
    let framing = body;
    let (mut at, mut shown) = (0, 0);
    while !body.is_done() {
        if at == shown && shown == input.len() || shown == input.len() && shown > 0 && at < shown {
            // Nothing more comes.
            if body == Body::UntilClose && closes {
                break;
            }
            return None;
        }
        shown = (shown + step).min(input.len());
        let taken = body.advance(&input[at..shown]).ok()?;
        out.extend_from_slice(&input[at..at + taken]);
        at += taken;
    }
    let content = match framing {
        Body::Chunked(_) => unchunk(&input[..at]),
        _ => input[..at].to_vec(),
    };
    Some((at, content))
}

/// The content of a chunked body that was found valid.
fn unchunk(mut bytes: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    loop {
        let digits = bytes.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let size = std::str::from_utf8(&bytes[..digits])
            .ok()
            .and_then(|digits| usize::from_str_radix(digits, 16).ok())
            .expect("a size that was found valid");
        let line = bytes
            .iter()
            .position(|&byte| byte == b'\n')
            .expect("a whole line")
            + 1;
        if size == 0 {
            return content;
        }
        content.extend_from_slice(&bytes[line..line + size]);
        bytes = &bytes[line + size + 2..];
    }
}
