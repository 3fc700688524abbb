//! Frames of messages, inside TLS, inside TCP: what the link and the sessions have in common.

use alloc::vec::Vec;

use petrel_wire::frame::{self, FrameError, HEADER_BYTES};
use petrel_wire::limits::FRAME_BYTES_MAX;
use serde::Serialize;
use smoltcp::socket::tcp;

use crate::tls::{PeerIdentity, SecureChannel, State};

/// What is read from a socket at once, so that one busy peer does not keep the others waiting.
const READ_BYTES_MAX: usize = 32 * 1024;
/// With so much plaintext there is a whole frame, and no more is read before it has been used.
const PLAINTEXT_BYTES_MAX: usize = HEADER_BYTES + FRAME_BYTES_MAX;

/// One peer's connection above TCP. The socket belongs to the stack and is lent to each call.
pub struct Conversation {
    channel: SecureChannel,
}

impl Conversation {
    /// A conversation that begins with this handshake.
    pub fn new(channel: SecureChannel) -> Self {
        Self { channel }
    }

    /// How far TLS is.
    pub fn state(&self) -> &State {
        self.channel.state()
    }

    /// Who the peer has proved to be.
    pub fn peer(&self) -> Option<PeerIdentity> {
        self.channel.peer()
    }

    /// Takes from the socket what has come. Returns whether there was anything.
    pub fn read(&mut self, socket: &mut tcp::Socket<'_>) -> bool {
        let mut read = 0;
        while read < READ_BYTES_MAX && self.channel.plaintext().len() < PLAINTEXT_BYTES_MAX {
            // The ring's content is at most two slices.
            let count = socket.recv(|bytes| {
                self.channel.receive(bytes);
                (bytes.len(), bytes.len())
            });
            match count {
                Ok(count) if count > 0 => read += count,
                _ => break,
            }
        }
        read > 0
    }

    /// The payload of the next whole frame, and what to [consume](Self::consume) when it has been used.
    ///
    /// # Errors
    /// [`FrameError::TooLong`]: nothing after it can be read.
    pub fn frame(&self) -> Result<Option<(&[u8], usize)>, FrameError> {
        frame::split(self.channel.plaintext())
    }

    /// Drops `count` bytes: a frame that has been used.
    pub fn consume(&mut self, count: usize) {
        self.channel.consume(count);
    }

    /// Queues a message. `scratch` is emptied and used.
    pub fn send<T: Serialize>(&mut self, message: &T, scratch: &mut Vec<u8>) -> Result<(), FrameError> {
        scratch.clear();
        frame::encode(message, scratch)?;
        self.channel.send(scratch);
        Ok(())
    }

    /// Queues the end of the conversation.
    pub fn close(&mut self) {
        self.channel.close();
    }

    /// Hands to the socket what it has room for. Returns whether there was anything.
    pub fn write(&mut self, socket: &mut tcp::Socket<'_>) -> bool {
        if self.channel.ciphertext().is_empty() || !socket.can_send() {
            return false;
        }
        let written = socket.send_slice(self.channel.ciphertext()).unwrap_or(0);
        self.channel.sent(written);
        written > 0
    }

    /// The bytes that the socket had no room for yet.
    pub fn queued(&self) -> usize {
        self.channel.ciphertext().len()
    }
}
