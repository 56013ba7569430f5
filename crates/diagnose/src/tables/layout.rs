//! Cells in aligned columns without borders, as kubectl prints them.

use std::fmt::Write;

/// Spaces between two columns.
const GAP: usize = 3;
/// A column is not cut to fewer.
const LEAST: usize = 8;

/// Headings and rows, one line each; cut to `width` columns where that is given.
pub(super) fn lines(headings: &[&str], rows: Vec<Vec<String>>, width: Option<usize>) -> String {
    let mut all = vec![headings.iter().map(|&heading| heading.to_owned()).collect()];
    all.extend(rows);
    let widest = |column: usize| all.iter().map(|row: &Vec<String>| length(&row[column])).max();
    let mut widths: Vec<usize> = (0..headings.len())
        .map(|column| widest(column).unwrap_or(0))
        .collect();
    if let Some(width) = width {
        shrink(&mut widths, width);
    }
    let mut text = String::new();
    for row in &all {
        let mut line = String::new();
        for (cell, &width) in row.iter().zip(&widths) {
            // Writing to a string cannot fail.
            let _ = write!(line, "{:<width$}{:GAP$}", cut(cell, width), "");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
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
            lines(&headings, rows(), None),
            "ADDRESSES   PORT    DESTINATION\n\
             10.96.0.1   80      outbound|80||web.a.svc.cluster.local\n\
             ::          15001\n"
        );
        assert_eq!(
            lines(&headings, rows(), Some(40)),
            "ADDRESSES   PORT    DESTINATION\n\
             10.96.0.1   80      outbound|80||web.a.…\n\
             ::          15001\n"
        );
        let narrow = lines(&headings, rows(), Some(1));
        assert!(
            narrow
                .lines()
                .all(|line| line.chars().count() <= 8 + 3 + 5 + 3 + 8),
            "{narrow}"
        );
    }
}
