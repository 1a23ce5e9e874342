//! Byte sizes as people write them: `1000000`, `1.5 kB`, `1 GiB`.

use std::{fmt, str::FromStr};

/// A number of bytes. Displays in SI units with one decimal: `1.0 GB`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(
    /// Bytes.
    pub u64,
);

impl ByteSize {
    /// The number of bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

/// Why a text is not a byte size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ByteSizeError {
    /// It does not start with a number.
    #[error(
        "expected a number of bytes with an optional unit, such as `1000000`, `1.5 kB` or `1 GiB`"
    )]
    NoNumber,
    /// A minus sign.
    #[error("a size cannot be negative")]
    Negative,
    /// What follows the number is no unit.
    #[error(
        "unknown unit `{0}`; known are B, kB, MB, GB, TB, PB, EB (powers of 1000) and KiB, MiB, GiB, TiB, PiB, EiB (powers of 1024)"
    )]
    UnknownUnit(String),
    /// More than 2⁶⁴ − 1 bytes.
    #[error("more than 18.4 EB, the largest size")]
    TooLarge,
}

const SI_PREFIXES: [&str; 6] = ["k", "M", "G", "T", "P", "E"];

/// Digits after the decimal point that are looked at. More cannot change the number of bytes,
/// the largest unit being 2⁶⁰.
const MAX_FRACTION_DIGITS: usize = 19;

/// Bytes in a unit. Case does not matter; `K` and `kB` are 1000, `Ki` and `KiB` are 1024.
fn unit_bytes(unit: &str) -> Option<u64> {
    let unit = unit.to_ascii_lowercase();
    let prefix = unit.strip_suffix('b').unwrap_or(&unit);
    if prefix.is_empty() {
        return Some(1);
    }
    let (prefix, base) = match prefix.strip_suffix('i') {
        Some(prefix) => (prefix, 1024_u64),
        None => (prefix, 1000),
    };
    let position = SI_PREFIXES
        .iter()
        .position(|si| si.eq_ignore_ascii_case(prefix))?;
    Some(base.pow(position as u32 + 1))
}

impl FromStr for ByteSize {
    type Err = ByteSizeError;

    fn from_str(text: &str) -> Result<Self, ByteSizeError> {
        let text = text.trim();
        if let Some(rest) = text.strip_prefix('-')
            && rest.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        {
            return Err(ByteSizeError::Negative);
        }
        let number_length = text
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(text.len());
        let (number, unit) = text.split_at(number_length);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(ByteSizeError::NoNumber);
        }
        let unit = unit.trim();
        let unit_bytes =
            unit_bytes(unit).ok_or_else(|| ByteSizeError::UnknownUnit(unit.to_owned()))?;
        let whole: u64 = match whole {
            "" => 0,
            digits => digits.parse().map_err(|_| ByteSizeError::TooLarge)?,
        };
        let fraction = &fraction[..fraction.len().min(MAX_FRACTION_DIGITS)];
        let numerator: u128 = fraction.parse().unwrap_or(0);
        let part = numerator * u128::from(unit_bytes) / 10_u128.pow(fraction.len() as u32);
        whole
            .checked_mul(unit_bytes)
            .and_then(|bytes| bytes.checked_add(u64::try_from(part).ok()?))
            .map(ByteSize)
            .ok_or(ByteSizeError::TooLarge)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < 1000 {
            return f.pad(&format!("{} B", self.0));
        }
        // Tenths of a unit, rounded; 999 950 bytes are 1.0 MB and not 1000.0 kB.
        let mut tenths = (u128::from(self.0) + 50) / 100;
        let mut prefix = 0;
        while tenths >= 10_000 {
            let divisor = 1000_u128.pow(prefix as u32 + 2);
            tenths = (u128::from(self.0) * 10 + divisor / 2) / divisor;
            prefix += 1;
        }
        f.pad(&format!(
            "{}.{} {}B",
            tenths / 10,
            tenths % 10,
            SI_PREFIXES[prefix]
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn texts_are_read() {
        for (text, bytes) in [
            ("0", 0),
            ("1000000", 1_000_000),
            ("1K", 1000),
            ("1.5 kB", 1500),
            ("1GB", 1_000_000_000),
            ("1 gb", 1_000_000_000),
            ("1 GiB", 1 << 30),
            (" 2  mib ", 2 << 20),
            ("2Ki", 2048),
            ("12 B", 12),
            (".5k", 500),
            ("1.", 1),
            ("1.9", 1),
            ("0.1 GB", 100_000_000),
            ("18446744073709551615", u64::MAX),
            ("15.9 EiB", 18_331_451_923_248_866_918),
            ("0.00000000000000000000000000001 EB", 0),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
    }

    #[test]
    fn bad_texts_are_refused() {
        use ByteSizeError as E;
        for (text, error) in [
            ("", E::NoNumber),
            ("GB", E::NoNumber),
            (".", E::NoNumber),
            ("1.2.3", E::NoNumber),
            ("many", E::NoNumber),
            ("-", E::NoNumber),
            ("-1", E::Negative),
            ("-1.5 GB", E::Negative),
            ("1 XB", E::UnknownUnit("XB".into())),
            ("1 k k", E::UnknownUnit("k k".into())),
            ("1,5 GB", E::UnknownUnit(",5 GB".into())),
            ("1i", E::UnknownUnit("i".into())),
            ("16 EiB", E::TooLarge),
            ("18446744073709551616", E::TooLarge),
            ("99999999999999999999999 GB", E::TooLarge),
        ] {
            assert_eq!(text.parse::<ByteSize>(), Err(error), "{text}");
        }
    }

    #[test]
    fn sizes_are_shown_in_si() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (1_000_000_000, "1.0 GB"),
            (999_949, "999.9 kB"),
            (999_950, "1.0 MB"),
            (1 << 30, "1.1 GB"),
            (u64::MAX, "18.4 EB"),
        ] {
            assert_eq!(ByteSize(bytes).to_string(), text);
        }
        assert_eq!(format!("{:>8}", ByteSize(1000)), "  1.0 kB");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in any::<String>()) {
            let _ = text.parse::<ByteSize>();
        }

        #[test]
        fn what_is_shown_reads_back_to_within_rounding(bytes in any::<u64>()) {
            let shown = ByteSize(bytes).to_string();
            if let Ok(ByteSize(again)) = shown.parse() {
                prop_assert!(again.abs_diff(bytes) <= bytes / 10, "{} {}", bytes, shown);
            }
        }

        #[test]
        fn a_number_and_a_unit_multiply(number in 0..18u64, power in 1..7u32) {
            let prefix = SI_PREFIXES[power as usize - 1];
            prop_assert_eq!(format!("{number} {prefix}B").parse(), Ok(ByteSize(number * 1000u64.pow(power))));
            if number < 16 {
                prop_assert_eq!(format!("{number}{prefix}iB").parse(), Ok(ByteSize(number * 1024u64.pow(power))));
            }
        }
    }
}
