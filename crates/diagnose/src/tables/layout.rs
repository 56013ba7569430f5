//! Cells in aligned columns without borders, as kubectl prints them.

use std::fmt::Write;

/// Spaces between two columns.
const GAP: usize = 3;
/// A column is not cut to fewer.
const LEAST: usize = 8;
/// What is wrapped has at least so many columns.
const LEAST_WRAPPED: usize = 40;

/// Headings and rows, one line each, cut to `width` columns where that is given. The last column may be
/// wrapped instead.
pub(super) fn lines(
    headings: &[&str],
    rows: Vec<Vec<String>>,
    width: Option<usize>,
    wraps_last: bool,
) -> String {
    let mut all = vec![headings.iter().map(|&heading| heading.to_owned()).collect()];
    all.extend(rows);
    let widest = |column: usize| all.iter().map(|row: &Vec<String>| length(&row[column])).max();
    let mut widths: Vec<usize> = (0..headings.len())
        .map(|column| widest(column).unwrap_or(0))
        .collect();
    if let Some(width) = width {
        if wraps_last {
            shrink_others(&mut widths, width);
        }
        shrink(&mut widths, width);
    }
    let mut text = String::new();
    for row in &all {
        let mut line = String::new();
        let (last, others) = match row.split_last() {
            Some((last, others)) if wraps_last => (Some(last), others),
            _ => (None, &row[..]),
        };
        for (cell, &width) in others.iter().zip(&widths) {
            // Writing to a string cannot fail.
            let _ = write!(line, "{:<width$}{:GAP$}", cut(cell, width), "");
        }
        if let Some(last) = last {
            let indent = length(&line);
            let wrapped = wrap(last, widths.last().copied().unwrap_or(0));
            line.push_str(&wrapped.join(&format!("\n{:indent$}", "")));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Takes from the widest column but the last, until the last has room enough to be wrapped in.
fn shrink_others(widths: &mut [usize], terminal: usize) {
    let gaps = GAP * widths.len().saturating_sub(1);
    let Some((last, others)) = widths.split_last_mut() else {
        return;
    };
    shrink(others, terminal.saturating_sub(GAP + LEAST_WRAPPED.min(*last)));
    let rest = terminal.saturating_sub(others.iter().sum::<usize>() + gaps);
    *last = (*last).min(rest.max(LEAST));
}

/// Lines of at most so many columns, broken where the text breaks, and else at spaces where there are any.
fn wrap(text: &str, width: usize) -> Vec<String> {
    text.split('\n').flat_map(|line| wrap_line(line, width)).collect()
}

fn wrap_line(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let mut word: Vec<char> = word.chars().collect();
        let line = lines.last().map_or(0, |line| length(line));
        if line > 0 && line + 1 + word.len() > width {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut()
            && !line.is_empty()
        {
            line.push(' ');
        }
        while word.len() > width.max(1) {
            let rest = word.split_off(width.max(1));
            if let Some(line) = lines.last_mut() {
                line.extend(&word);
            }
            lines.push(String::new());
            word = rest;
        }
        if let Some(line) = lines.last_mut() {
            line.extend(&word);
        }
    }
    lines
}

/// Takes from the widest column until all fit.
fn shrink(widths: &mut [usize], terminal: usize) {
    let gaps = GAP * widths.len().saturating_sub(1);
    while widths.iter().sum::<usize>() + gaps > terminal {
        match widths.iter_mut().max() {
            Some(widest) if *widest > LEAST => *widest -= 1,
            _ => return,
        }
    }
}

fn cut(cell: &str, width: usize) -> String {
    if length(cell) <= width {
        return cell.to_owned();
    }
    let kept: String = cell.chars().take(width.saturating_sub(1)).collect();
    kept + "…"
}

fn length(cell: &str) -> usize {
    cell.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_cut_to_the_terminal() {
        let rows = || {
            vec![
                vec![
                    "10.96.0.1".to_owned(),
                    "80".to_owned(),
                    "outbound|80||web.a.svc.cluster.local".to_owned(),
                ],
                vec!["::".to_owned(), "15001".to_owned(), String::new()],
            ]
        };
        let headings = ["ADDRESSES", "PORT", "DESTINATION"];
        assert_eq!(
            lines(&headings, rows(), None, false),
            "ADDRESSES   PORT    DESTINATION\n\
             10.96.0.1   80      outbound|80||web.a.svc.cluster.local\n\
             ::          15001\n"
        );
        assert_eq!(
            lines(&headings, rows(), Some(40), false),
            "ADDRESSES   PORT    DESTINATION\n\
             10.96.0.1   80      outbound|80||web.a.…\n\
             ::          15001\n"
        );
        let narrow = lines(&headings, rows(), Some(1), false);
        assert!(
            narrow
                .lines()
                .all(|line| line.chars().count() <= 8 + 3 + 5 + 3 + 8),
            "{narrow}"
        );
    }

    #[test]
    fn prose_is_wrapped_and_never_cut() {
        let file = "a-rather-long-name-of-a-file.yaml".to_owned();
        let prose = "is not a known field and is ignored; did you mean `selector`?".to_owned();
        let rows = || vec![vec![file.clone(), "spec.slector".to_owned(), prose.clone()]];
        let headings = ["FILE", "FIELD", "PROBLEM"];
        assert_eq!(
            lines(&headings, rows(), Some(80), true),
            "\
FILE                     FIELD          PROBLEM
a-rather-long-name-of…   spec.slector   is not a known field and is ignored; did
                                        you mean `selector`?
"
        );
        assert_eq!(lines(&headings, rows(), None, true).lines().count(), 2);
        let unbroken = vec![vec!["f".to_owned(), "f".to_owned(), "x".repeat(100)]];
        let text = lines(&headings, unbroken, Some(30), true);
        assert_eq!(text.matches('x').count(), 100);
        assert!(text.lines().all(|line| line.chars().count() <= 30), "{text}");
        // However narrow the terminal, every word is there.
        let text = lines(&headings, rows(), Some(1), true);
        let words = |text: &str| text.split_whitespace().collect::<String>();
        assert!(words(&text).contains("known"), "{text}");
    }
}
