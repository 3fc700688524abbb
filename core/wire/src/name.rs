//! Names that cannot be ill-formed.

use alloc::string::String;
use core::{borrow::Borrow, fmt, ops::Deref, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use smol_str::SmolStr;

use crate::limits::{
    BRIDGE_BYTES_MAX, COMMON_NAME_BYTES_MAX, DEVICE_BYTES_MAX, LABEL_BYTES_MAX, LABELS_MAX, NAME_BYTES_MAX,
};

/// Why a text is not a name. The bounds are in [`crate::limits`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameError {
    /// A name, or one of its labels, is empty.
    Empty,
    /// It has more bytes than this.
    TooLong(usize),
    /// It has more labels than this.
    TooDeep(usize),
    /// It has a character outside its alphabet.
    Character(char),
    /// A label begins with `-`, or is `.` or `..`.
    Reserved,
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("a name and each of its labels must have at least one character"),
            Self::TooLong(max) => write!(f, "longer than {max} bytes"),
            Self::TooDeep(max) => write!(f, "more than {max} labels"),
            Self::Character(c) => write!(f, "{c:?} is not allowed: use letters, digits, '-', '_' and '.'"),
            Self::Reserved => f.write_str("a label must not begin with '-' nor be '.' or '..'"),
        }
    }
}

impl core::error::Error for NameError {}

/// One label of a name: 1–63 of `[A-Za-z0-9._-]`, no leading `-`, neither `.` nor `..`.
/// Safe as a file name, as an argument and as a certificate's common name.
fn check_label(text: &str, max: usize) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text.len() > max {
        return Err(NameError::TooLong(max));
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if let Some(c) = text.chars().find(|&c| !allowed(c)) {
        return Err(NameError::Character(c));
    }
    if text.starts_with('-') || text == "." || text == ".." {
        return Err(NameError::Reserved);
    }
    Ok(())
}

pub(crate) fn check_path(text: &str) -> Result<(), NameError> {
    if text.len() > NAME_BYTES_MAX {
        return Err(NameError::TooLong(NAME_BYTES_MAX));
    }
    if text.split(':').count() > LABELS_MAX {
        return Err(NameError::TooDeep(LABELS_MAX));
    }
    text.split(':').try_for_each(|label| check_label(label, LABEL_BYTES_MAX))
}

/// Solo5's manifest allows `[A-Za-z0-9]` in a device's name, and no more.
fn check_device(text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text.len() > DEVICE_BYTES_MAX {
        return Err(NameError::TooLong(DEVICE_BYTES_MAX));
    }
    match text.chars().find(|c| !c.is_ascii_alphanumeric()) {
        Some(c) => Err(NameError::Character(c)),
        None => Ok(()),
    }
}

/// A certificate's common name is whatever its issuer wrote, but it is shown in terminals and logs.
fn check_common_name(text: &str) -> Result<(), NameError> {
    match text.chars().find(|c| c.is_control()) {
        _ if text.is_empty() => Err(NameError::Empty),
        _ if text.len() > COMMON_NAME_BYTES_MAX => Err(NameError::TooLong(COMMON_NAME_BYTES_MAX)),
        Some(c) => Err(NameError::Character(c)),
        None => Ok(()),
    }
}

/// A volume's own name, or a draft's.
fn check_volume(text: &str) -> Result<(), NameError> {
    match text.strip_prefix('~') {
        Some("") => Err(NameError::Empty),
        Some(number) if number.len() > DRAFT_DIGITS_MAX => Err(NameError::TooLong(1 + DRAFT_DIGITS_MAX)),
        Some(number) => {
            number.chars().find(|c| !c.is_ascii_digit()).map_or(Ok(()), |c| Err(NameError::Character(c)))
        }
        None => check_path(text),
    }
}

macro_rules! text_type {
    ($(#[$doc:meta])* $name:ident, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(SmolStr);

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                let check: fn(&str) -> Result<(), NameError> = $check;
                check(text).map(|()| Self(text.into()))
            }
        }

        impl Deref for $name {
            type Target = str;
            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    };
}

text_type! {
    /// A unikernel's or a volume's name: labels joined by `:`, the outermost first (`acme:web:blog`).
    Name, check_path
}
text_type! {
    /// One label: what a host or a monitor is called.
    Label, |text| check_label(text, LABEL_BYTES_MAX)
}
text_type! {
    /// A file of the shim's volume folder. It is called as its volume is, and a draft, which no volume is made of yet,
    /// by `~` and a number: no volume's name has a `~`. Neither has a `/`, nor is `.` or `..`.
    VolumeName, check_volume
}

/// The digits of the largest `u64`.
const DRAFT_DIGITS_MAX: usize = 20;

impl From<&Name> for VolumeName {
    fn from(name: &Name) -> Self {
        Self(name.0.clone())
    }
}

impl VolumeName {
    /// The draft with this number.
    pub fn draft(number: u64) -> Self {
        Self(smol_str::format_smolstr!("~{number}"))
    }

    /// The number of this draft; nothing if it is a volume.
    pub fn draft_number(&self) -> Option<u64> {
        self.0.strip_prefix('~')?.parse().ok()
    }

    /// The volume that the file is; nothing if it is a draft.
    pub fn volume(&self) -> Option<Name> {
        self.parse().ok()
    }
}
text_type! {
    /// A bridge of the host: a network interface's name.
    BridgeName, |text| check_label(text, BRIDGE_BYTES_MAX)
}
text_type! {
    /// A device in a unikernel's manifest.
    DeviceName, check_device
}
text_type! {
    /// Whom a certificate names: any text without control characters.
    CommonName, check_common_name
}

impl CommonName {
    /// As much of `text` as such a name can hold: without control characters, cut to the bound.
    pub fn lossy(text: &str) -> Self {
        let mut name = String::new();
        for c in text.chars().filter(|c| !c.is_control()) {
            if name.len() + c.len_utf8() > COMMON_NAME_BYTES_MAX {
                break;
            }
            name.push(c);
        }
        if name.is_empty() { Self("?".into()) } else { Self(name.into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_escape_a_directory_do_not_exist() {
        for bad in ["", "a/b", "..", ".", "a:..", "a::b", ":a", "-rf", "a b", "a\0", "é", "a\n"] {
            assert!(bad.parse::<Name>().is_err(), "{bad:?}");
        }
        for good in ["a", "web.1", "acme:web:blog", "a..b", "A_b-c"] {
            assert_eq!(&*good.parse::<Name>().unwrap(), good);
        }
    }

    #[test]
    fn bounds_hold() {
        assert!("x".repeat(LABEL_BYTES_MAX).parse::<Name>().is_ok());
        assert_eq!("x".repeat(64).parse::<Name>(), Err(NameError::TooLong(63)));
        assert_eq!("a:".repeat(8).parse::<Name>(), Err(NameError::TooDeep(8)));
        assert!("service0".parse::<DeviceName>().is_ok());
        assert_eq!("a-b".parse::<DeviceName>(), Err(NameError::Character('-')));
        assert_eq!("0123456789abcdef".parse::<BridgeName>(), Err(NameError::TooLong(15)));
    }

    #[test]
    fn of_any_text_a_common_name_can_be_made() {
        assert_eq!(&*CommonName::lossy("Ada \u{1b}[31mLovelace\n"), "Ada [31mLovelace");
        assert_eq!(&*CommonName::lossy("\0\n"), "?");
        let long = CommonName::lossy(&"é".repeat(100));
        assert_eq!(long.len(), COMMON_NAME_BYTES_MAX);
        assert_eq!(long.parse::<CommonName>(), Ok(long));
    }

    #[test]
    fn a_volumes_file_is_called_as_the_volume_is_and_no_draft_is() {
        let name: Name = "acme:web:data".parse().unwrap();
        let file = VolumeName::from(&name);
        assert_eq!((&*file, file.volume()), ("acme:web:data", Some(name)));
        let draft = VolumeName::draft(u64::MAX);
        assert_eq!((draft.parse(), draft.volume()), (Ok(draft.clone()), None));
        for bad in ["", "~", "~a", "~1/2", "~123456789012345678901", "a~1", "..", "a/b", "a:..", "-a"] {
            assert!(bad.parse::<VolumeName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_ill_formed_name_does_not_decode() {
        let bytes = postcard::to_allocvec("../etc").unwrap();
        assert!(postcard::from_bytes::<Name>(&bytes).is_err());
    }
}
