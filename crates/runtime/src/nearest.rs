//! The nearest of some words to a misspelt one.

/// The word that fewest edits lead to; `None` where even that is too far to have been meant. Case and
/// hyphens do not count: `PortName` is near `port-name`.
#[must_use]
pub fn nearest<'a>(text: &str, words: &[&'a str]) -> Option<&'a str> {
    let plain = |text: &str| -> Vec<char> {
        text.chars()
            .take(64)
            .filter(|c| !matches!(c, '-' | '_'))
            .flat_map(char::to_lowercase)
            .collect()
    };
    let text = plain(text);
    words
        .iter()
        .map(|word| (distance(&text, &plain(word)), *word))
        .min_by_key(|&(distance, _)| distance)
        .filter(|&(distance, word)| distance <= (word.len() / 3).max(1))
        .map(|(_, word)| word)
}

/// Insertions, deletions, replacements and swaps of neighbours (optimal string alignment).
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before[j - 2] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words() {
        let words = [
            "ports",
            "selector",
            "clusterIP",
            "clusterIPs",
            "connect-timeout",
            "type",
        ];
        let table = [
            ("port", Some("ports")),
            ("selectors", Some("selector")),
            ("slector", Some("selector")),
            ("seletcor", Some("selector")),
            ("clusterIp", Some("clusterIP")),
            ("clusterips", Some("clusterIPs")),
            ("connectTimeout", Some("connect-timeout")),
            ("tpye", Some("type")),
            ("replicas", None),
            ("", None),
        ];
        for (text, expected) in table {
            assert_eq!(nearest(text, &words), expected, "{text}");
        }
    }
}
