//! The character that talks to `maelstrom-run` instead of the job, and what it can say.

use maelstrom_runner::config::{Scalar, utf8, wrong_type};
use std::{ffi::OsStr, fmt, str::FromStr, time::Duration};
use toml::de::DeValue;

/// How long an escape character waits for what follows it before it goes to the job.
pub(crate) const PATIENCE: Duration = Duration::from_millis(1500);

const CTRL_C: u8 = 0x03;
const CTRL_Z: u8 = 0x1a;
const DELETE: u8 = 0x7f;

/// An ASCII character. Displays in caret notation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EscapeChar(pub(crate) u8);

impl FromStr for EscapeChar {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let byte = match text.as_bytes() {
            [] => return Err("expected a character".into()),
            _ if !text.is_ascii() => return Err("expected an ASCII character".into()),
            [byte] => *byte,
            [b'^', b'?'] => DELETE,
            [b'^', byte] if (b'@'..=b'_').contains(&byte.to_ascii_uppercase()) => {
                byte.to_ascii_uppercase() - b'@'
            }
            [b'^', byte] => {
                return Err(format!(
                    "no control character is written `^{}`",
                    *byte as char
                ));
            }
            [b'^', ..] => return Err("expected one character after `^`".into()),
            [b'\\', b'n'] => b'\n',
            [b'\\', b'r'] => b'\r',
            [b'\\', b't'] => b'\t',
            [b'\\', b'0'] => 0,
            [b'\\', byte @ (b'\\' | b'\'' | b'"')] => *byte,
            [b'\\', b'x', high, low] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                match u8::from_str_radix(&text[2..], 16) {
                    Ok(byte) if byte.is_ascii() => byte,
                    _ => return Err("expected a hexadecimal number from `\\x00` to `\\x7f`".into()),
                }
            }
            [b'\\', b'x', ..] => return Err("expected two hexadecimal digits after `\\x`".into()),
            [b'\\', ..] => {
                return Err("expected one of `\\n`, `\\r`, `\\t`, `\\\\`, `\\0`, `\\'`, `\\\"`, `\\x00` to `\\x7f`".into());
            }
            _ => return Err("expected a single character, such as `~`, `^]` or `\\x1d`".into()),
        };
        Ok(EscapeChar(byte))
    }
}

impl fmt::Display for EscapeChar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            DELETE => f.write_str("^?"),
            byte if byte.is_ascii_control() => write!(f, "^{}", (byte + b'@') as char),
            byte => write!(f, "{}", byte as char),
        }
    }
}

impl Scalar for EscapeChar {
    fn from_text(text: &OsStr) -> Result<Self, String> {
        utf8(text)?.parse()
    }

    /// A string as above, or the character's number.
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        match value {
            DeValue::String(text) => text.parse(),
            DeValue::Integer(number) => u8::from_str_radix(number.as_str(), number.radix())
                .ok()
                .filter(u8::is_ascii)
                .map(EscapeChar)
                .ok_or_else(|| "expected a number from 0 to 127".into()),
            other => Err(wrong_type("a string or an integer", other)),
        }
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// What can be told to `maelstrom-run`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// End by SIGINT.
    Kill,
    /// Stop until continued.
    Suspend,
}

/// Splits what is typed into what goes to the job and what is a command.
#[derive(Debug)]
pub(crate) struct EscapeFilter {
    escape: u8,
    is_pending: bool,
}

impl EscapeFilter {
    pub(crate) fn new(escape: EscapeChar) -> Self {
        EscapeFilter {
            escape: escape.0,
            is_pending: false,
        }
    }

    /// Whether an escape character waits for what follows it.
    pub(crate) fn is_pending(&self) -> bool {
        self.is_pending
    }

    /// Takes one typed byte. What is for the job goes to `job`.
    pub(crate) fn push(&mut self, byte: u8, job: &mut Vec<u8>) -> Option<Command> {
        if !self.is_pending {
            if byte == self.escape {
                self.is_pending = true;
            } else {
                job.push(byte);
            }
            return None;
        }
        self.is_pending = false;
        match byte {
            _ if byte == self.escape => job.push(byte),
            CTRL_C => return Some(Command::Kill),
            CTRL_Z => return Some(Command::Suspend),
            _ => job.extend([self.escape, byte]),
        }
        None
    }

    /// Nothing follows: a waiting escape character goes to the job.
    pub(crate) fn flush(&mut self, job: &mut Vec<u8>) {
        if std::mem::take(&mut self.is_pending) {
            job.push(self.escape);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn forms() {
        for (text, byte, shown) in [
            ("~", b'~', "~"),
            ("^", b'^', "^"),
            ("\\", b'\\', "\\"),
            ("^]", 0x1d, "^]"),
            ("^C", 3, "^C"),
            ("^c", 3, "^C"),
            ("^@", 0, "^@"),
            ("^_", 0x1f, "^_"),
            ("^?", 0x7f, "^?"),
            ("\\n", b'\n', "^J"),
            ("\\r", b'\r', "^M"),
            ("\\t", b'\t', "^I"),
            ("\\\\", b'\\', "\\"),
            ("\\0", 0, "^@"),
            ("\\'", b'\'', "'"),
            ("\\\"", b'"', "\""),
            ("\\x00", 0, "^@"),
            ("\\x1d", 0x1d, "^]"),
            ("\\x1D", 0x1d, "^]"),
            ("\\x7f", 0x7f, "^?"),
            ("\u{1d}", 0x1d, "^]"),
        ] {
            let parsed: EscapeChar = text.parse().unwrap();
            assert_eq!((parsed.0, &*parsed.to_string()), (byte, shown), "{text}");
        }
    }

    #[test]
    fn bad_forms() {
        for (text, message) in [
            ("", "expected a character"),
            ("é", "expected an ASCII character"),
            ("^1", "no control character is written `^1`"),
            ("^]x", "expected one character after `^`"),
            ("\\x80", "from `\\x00` to `\\x7f`"),
            ("\\x1", "two hexadecimal digits"),
            ("\\x123", "two hexadecimal digits"),
            ("\\x+1", "two hexadecimal digits"),
            ("\\q", "expected one of"),
            ("\\nn", "expected one of"),
            ("ab", "expected a single character"),
        ] {
            let error = text.parse::<EscapeChar>().unwrap_err();
            assert!(error.contains(message), "{text}: {error}");
        }
    }

    #[test]
    fn files_may_have_numbers() {
        let parse = |text: &str| {
            let value = DeValue::parse(text).unwrap();
            EscapeChar::from_toml(value.get_ref())
        };
        assert_eq!(parse("29"), Ok(EscapeChar(0x1d)));
        assert_eq!(parse("0x1d"), Ok(EscapeChar(0x1d)));
        assert_eq!(parse("'^]'"), Ok(EscapeChar(0x1d)));
        for bad in ["128", "-1", "true", "''"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    /// What reaches the job, with `K` and `S` for commands.
    fn typed(escape: &str, bytes: &[u8]) -> String {
        let mut filter = EscapeFilter::new(escape.parse().unwrap());
        let mut result = String::new();
        for byte in bytes {
            let mut job = Vec::new();
            let command = filter.push(*byte, &mut job);
            result.push_str(std::str::from_utf8(&job).unwrap());
            result.push_str(match command {
                Some(Command::Kill) => "K",
                Some(Command::Suspend) => "S",
                None => "",
            });
        }
        let mut job = Vec::new();
        filter.flush(&mut job);
        result + std::str::from_utf8(&job).unwrap()
    }

    #[test]
    fn escape_sequences() {
        for (bytes, expected) in [
            (&b"abc"[..], "abc"),
            (b"\x03\x1a", "\x03\x1a"),
            (b"a~\x03", "aK"),
            (b"~\x1ab", "Sb"),
            (b"~~", "~"),
            (b"~~\x03", "~\x03"),
            (b"~~~\x03", "~K"),
            (b"~x", "~x"),
            (b"a~", "a~"),
        ] {
            assert_eq!(typed("~", bytes), expected);
        }
        assert_eq!(typed("^C", b"\x03\x03"), "\x03");
    }

    proptest! {
        #[test]
        fn caret_notation_parses_back(byte in 0..128u8) {
            let escape = EscapeChar(byte);
            prop_assert_eq!(escape.to_string().parse(), Ok(escape));
        }

        #[test]
        fn arbitrary_text_never_panics(text in ".*") {
            let _ = text.parse::<EscapeChar>();
        }

        #[test]
        fn doubling_the_escape_passes_everything(text in "[ -~]*") {
            let doubled = text.replace('~', "~~");
            prop_assert_eq!(typed("~", doubled.as_bytes()), text);
        }
    }
}
