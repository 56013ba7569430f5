//! What must hold of any bytes, for the fuzz target.

use super::*;

/// What must hold of any bytes, whoever sent them.
/// # Panics
/// Where it does not.
pub(crate) fn check(bytes: &[u8]) {
    if let Some(records) = answers(bytes) {
        for (_, record) in records {
            let _ = text_of(bytes, &record);
            let _ = rewritten(bytes, record.kind, record.data);
        }
    }
    let half = bytes.len() / 2;
    let _ = is_answer_to(&bytes[half..], &bytes[..half]);
    let Received::Question(question) = read(bytes) else {
        return;
    };
    let limit = question.limit();
    let mut answer = Answer::new(&question, limit);
    for last in 0..50 {
        answer.add(None, 1, &registry::Record::Address([10, 0, 0, last].into()));
    }
    let answer = answer.finish();
    assert!(answer.len() <= limit, "{} bytes for {limit}", answer.len());
    assert_eq!(answer.get(..2), bytes.get(..2), "the id");
    assert!(is_answer_to(&answer, bytes) && read_edns(&answer, question.end).is_some());
    assert!(answers(&answer).is_some_and(|records| !records.is_empty()));
    let other = query_for(&question, &[1, b'x', 0]);
    assert!(matches!(read(&other), Received::Question(_)));
    assert_eq!(read(&answer), Received::Noise, "an answer is not answered");
}
