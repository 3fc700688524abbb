//! Length-capped frames: a little-endian `u32` length, then so many bytes of one postcard message.
//!
//! The cap is checked on the length alone, before a byte of the payload is awaited or stored.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

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

/// What comes on a connection in pieces of any size: appended at the back, taken off the front message by message.
#[derive(Debug, Default)]
pub struct Inbox {
    bytes: Vec<u8>,
    /// The first so many bytes are done with. They are dropped when no whole frame is left, not one by one.
    done: usize,
}

impl Inbox {
    /// The vector to append to; what is in it must stay.
    pub fn back(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Takes the next message that has come whole.
    pub fn next_message<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        let Some((payload, taken)) = split(&self.bytes[self.done..])? else {
            self.bytes.drain(..self.done);
            self.done = 0;
            return Ok(None);
        };
        let message = decode(payload)?;
        self.done += taken;
        Ok(Some(message))
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
    fn an_inbox_gives_messages_in_order_however_their_bytes_come() {
        let mut bytes = Vec::new();
        for number in 0..1000u32 {
            encode(&(number, vec![7u8; 100]), &mut bytes).unwrap();
        }
        for piece in [1, 3, 104, 1000, bytes.len()] {
            let (mut inbox, mut expected) = (Inbox::default(), 0..1000);
            for piece in bytes.chunks(piece) {
                inbox.back().extend(piece);
                while let Some((number, _)) = inbox.next_message::<(u32, Vec<u8>)>().unwrap() {
                    assert_eq!(Some(number), expected.next());
                }
            }
            assert_eq!(expected.next(), None);
            assert!(inbox.back().is_empty());
        }
    }

    #[test]
    fn an_inbox_stops_at_a_message_that_is_none() {
        let mut inbox = Inbox::default();
        encode(&7u8, inbox.back()).unwrap();
        encode(&"eight", inbox.back()).unwrap();
        assert_eq!(inbox.next_message::<u8>(), Ok(Some(7)));
        assert_eq!(inbox.next_message::<u8>(), Err(FrameError::Malformed));
        assert_eq!(inbox.next_message::<u8>(), Err(FrameError::Malformed));
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
