//! How long the messages are: one size, a range, or a distribution.

use std::str::FromStr;

use hioload_benches::documents::Numbers;
use serde::{Serialize, Serializer};

/// The longest message: 16 MiB.
const BYTES_MAX: usize = 16 * 1024 * 1024;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Sizes {
    Fixed(usize),
    /// Each size from the first to the last as often as every other.
    Uniform(usize, usize),
    /// Sizes with their share in percent.
    Weighted(Vec<(usize, f64)>),
}

impl Sizes {
    /// `count` sizes that follow the distribution as exactly as so many can, mixed, the same in
    /// every run.
    pub(crate) fn table(&self, count: usize) -> Vec<usize> {
        let mut table = match self {
            Self::Fixed(size) => vec![*size; count],
            Self::Uniform(from, to) => {
                let span = to - from + 1;
                (0..count).map(|index| from + (index * span + span / 2) / count).collect()
            }
            Self::Weighted(shares) => weighted(shares, count),
        };
        let mut numbers = Numbers(count as u64);
        for last in (1..table.len()).rev() {
            table.swap(last, numbers.below(last as u64 + 1) as usize);
        }
        table
    }

    pub(crate) fn max(&self) -> usize {
        match self {
            Self::Fixed(size) | Self::Uniform(_, size) => *size,
            Self::Weighted(shares) => shares.iter().map(|(size, _)| *size).max().unwrap_or(0),
        }
    }

    pub(crate) fn min(&self) -> usize {
        match self {
            Self::Fixed(size) | Self::Uniform(size, _) => *size,
            Self::Weighted(shares) => shares.iter().map(|(size, _)| *size).min().unwrap_or(0),
        }
    }
}

/// As many of each as its share, the rest to those that lose most by rounding down.
fn weighted(shares: &[(usize, f64)], count: usize) -> Vec<usize> {
    let exact = |share: f64| share / 100.0 * count as f64;
    let mut table: Vec<usize> = shares
        .iter()
        .flat_map(|(size, share)| std::iter::repeat_n(*size, exact(*share) as usize))
        .take(count)
        .collect();
    let mut by_loss: Vec<_> = shares.iter().collect();
    by_loss.sort_by(|a, b| exact(b.1).fract().total_cmp(&exact(a.1).fract()));
    let rest = by_loss.iter().cycle().map(|(size, _)| *size).take(count - table.len());
    table.extend(rest.collect::<Vec<_>>());
    table
}

impl FromStr for Sizes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains(':') {
            let shares = text.split(',').map(share).collect::<Result<Vec<_>, _>>()?;
            let sum: f64 = shares.iter().map(|(_, share)| share).sum();
            if (sum - 100.0).abs() > 0.01 {
                return Err(format!("the shares are {sum} % together, not 100 %"));
            }
            return Ok(Self::Weighted(shares));
        }
        let Some((from, to)) = text.split_once('-') else { return Ok(Self::Fixed(bytes(text)?)) };
        match (bytes(from)?, bytes(to)?) {
            (from, to) if from > to => Err(format!("the range {from}-{to} is the wrong way round")),
            (from, to) if from == to => Ok(Self::Fixed(from)),
            (from, to) => Ok(Self::Uniform(from, to)),
        }
    }
}

/// A number if there is one size; otherwise as it is written on the command line.
impl Serialize for Sizes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Fixed(size) => serializer.serialize_u64(*size as u64),
            _ => serializer.serialize_str(&self.to_string()),
        }
    }
}

impl std::fmt::Display for Sizes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fixed(size) => write!(f, "{size}"),
            Self::Uniform(from, to) => write!(f, "{from}-{to}"),
            Self::Weighted(shares) => {
                let shares: Vec<_> =
                    shares.iter().map(|(size, share)| format!("{size}:{share}%")).collect();
                f.write_str(&shares.join(","))
            }
        }
    }
}

fn share(text: &str) -> Result<(usize, f64), String> {
    let wrong = || format!("{text:?} is not BYTES:SHARE%, as in 20:90%,4096:10%");
    let (size, share) = text.split_once(':').ok_or_else(wrong)?;
    let share: f64 = share.trim().trim_end_matches('%').parse().map_err(|_| wrong())?;
    if !(0.02..=100.0).contains(&share) {
        return Err(format!("a share is 0.02 to 100 %, not {share}"));
    }
    Ok((bytes(size)?, share))
}

fn bytes(text: &str) -> Result<usize, String> {
    let size: usize = text.trim().parse().map_err(|_| {
        format!("{text:?} is not a size: BYTES, FROM-TO or BYTES:SHARE%,BYTES:SHARE%")
    })?;
    if size > BYTES_MAX {
        return Err(format!("a message has at most {BYTES_MAX} bytes, not {size}"));
    }
    Ok(size)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::Sizes;

    #[rstest]
    #[case("20", Sizes::Fixed(20))]
    #[case("0", Sizes::Fixed(0))]
    #[case("7-7", Sizes::Fixed(7))]
    #[case("10-1000", Sizes::Uniform(10, 1000))]
    #[case("20:90%,4096:10%", Sizes::Weighted(vec![(20, 90.0), (4096, 10.0)]))]
    #[case("20:99.5,9:0.5", Sizes::Weighted(vec![(20, 99.5), (9, 0.5)]))]
    fn sizes_are_understood(#[case] text: &str, #[case] sizes: Sizes) {
        assert_eq!(text.parse(), Ok(sizes));
    }

    #[rstest]
    #[case("", "not a size")]
    #[case("20B", "not a size")]
    #[case("-5", "not a size")]
    #[case("9-3", "wrong way")]
    #[case("999999999", "at most")]
    #[case("20:90%,30:9%", "99 %")]
    #[case("20:90%,30", "BYTES:SHARE%")]
    #[case("20:100%,30:0%", "a share is")]
    fn what_is_wrong_with_a_size_is_said(#[case] text: &str, #[case] reason: &str) {
        let error = text.parse::<Sizes>().unwrap_err();
        assert!(error.contains(reason), "{error}");
    }

    #[test]
    fn a_distribution_is_followed_exactly() {
        let table = "20:90%,4096:10%".parse::<Sizes>().unwrap().table(1000);
        assert_eq!(table.iter().filter(|size| **size == 20).count(), 900);
        assert_eq!(table.iter().filter(|size| **size == 4096).count(), 100);
        assert!(table[..100].contains(&4096), "it is mixed");
    }

    #[test]
    fn a_range_is_even_from_its_first_to_its_last_size() {
        let table = Sizes::Uniform(10, 13).table(400);
        for size in 10..=13 {
            let count = table.iter().filter(|found| **found == size).count();
            assert!((99..=101).contains(&count), "{count} of {size}");
        }
        let few = Sizes::Uniform(0, 100_000).table(64);
        assert!(few.iter().all(|size| *size <= 100_000));
        assert!(few.iter().max() > Some(&95_000) && few.iter().min() < Some(&5_000));
    }
}
