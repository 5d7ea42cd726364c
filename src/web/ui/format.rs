//! Numbers, times and shares as people read them. Never rounds in a way that hides one message: a
//! share is 100 % only when nothing is missing.

use askama::filters::Safe;

use crate::domain::time::Timestamp;

const SECOND_MS: i64 = 1_000;
const MINUTE_MS: i64 = 60 * SECOND_MS;
const HOUR_MS: i64 = 60 * MINUTE_MS;
const DAY_MS: i64 = 24 * HOUR_MS;

/// `1234567` as `1,234,567`.
#[must_use]
pub fn count(n: &i64) -> String {
    let digits = n.unsigned_abs().to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3 + 1);
    if *n < 0 {
        out.push('−');
    }
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A number with its noun: `1 message`, `2,000 messages`. The plural only takes an s.
#[must_use]
pub fn counted(n: &i64, noun: &str) -> String {
    let s = if *n == 1 { "" } else { "s" };
    format!("{} {noun}{s}", count(n))
}

/// A clause as a sentence: with a capital and a full stop.
#[must_use]
pub fn sentence(clause: &str) -> String {
    let mut letters = clause.trim_end_matches('.').chars();
    let first = letters.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", letters.as_str())
}

/// A share with one digit behind the point, cut off: `0 %` and `100 %` mean none and all, anything else lies
/// between.
#[must_use]
pub fn percent(part: &i64, whole: &i64) -> String {
    match (*part, *whole) {
        (_, ..=0) => "–".to_owned(),
        (0, _) => "0 %".to_owned(),
        (p, w) if p == w => "100 %".to_owned(),
        (p, w) => match i128::from(p) * 1_000 / i128::from(w) {
            ..=0 => "under 0.1 %".to_owned(),
            tenths => format!("{}.{} %", tenths / 10, tenths % 10),
        },
    }
}

/// An instant in UTC as a `<time>` element, to the second.
#[must_use]
pub fn time(at: &Timestamp) -> Safe<String> {
    let shown = at.to_jiff().strftime("%Y-%m-%d %H:%M:%S").to_string();
    Safe(format!(r#"<time datetime="{at}">{shown}</time>"#))
}

/// An instant as the people's field for date and time wants it, in UTC.
#[must_use]
pub fn time_input(at: &Timestamp) -> String {
    at.to_jiff().strftime("%Y-%m-%dT%H:%M").to_string()
}

/// How long ago, as a `<time>` element: `12 s ago`.
#[must_use]
pub fn ago(at: &Timestamp, now: &Timestamp) -> Safe<String> {
    let past = *now - *at;
    let shown = if past < SECOND_MS {
        "just now".to_owned()
    } else {
        format!("{} ago", duration(&past))
    };
    Safe(format!(r#"<time datetime="{at}" title="{at}">{shown}</time>"#))
}

/// A length of time in its two largest units.
#[must_use]
pub fn duration(ms: &i64) -> String {
    let ms = (*ms).max(0);
    if ms < SECOND_MS {
        "under 1 s".to_owned()
    } else if ms < MINUTE_MS {
        format!("{} s", ms / SECOND_MS)
    } else if ms < HOUR_MS {
        two(ms / MINUTE_MS, "min", ms % MINUTE_MS / SECOND_MS, "s")
    } else if ms < DAY_MS {
        two(ms / HOUR_MS, "h", ms % HOUR_MS / MINUTE_MS, "min")
    } else {
        two(ms / DAY_MS, "d", ms % DAY_MS / HOUR_MS, "h")
    }
}

fn two(large: i64, unit: &str, small: i64, small_unit: &str) -> String {
    if small == 0 {
        format!("{large} {unit}")
    } else {
        format!("{large} {unit} {small} {small_unit}")
    }
}

/// Messages a second: whole numbers from ten on.
#[must_use]
pub fn rate(per_sec: &f64) -> String {
    if *per_sec >= 10.0 {
        count(&(per_sec.round() as i64))
    } else {
        format!("{per_sec:.1}")
    }
}

/// A status as words: `fanning_out` is `fanning out`.
#[must_use]
pub fn words(name: &str) -> String {
    name.replace('_', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_numbers_have_separators() {
        for (n, shown) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (1_234_567, "1,234,567"),
            (-1_000, "−1,000"),
        ] {
            assert_eq!(count(&n), shown);
        }
        assert_eq!(counted(&1, "message"), "1 message");
        assert_eq!(counted(&2_000, "message"), "2,000 messages");
    }

    #[test]
    fn all_but_one_in_a_million_is_not_all() {
        assert_eq!(percent(&999_999, &1_000_000), "99.9 %");
        assert_eq!(percent(&1, &1_000_000), "under 0.1 %");
        assert_eq!(percent(&1_000, &1_000_000), "0.1 %");
        assert_eq!(percent(&7, &7), "100 %");
        assert_eq!(percent(&0, &7), "0 %");
        assert_eq!(percent(&0, &0), "–");
    }

    #[test]
    fn lengths_of_time_have_two_units_at_most() {
        for (ms, shown) in [
            (999, "under 1 s"),
            (59_999, "59 s"),
            (60_000, "1 min"),
            (3_599_000, "59 min 59 s"),
            (3_600_000 * 25, "1 d 1 h"),
        ] {
            assert_eq!(duration(&ms), shown);
        }
    }

    #[test]
    fn times_carry_their_instant() {
        let at = Timestamp(1_790_000_000_123);
        let expected = r#"<time datetime="2026-09-21T14:13:20.123Z">2026-09-21 14:13:20</time>"#;
        assert_eq!(time(&at).0, expected);
        assert!(ago(&at, &at.plus_ms(12_000)).0.contains(">12 s ago<"));
    }
}
