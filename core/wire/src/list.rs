//! Sequences that know their bound.

use alloc::{string::String, vec::Vec};
use core::ops::Deref;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A vector of at most `N` entries; longer ones do not decode.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct List<T, const N: usize>(Vec<T>);

/// A sequence was longer than its bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong {
    /// The bound, in entries.
    pub max: usize,
}

impl<T, const N: usize> List<T, N> {
    /// The empty list.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// As many of `entries` as fit; the others are left in it.
    pub fn fill(entries: &mut impl Iterator<Item = T>) -> Self {
        Self(entries.take(N).collect())
    }

    /// As many of `entries` as fit, each as `show` has it, and whether there are others.
    pub fn page<E>(mut entries: impl Iterator<Item = E>, show: impl FnMut(E) -> T) -> (Self, bool) {
        (Self::fill(&mut entries.by_ref().map(show)), entries.next().is_some())
    }

    /// Appends `value`, or gives it back when the list is full.
    pub fn push(&mut self, value: T) -> Result<(), T> {
        if self.0.len() == N {
            return Err(value);
        }
        self.0.push(value);
        Ok(())
    }

    /// The entries, by value.
    pub fn into_vec(self) -> Vec<T> {
        self.0
    }
}

impl<T, const N: usize> Default for List<T, N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T, const N: usize> TryFrom<Vec<T>> for List<T, N> {
    type Error = TooLong;
    fn try_from(entries: Vec<T>) -> Result<Self, TooLong> {
        if entries.len() > N { Err(TooLong { max: N }) } else { Ok(Self(entries)) }
    }
}

impl<T, const N: usize> Deref for List<T, N> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<'a, T, const N: usize> IntoIterator for &'a List<T, N> {
    type Item = &'a T;
    type IntoIter = core::slice::Iter<'a, T>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl<T: Serialize, const N: usize> Serialize for List<T, N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de, T: Deserialize<'de>, const N: usize> Deserialize<'de> for List<T, N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let entries = Vec::deserialize(deserializer)?;
        Self::try_from(entries).map_err(|_| de::Error::custom("sequence over its bound"))
    }
}

/// At most `N` bytes, encoded as bytes rather than as a sequence of integers.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Blob<const N: usize>(Vec<u8>);

impl<const N: usize> Blob<N> {
    /// The bytes, by value.
    pub fn into_vec(self) -> Vec<u8> {
        self.0
    }
}

impl<const N: usize> TryFrom<Vec<u8>> for Blob<N> {
    type Error = TooLong;
    fn try_from(bytes: Vec<u8>) -> Result<Self, TooLong> {
        if bytes.len() > N { Err(TooLong { max: N }) } else { Ok(Self(bytes)) }
    }
}

impl<const N: usize> TryFrom<&[u8]> for Blob<N> {
    type Error = TooLong;
    fn try_from(bytes: &[u8]) -> Result<Self, TooLong> {
        Self::try_from(bytes.to_vec())
    }
}

impl<const N: usize> Deref for Blob<N> {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl<const N: usize> Serialize for Blob<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Human-readable formats (the client's --json) show text as text.
        if serializer.is_human_readable() {
            String::from_utf8_lossy(&self.0).serialize(serializer)
        } else {
            serializer.serialize_bytes(&self.0)
        }
    }
}

impl<'de, const N: usize> Deserialize<'de> for Blob<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes<const N: usize>;
        impl<const N: usize> de::Visitor<'_> for Bytes<N> {
            type Value = Blob<N>;
            fn expecting(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                write!(f, "at most {N} bytes")
            }
            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Blob<N>, E> {
                Blob::try_from(bytes).map_err(|_| E::invalid_length(bytes.len(), &self))
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    #[test]
    fn a_list_over_its_bound_does_not_decode() {
        let bytes = postcard::to_allocvec(&vec![1u8, 2, 3]).unwrap();
        assert_eq!(&*postcard::from_bytes::<List<u8, 3>>(&bytes).unwrap(), [1, 2, 3]);
        assert!(postcard::from_bytes::<List<u8, 2>>(&bytes).is_err());
    }

    #[test]
    fn a_list_takes_what_fits_and_leaves_the_rest() {
        let mut numbers = 0..5;
        assert_eq!(&*List::<_, 3>::fill(&mut numbers), [0, 1, 2]);
        assert_eq!(&*List::<_, 3>::fill(&mut numbers), [3, 4]);
    }

    #[test]
    fn a_blob_over_its_bound_does_not_decode() {
        let blob = Blob::<4>::try_from(&b"abcd"[..]).unwrap();
        let bytes = postcard::to_allocvec(&blob).unwrap();
        assert_eq!(postcard::from_bytes::<Blob<4>>(&bytes).unwrap(), blob);
        assert!(postcard::from_bytes::<Blob<3>>(&bytes).is_err());
    }
}
