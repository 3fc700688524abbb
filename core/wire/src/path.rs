//! Places in the tree of names.

use alloc::{borrow::Cow, format, string::String};
use core::{borrow::Borrow, fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::name::{Name, NameError, check_path};

/// A place in the tree of names, below which unikernels, volumes and further places lie: labels joined by `:`, the
/// outermost first, or the root, written `:`.
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Path(String);

impl Path {
    /// The place that all others lie below.
    pub const ROOT: Self = Self(String::new());

    /// Whether it is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Its labels joined by `:`; empty for the root.
    pub fn labels(&self) -> &str {
        &self.0
    }

    /// What the place or name `rest` is called seen from the root, if `rest` is how it is called seen from here.
    ///
    /// # Errors
    /// If that would exceed the bounds of such a name.
    pub fn join<T: FromStr<Err = NameError>>(&self, rest: &str) -> Result<T, NameError> {
        match (self.is_root(), rest.is_empty()) {
            (true, true) => ":".parse(),
            (true, false) => rest.parse(),
            (false, true) => self.0.parse(),
            (false, false) => format!("{}:{rest}", self.0).parse(),
        }
    }

    /// How `labels` is called seen from here: empty if it is this place, `None` if it does not lie below.
    pub fn relative<'a>(&self, labels: &'a str) -> Option<&'a str> {
        if self.is_root() {
            return Some(labels);
        }
        match labels.strip_prefix(&*self.0)? {
            "" => Some(""),
            rest => rest.strip_prefix(':'),
        }
    }

    /// A text that stands in front of all that lie below, which stand together, when texts are put in order.
    pub fn before_all_below(&self) -> Cow<'_, str> {
        if self.is_root() { "".into() } else { format!("{}:", self.0).into() }
    }

    /// Whether `labels` is this place or lies below it.
    pub fn holds(&self, labels: &str) -> bool {
        self.relative(labels).is_some()
    }

    /// Whether `labels` lies below it. What is called as a place is called belongs to the place above.
    pub fn is_above(&self, labels: &str) -> bool {
        self.relative(labels).is_some_and(|rest| !rest.is_empty())
    }
}

/// The paths that the unikernel or volume `name` lies below, from the root to the nearest, each as its labels: for
/// `acme:web:blog` the empty text, `acme` and `acme:web`.
pub fn ancestors(name: &str) -> impl Iterator<Item = &str> {
    core::iter::once("").chain(name.match_indices(':').map(|(end, _)| &name[..end]))
}

/// Tables of paths are searched by the ancestors of a name, which are slices of it.
impl Borrow<str> for Path {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// The place that a name is.
impl From<&Name> for Path {
    fn from(name: &Name) -> Self {
        Self(String::from(&**name))
    }
}

impl FromStr for Path {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        match text {
            ":" => Ok(Self::ROOT),
            text => check_path(text).map(|()| Self(text.into())),
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(if self.is_root() { ":" } else { &self.0 })
    }
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Path({self})")
    }
}

impl Serialize for Path {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(if self.is_root() { ":" } else { &self.0 })
    }
}

impl<'de> Deserialize<'de> for Path {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use alloc::{string::ToString, vec::Vec};

    use super::*;
    use crate::Name;

    fn path(text: &str) -> Path {
        text.parse().unwrap()
    }

    #[test]
    fn the_root_is_a_colon_and_nothing_else_is_empty() {
        assert_eq!((path(":"), path(":").to_string()), (Path::ROOT, ":".into()));
        for bad in ["", "::", ":a", "a:", "a/b", ".."] {
            assert!(bad.parse::<Path>().is_err(), "{bad:?}");
        }
        for good in [":", "acme", "acme:web"] {
            let bytes = postcard::to_allocvec(&path(good)).unwrap();
            assert_eq!(postcard::from_bytes::<Path>(&bytes).unwrap(), path(good));
        }
    }

    #[test]
    fn what_is_joined_is_relative_again() {
        for (from, rest, whole) in
            [(":", "web", "web"), ("acme", "web", "acme:web"), ("a:b", "c:d", "a:b:c:d")]
        {
            let name: Name = path(from).join(rest).unwrap();
            assert_eq!((&*name, path(from).relative(&name)), (whole, Some(rest)));
        }
        assert_eq!(path("acme").join::<Path>(""), Ok(path("acme")));
        assert_eq!((Path::ROOT.join("").ok(), Path::ROOT.join::<Name>("").ok()), (Some(Path::ROOT), None));
        assert_eq!(path("acme").relative("acme"), Some(""));
        assert!(path("acme").join::<Name>(&"x".repeat(127)).is_err(), "over the bound of a name");
    }

    #[test]
    fn a_name_lies_below_all_its_ancestors() {
        assert_eq!(ancestors("web").collect::<Vec<_>>(), [""]);
        assert_eq!(ancestors("acme:web:blog").collect::<Vec<_>>(), ["", "acme", "acme:web"]);
    }

    #[test]
    fn a_path_holds_what_lies_below_it_and_not_what_only_begins_alike() {
        assert!(path("acme").holds("acme:web") && path("acme").holds("acme") && path(":").holds("acme"));
        assert!(
            !path("acme").holds("acme2")
                && !path("acme").holds("acme2:web")
                && !path("acme:web").holds("acme")
        );
    }

    #[test]
    fn a_path_is_above_what_lies_below_it_and_not_above_itself() {
        assert!(path("acme").is_above("acme:web") && path(":").is_above("acme"));
        assert!(!path("acme").is_above("acme") && !path("acme").is_above("acme2") && !path(":").is_above(""));
    }
}
