//! Options, with MirageOS's forms, messages and exit statuses.

use crate::lifecycle::Status;
use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

/// An option that takes a value.
#[derive(Debug)]
pub struct Opt {
    /// Its long name, without the dashes.
    pub long: &'static str,
    /// Its one-letter name, if it has one.
    pub short: Option<char>,
    /// What its value is, for the help text: `CIDR`.
    pub value: &'static str,
    /// What it does, in a sentence.
    pub help: &'static str,
}

/// A guest's command line: what it is, and the options it takes.
#[derive(Debug)]
pub struct Command {
    /// The guest's name.
    pub name: &'static str,
    /// What it does, in a sentence.
    pub about: &'static str,
    /// What it can be told.
    pub options: &'static [Opt],
}

/// Why a guest ends before it has started: help was asked for, or the arguments are wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Usage {
    /// The help text.
    Help(String),
    /// What is wrong, and what is expected.
    Error(String),
}

impl Usage {
    /// The exit status that says so.
    pub fn status(&self) -> Status {
        match self {
            Self::Help(_) => Status::HELP,
            Self::Error(_) => Status::USAGE,
        }
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Help(text) | Self::Error(text)) = self;
        f.write_str(text)
    }
}

impl core::error::Error for Usage {}

/// The values that a command line has given.
#[derive(Debug)]
pub struct Options {
    command: &'static Command,
    values: Vec<(&'static str, String)>,
}

impl Command {
    /// Reads the guest's arguments.
    ///
    /// # Errors
    /// Help, when asked for by `--help`; an error, when an argument is not one of the command's.
    pub fn parse(&'static self) -> Result<Options, Usage> {
        match super::list() {
            Ok(words) => self.parse_words(words),
            Err(usage) => Err(self.error(usage)),
        }
    }

    /// Reads these arguments: `--long VALUE`, `--long=VALUE`, `-s VALUE`, `-sVALUE`.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn parse_words(&'static self, words: impl IntoIterator<Item = String>) -> Result<Options, Usage> {
        let mut values = Vec::new();
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            if word == "--help" || word.starts_with("--help=") {
                return Err(Usage::Help(self.help()));
            }
            let (option, attached) = self.option(&word)?;
            let value = attached.map(str::to_owned).or_else(|| words.next());
            let value = value.ok_or_else(|| {
                self.error(format!("option '--{}' needs an argument: {}", option.long, option.value))
            })?;
            values.push((option.long, value));
        }
        Ok(Options { command: self, values })
    }

    /// The option that `word` names, and the value if it is part of the word.
    fn option<'w>(&self, word: &'w str) -> Result<(&'static Opt, Option<&'w str>), Usage> {
        let mut options = self.options.iter();
        let found = if let Some(long) = word.strip_prefix("--") {
            let (name, value) =
                long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value)));
            options.find(|option| option.long == name).map(|option| (option, value))
        } else if let Some(short) = word.strip_prefix('-') {
            let mut rest = short.chars();
            let letter = rest.next();
            let value = Some(rest.as_str()).filter(|value| !value.is_empty());
            options.find(|option| letter.is_some() && option.short == letter).map(|option| (option, value))
        } else {
            return Err(self.error(format!("too many arguments, don't know what to do with '{word}'")));
        };
        found.ok_or_else(|| self.error(format!("unknown option '{word}'")))
    }

    /// A usage error of this command.
    pub fn error(&self, what: impl fmt::Display) -> Usage {
        let name = self.name;
        Usage::Error(format!(
            "{name}: {what}.\nUsage: {name} [OPTION]...\nTry '{name} --help' for more information."
        ))
    }

    fn help(&self) -> String {
        let mut text = format!("{} - {}\n\nUsage: {0} [OPTION]...\n\nOptions:\n", self.name, self.about);
        for option in self.options {
            let short = option.short.map_or_else(String::new, |short| format!("-{short} {}, ", option.value));
            text += &format!("  {short}--{}={}\n      {}\n", option.long, option.value, option.help);
        }
        text + "  --help\n      Shows this help."
    }
}

impl Options {
    /// All values given for the option, in their order.
    pub fn all<'a>(&'a self, long: &'a str) -> impl Iterator<Item = &'a str> {
        self.values.iter().filter(move |(name, _)| *name == long).map(|(_, value)| value.as_str())
    }

    /// The value of an option that may be given once.
    ///
    /// # Errors
    /// When it is given twice, or its value is not a `T`.
    pub fn value<T: FromStr<Err: fmt::Display>>(&self, long: &str) -> Result<Option<T>, Usage> {
        let mut given = self.all(long);
        let Some(text) = given.next() else { return Ok(None) };
        if given.next().is_some() {
            return Err(self.error(format!("option '--{long}' cannot be repeated")));
        }
        match text.parse() {
            Ok(value) => Ok(Some(value)),
            Err(error) => Err(self.error(format!("option '--{long}': invalid value '{text}', {error}"))),
        }
    }

    /// The value of an option that must be given once.
    ///
    /// # Errors
    /// When it is not, or its value is not a `T`.
    pub fn required<T: FromStr<Err: fmt::Display>>(&self, long: &str) -> Result<T, Usage> {
        self.value(long)?.ok_or_else(|| self.error(format!("required option '--{long}' is missing")))
    }

    /// A usage error of the command, for what only the guest can tell.
    pub fn error(&self, what: impl fmt::Display) -> Usage {
        self.command.error(what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Ipv4Cidr, split};

    static WEB: Command = Command {
        name: "web",
        about: "Serves a page.",
        options: &[
            Opt { long: "ipv4", short: None, value: "CIDR", help: "The address." },
            Opt { long: "logs", short: Some('l'), value: "LEVEL", help: "What to log." },
        ],
    };

    fn parse(line: &str) -> Result<Options, Usage> {
        WEB.parse_words(split(line).unwrap())
    }

    fn message(usage: Usage) -> String {
        assert_eq!(usage.status(), Status::USAGE);
        format!("{usage}")
    }

    #[test]
    fn every_form_of_an_option_gives_its_value() {
        for line in ["--ipv4 10.0.0.2/24", "--ipv4=10.0.0.2/24"] {
            let cidr: Ipv4Cidr = parse(line).unwrap().required("ipv4").unwrap();
            assert_eq!(format!("{cidr}"), "10.0.0.2/24");
        }
        let options = parse("-l a --logs=b -lc --logs d").unwrap();
        assert!(options.all("logs").eq(["a", "b", "c", "d"]));
        assert_eq!(options.value::<Ipv4Cidr>("ipv4"), Ok(None));
    }

    #[test]
    fn help_names_every_option_and_has_status_63() {
        let usage = parse("--ipv4 nonsense --help").unwrap_err();
        assert_eq!(usage.status(), Status(63));
        let text = format!("{usage}");
        assert!(text.contains("--ipv4=CIDR\n") && text.contains("-l LEVEL, --logs=LEVEL\n"), "{text}");
    }

    #[test]
    fn a_wrong_argument_is_named_and_has_status_64() {
        for (line, expected) in [
            ("--nonsense", "web: unknown option '--nonsense'."),
            ("-x", "web: unknown option '-x'."),
            ("-", "web: unknown option '-'."),
            ("--", "web: unknown option '--'."),
            ("stray", "web: too many arguments, don't know what to do with 'stray'."),
            ("--ipv4", "web: option '--ipv4' needs an argument: CIDR."),
        ] {
            let text = message(parse(line).unwrap_err());
            assert!(text.starts_with(expected), "{line}: {text}");
        }
    }

    #[test]
    fn a_wrong_value_is_named_with_what_is_expected() {
        for (line, expected) in [
            ("--ipv4 10.0.0.2", "web: option '--ipv4': invalid value '10.0.0.2', expected an IPv4 address"),
            ("--ipv4 10.0.0.2/8 --ipv4 10.0.0.3/8", "web: option '--ipv4' cannot be repeated."),
            ("", "web: required option '--ipv4' is missing."),
        ] {
            let text = message(parse(line).unwrap().required::<Ipv4Cidr>("ipv4").unwrap_err());
            assert!(text.starts_with(expected), "{line}: {text}");
        }
    }
}
