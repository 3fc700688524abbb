//! Length-capped frames: a little-endian `u32` length, then so many bytes of one postcard message.
//!
//! The cap is checked on the length alone, before a byte of the payload is awaited or stored.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::limits::FRAME_BYTES_MAX;

/// The bytes before the payload.
pub const HEADER_BYTES: usize = 4;

/// Why a frame or its message was not accepted. The connection that sent it cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// The length exceeds [`FRAME_BYTES_MAX`].
    TooLong {
        /// What the header said, in bytes.
        claimed: u32,
    },
    /// The payload is not exactly one message of the expected type.
    Malformed,
}

impl core::fmt::Display for FrameError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::TooLong { claimed } => {
                write!(f, "a frame of {claimed} bytes, where at most {FRAME_BYTES_MAX} are allowed")
            }
            Self::Malformed => f.write_str("a frame that is not one well-formed message"),
        }
    }
}

impl core::error::Error for FrameError {}

/// Splits the first whole frame off `bytes`: its payload, and how many bytes of `bytes` it took.
/// `None` means that more bytes are needed.
pub fn split(bytes: &[u8]) -> Result<Option<(&[u8], usize)>, FrameError> {
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else { return Ok(None) };
    let claimed = u32::from_le_bytes(*header);
    let length = usize::try_from(claimed).unwrap_or(usize::MAX);
    if length > FRAME_BYTES_MAX {
        return Err(FrameError::TooLong { claimed });
    }
    Ok(rest.get(..length).map(|payload| (payload, HEADER_BYTES + length)))
}

/// Decodes the payload of a frame. Bytes left over are an error: no two readings of one frame.
pub fn decode<'a, T: Deserialize<'a>>(payload: &'a [u8]) -> Result<T, FrameError> {
    match postcard::take_from_bytes(payload) {
        Ok((message, [])) => Ok(message),
        _ => Err(FrameError::Malformed),
    }
}

/// Appends `message` to `out` as one frame. On error `out` is as it was.
///
/// # Errors
/// [`FrameError::TooLong`] if the message exceeds [`FRAME_BYTES_MAX`]; the bounds in [`crate::limits`] are
/// chosen so that none of ours does.
pub fn encode<T: Serialize>(message: &T, out: &mut Vec<u8>) -> Result<(), FrameError> {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER_BYTES]);
    let written = postcard::to_extend(message, Appender(out)).is_ok();
    let length = out.len() - start - HEADER_BYTES;
    match u32::try_from(length) {
        Ok(header) if written && length <= FRAME_BYTES_MAX => {
            out[start..start + HEADER_BYTES].copy_from_slice(&header.to_le_bytes());
            Ok(())
        }
        claimed => {
            out.truncate(start);
            Err(FrameError::TooLong { claimed: claimed.unwrap_or(u32::MAX) })
        }
    }
}

/// Lets postcard append to a borrowed vector.
struct Appender<'a>(&'a mut Vec<u8>);

impl Extend<u8> for Appender<'_> {
    fn extend<I: IntoIterator<Item = u8>>(&mut self, bytes: I) {
        self.0.extend(bytes);
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    #[test]
    fn a_frame_comes_back_whole_and_only_when_whole() {
        let mut bytes = Vec::new();
        encode(&(7u32, "seven"), &mut bytes).unwrap();
        encode(&(8u32, "eight"), &mut bytes).unwrap();
        let (payload, taken) = split(&bytes).unwrap().unwrap();
        assert_eq!(decode::<(u32, &str)>(payload), Ok((7, "seven")));
        for cut in 0..taken {
            assert_eq!(split(&bytes[..cut]), Ok(None));
        }
        let (payload, _) = split(&bytes[taken..]).unwrap().unwrap();
        assert_eq!(decode::<(u32, &str)>(payload), Ok((8, "eight")));
    }

    #[test]
    fn a_length_over_the_cap_is_refused_from_its_header_alone() {
        let claimed = 1u32 << 31;
        assert_eq!(split(&claimed.to_le_bytes()), Err(FrameError::TooLong { claimed }));
    }

    #[test]
    fn bytes_left_over_are_an_error() {
        assert_eq!(decode::<u8>(&[1, 2]), Err(FrameError::Malformed));
    }

    #[test]
    fn a_message_over_the_cap_leaves_the_buffer_as_it_was() {
        let mut bytes = vec![9];
        assert!(encode(&vec![0u8; FRAME_BYTES_MAX + 1], &mut bytes).is_err());
        assert_eq!(bytes, [9]);
    }
}
