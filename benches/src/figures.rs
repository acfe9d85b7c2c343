//! Figures over rounds: the middle, the ends, and how sure a ratio is.

/// Two-sided 95 % points of Student's t distribution, by degrees of freedom from 1.
const T_95: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
    2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
    2.052, 2.048, 2.045, 2.042,
];

/// Median and ends of one figure over the rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The middle, or the mean of the two in the middle; not a number when there is none.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// That of any number of figures.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = match values.len() {
            0 => f64::NAN,
            len if len % 2 == 0 => f64::midpoint(values[middle - 1], values[middle]),
            _ => values[middle],
        };
        let end = |value: Option<&f64>| value.copied().unwrap_or(f64::NAN);
        Self { median, min: end(values.first()), max: end(values.last()) }
    }
}

/// The ratios of one figure of two servers, round by round: a round that only one of them has
/// counts for nothing.
pub fn ratios<S>(own: &[S], base: &[S], figure: impl Fn(&S) -> f64) -> Vec<f64> {
    own.iter().zip(base).map(|(own, base)| figure(own) / figure(base)).collect()
}

/// Where a ratio lies with a probability of 95 %.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// The geometric mean of the rounds' ratios.
    pub mean: f64,
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

impl Interval {
    /// Student's t interval of the logarithms of paired ratios: of half and double the mean is
    /// one. `None` for fewer than two, or when one is not above zero.
    pub fn of_ratios(ratios: &[f64]) -> Option<Self> {
        let count = ratios.len();
        let logarithms: Vec<f64> = ratios.iter().map(|ratio| ratio.ln()).collect();
        if count < 2 || !logarithms.iter().all(|logarithm| logarithm.is_finite()) {
            return None;
        }
        let mean = logarithms.iter().sum::<f64>() / count as f64;
        let squares: f64 = logarithms.iter().map(|value| (value - mean).powi(2)).sum();
        let deviation = (squares / (count - 1) as f64).sqrt();
        let half = t_95(count - 1) * deviation / (count as f64).sqrt();
        Some(Self { mean: mean.exp(), low: (mean - half).exp(), high: (mean + half).exp() })
    }
}

/// Above the table its last row, which is the wider one.
fn t_95(degrees: usize) -> f64 {
    T_95[degrees.min(T_95.len()) - 1]
}

#[cfg(test)]
mod tests {
    use super::{Interval, Spread, ratios};

    #[test]
    fn a_spread_is_the_middle_and_the_ends() {
        let odd = Spread::of([3.0, 1.0, 2.0]);
        assert_eq!((odd.median, odd.min, odd.max), (2.0, 1.0, 3.0));
        let even = Spread::of([4.0, 1.0]);
        assert_eq!((even.median, even.min, even.max), (2.5, 1.0, 4.0));
        assert!(Spread::of([]).median.is_nan());
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        // The machine was ten times as fast in the second round: the ratio does not see it.
        assert_eq!(ratios(&[2.0, 20.0, 300.0], &[1.0, 10.0, 100.0], |own| *own), [2.0, 2.0, 3.0]);
        assert_eq!(ratios(&[2.0], &[1.0, 10.0], |own| *own), [2.0]);
    }

    #[test]
    fn an_interval_is_that_of_student_on_a_logarithmic_scale() {
        let interval = Interval::of_ratios(&[0.5, 2.0]).unwrap();
        assert!((interval.mean - 1.0).abs() < 1e-12);
        // The logarithms are -ln 2 and ln 2: their standard error is ln 2.
        assert!((interval.high.ln() - 12.706 * 2f64.ln()).abs() < 1e-9);
        assert!((interval.low * interval.high - 1.0).abs() < 1e-9);

        let five = Interval::of_ratios(&[1.1, 1.2, 1.15, 1.1, 1.2]).unwrap();
        assert!((five.mean - 1.14913).abs() < 1e-5, "{five:?}");
        assert!(
            (five.low - 1.08871).abs() < 1e-5 && (five.high - 1.21291).abs() < 1e-5,
            "{five:?}"
        );
    }

    #[test]
    fn equal_rounds_leave_no_doubt_and_one_round_says_nothing() {
        let sure = Interval::of_ratios(&[1.5; 40]).unwrap();
        assert!((sure.high - sure.low).abs() < 1e-12);
        assert_eq!(Interval::of_ratios(&[1.5]), None);
        assert_eq!(Interval::of_ratios(&[1.5, 0.0]), None);
        assert_eq!(Interval::of_ratios(&[1.5, f64::NAN]), None);
    }
}
