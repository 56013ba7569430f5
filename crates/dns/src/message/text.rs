//! Records as people read them, of answers that anybody may have written.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{Record, expand, kind, kind_name, number};

/// What a record of an answer says, in short.
pub(crate) fn text_of(message: &[u8], record: &Record) -> String {
    worded(message, record).unwrap_or_else(|| format!("{}, unreadable", kind_name(record.kind)))
}

fn worded(message: &[u8], record: &Record) -> Option<String> {
    let data = message.get(record.data.clone())?;
    let name = |at| Some(name(&expand(message, at)?.0));
    Some(match record.kind {
        kind::A => Ipv4Addr::from(<[u8; 4]>::try_from(data).ok()?).to_string(),
        kind::AAAA => Ipv6Addr::from(<[u8; 16]>::try_from(data).ok()?).to_string(),
        kind::CNAME => format!("alias of {}", name(record.data.start)?),
        kind::PTR => name(record.data.start)?,
        kind::SRV => format!(
            "port {} of {}",
            number(message, record.data.start + 4)?,
            name(record.data.start + 6)?
        ),
        other => kind_name(other).to_owned(),
    })
}

/// A name in wire form as text; what is no printable character is shown as a question mark.
fn name(wire: &[u8]) -> String {
    let mut text = String::new();
    let mut rest = wire;
    while let Some((&length, after)) = rest.split_first() {
        let (label, next) = after.split_at(usize::from(length).min(after.len()));
        if !label.is_empty() && !text.is_empty() {
            text.push('.');
        }
        let shown = label.iter().map(|byte| match byte {
            byte if byte.is_ascii_graphic() => char::from(*byte),
            _ => '?',
        });
        text.extend(shown);
        rest = next;
    }
    text
}
