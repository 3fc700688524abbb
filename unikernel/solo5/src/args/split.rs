//! From one line to arguments.

use alloc::string::String;
use alloc::vec::Vec;

/// Why a command line cannot be split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SplitError {
    /// A quote has no end.
    OpenQuote(char),
    /// The line ends with a backslash that escapes nothing.
    OpenEscape,
}

impl core::fmt::Display for SplitError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::OpenQuote(quote) => write!(f, "the command line has a {quote} without its counterpart"),
            Self::OpenEscape => f.write_str("the command line ends with a \\ that escapes nothing"),
        }
    }
}

impl core::error::Error for SplitError {}

/// Splits a command line at white space.
///
/// The tender joins its arguments with blanks and quotes nothing, so quoting is the user's, and the rules are
/// those of MirageOS's parse-argv: '...' takes everything as it is; "..." everything but a backslash; a backslash
/// takes the next character as it is; empty arguments vanish. Other than there, an open quote is an error.
///
/// # Errors
/// A quote or an escape without its end.
pub fn split(line: &str) -> Result<Vec<String>, SplitError> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some('\''), c) => word.push(c),
            (_, '\\') => word.push(chars.next().ok_or(SplitError::OpenEscape)?),
            (None, '\'' | '"') => quote = Some(c),
            (None, c) if c.is_ascii_whitespace() => take_word(&mut word, &mut words),
            (_, c) => word.push(c),
        }
    }
    take_word(&mut word, &mut words);
    quote.map_or(Ok(words), |open| Err(SplitError::OpenQuote(open)))
}

fn take_word(word: &mut String, words: &mut Vec<String>) {
    if !word.is_empty() {
        words.push(core::mem::take(word));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_split_at_white_space() {
        assert_eq!(
            split("  --ipv4 10.0.0.2/24\t -l\n*:debug ").unwrap(),
            ["--ipv4", "10.0.0.2/24", "-l", "*:debug"]
        );
        assert!(split("").unwrap().is_empty());
        assert!(split(" \t ").unwrap().is_empty());
    }

    #[test]
    fn quotes_and_escapes_keep_arguments_together() {
        for (line, expected) in [
            (r#"foo "bar" baz"#, ["foo", "bar", "baz"]),
            (r#"f\ oo b\"r baz"#, ["f oo", "b\"r", "baz"]),
            (r#"foo bar"bie"boo baz"#, ["foo", "barbieboo", "baz"]),
            (r"foo bar'bie'boo baz", ["foo", "barbieboo", "baz"]),
            (r#"foo 'b a"r' baz"#, ["foo", "b a\"r", "baz"]),
            (r#"foo "b a'r" baz"#, ["foo", "b a'r", "baz"]),
            (r"foo b\ a\'r baz", ["foo", "b a'r", "baz"]),
            (r#"foo "b\\ a\"r" baz"#, ["foo", "b\\ a\"r", "baz"]),
            (r#"foo 'b\\ a\"r' baz"#, ["foo", "b\\\\ a\\\"r", "baz"]),
        ] {
            assert_eq!(split(line).unwrap(), expected, "{line}");
        }
    }

    #[test]
    fn an_empty_argument_vanishes_as_on_mirageos() {
        assert_eq!(split("a '' b").unwrap(), ["a", "b"]);
    }

    #[test]
    fn a_quote_or_escape_without_its_end_is_refused() {
        assert_eq!(split("a 'b"), Err(SplitError::OpenQuote('\'')));
        assert_eq!(split("a \"b\\\""), Err(SplitError::OpenQuote('"')));
        assert_eq!(split("a \\"), Err(SplitError::OpenEscape));
    }
}
