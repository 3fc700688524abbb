//! How a command fails.

use std::io;

use crate::error::{Error, Exit};
use crate::sentence::{self, About, Sentence};

/// Why a command ends early.
#[derive(Debug)]
pub enum Failure {
    /// Something to tell.
    Told {
        /// How the program ends.
        exit: Exit,
        /// What it says.
        sentence: Sentence,
    },
    /// Nobody reads the output any more, as behind `| head`: nothing to tell.
    Unread,
}

impl Failure {
    /// An error about something that has a name.
    pub fn about(error: &Error, about: &About<'_>) -> Self {
        Self::Told { exit: error.exit(), sentence: sentence::of(error, about) }
    }

    /// A command line that cannot be meant.
    pub fn usage(wrong: impl Into<String>, expected: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::Told { exit: Exit::Usage, sentence: sentence::say(wrong, expected, advice) }
    }

    /// A file of this machine that is in the way or cannot be had.
    pub fn local(wrong: impl Into<String>, expected: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::Told { exit: Exit::Local, sentence: sentence::say(wrong, expected, advice) }
    }

    /// What the host did not do.
    pub fn refused(wrong: impl Into<String>, expected: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::Told { exit: Exit::Refused, sentence: sentence::say(wrong, expected, advice) }
    }

    /// The output cannot be written.
    pub fn output(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Unread,
            _ => Self::local(
                format!("the output cannot be written ({error})"),
                "room where it goes",
                "make room, or send it elsewhere",
            ),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::about(&error, &About::default())
    }
}
