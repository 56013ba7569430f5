//! Medians, ranges, and the 95 percent interval of a mean of paired differences.

use std::fmt;

/// Median and range of some samples.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl Spread {
    /// `None` without samples.
    pub(crate) fn of(samples: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = samples.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (low, high) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        };
        Some(Self { median, low, high })
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { median, low, high } = *self;
        write!(f, "{} [{}–{}]", number(median), number(low), number(high))
    }
}

/// Three significant digits where there are decimals, thousands separated where there are none.
pub(crate) fn number(value: f64) -> String {
    if value.abs() >= 100.0 {
        let digits = format!("{:.0}", value.abs());
        let mut text = String::new();
        for (at, digit) in digits.chars().enumerate() {
            if at > 0 && (digits.len() - at) % 3 == 0 {
                text.push(',');
            }
            text.push(digit);
        }
        if value < 0.0 { format!("-{text}") } else { text }
    } else if value.abs() >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

/// The 95 percent interval of the mean of `differences` (Student's t), lower bound first; `None` below two.
pub(crate) fn interval95(differences: &[f64]) -> Option<(f64, f64)> {
    // Two-sided 0.975 quantiles of Student's t for 1..=15 degrees of freedom; beyond, the next is close enough.
    const T: [f64; 15] = [
        12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145,
        2.131,
    ];
    let freedom = differences.len().checked_sub(1).filter(|&n| n > 0)?;
    let count = differences.len() as f64;
    let mean = differences.iter().sum::<f64>() / count;
    let square = differences.iter().map(|d| (d - mean).powi(2)).sum::<f64>();
    let error = (square / freedom as f64 / count).sqrt();
    let t = T[freedom.min(T.len()) - 1];
    Some((mean - t * error, mean + t * error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        let spread = Spread::of([4.0, 1.0, 2.0, 3.0]).unwrap();
        assert_eq!((spread.median, spread.low, spread.high), (2.5, 1.0, 4.0));
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn numbers_are_short() {
        let shown = [1_234_567.4, 189.6, 18.06, 0.514, -1234.0].map(number);
        assert_eq!(shown, ["1,234,567", "190", "18.1", "0.51", "-1,234"]);
    }

    #[test]
    fn the_interval_is_students() {
        // Mean 2, standard deviation 1, three samples: 2 ± 4.303 / sqrt(3).
        let (low, high) = interval95(&[1.0, 2.0, 3.0]).unwrap();
        assert!((low - (2.0 - 2.484)).abs() < 0.001 && (high - 4.484).abs() < 0.001);
        assert_eq!(interval95(&[1.0]), None);
    }
}
