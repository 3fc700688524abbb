//! TLS 1.3 record protection (RFC 8446, section 5.2) with AES-128-GCM, for rustls.
//!
//! An image passes through the control plane twice, deciphered from the client and enciphered to the shim, so
//! this is its hot path: in place, without a copy of its own.

use alloc::boxed::Box;

use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes128Gcm, Nonce as GcmNonce, Tag};
use rustls::crypto::cipher::{
    AeadKey, InboundOpaqueMessage, InboundPlainMessage, Iv, MessageDecrypter, MessageEncrypter, Nonce,
    OutboundOpaqueMessage, OutboundPlainMessage, PrefixedPayload, Tls13AeadAlgorithm,
    UnsupportedOperationError, make_tls13_aad,
};
use rustls::{ConnectionTrafficSecrets, ContentType, Error, ProtocolVersion};

const KEY_BYTES: usize = 16;
const TAG_BYTES: usize = 16;

pub(super) struct Aes128GcmSuite;

impl Tls13AeadAlgorithm for Aes128GcmSuite {
    fn encrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageEncrypter> {
        Box::new(RecordCipher::new(&key, iv))
    }

    fn decrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageDecrypter> {
        Box::new(RecordCipher::new(&key, iv))
    }

    fn key_len(&self) -> usize {
        KEY_BYTES
    }

    fn extract_keys(&self, _: AeadKey, _: Iv) -> Result<ConnectionTrafficSecrets, UnsupportedOperationError> {
        Err(UnsupportedOperationError)
    }
}

/// The key of one direction.
struct RecordCipher {
    key: Aes128Gcm,
    iv: Iv,
}

impl RecordCipher {
    fn new(key: &AeadKey, iv: Iv) -> Self {
        let key = Aes128Gcm::new_from_slice(key.as_ref()).expect("rustls gives a key of key_len() bytes");
        Self { key, iv }
    }

    fn nonce(&self, sequence: u64) -> [u8; 12] {
        Nonce::new(&self.iv, sequence).0
    }

    /// Enciphers `bytes` in place and returns the tag.
    fn seal(&self, sequence: u64, aad: &[u8], bytes: &mut [u8]) -> Result<Tag, Error> {
        let nonce = GcmNonce::from(self.nonce(sequence));
        self.key.encrypt_inout_detached(&nonce, aad, bytes.into()).map_err(|_| Error::EncryptError)
    }

    /// Deciphers `bytes` in place if the tag in its last bytes is right, and returns how many are plain.
    fn open(&self, sequence: u64, aad: &[u8], bytes: &mut [u8]) -> Result<usize, Error> {
        let (bytes, tag) = bytes.split_last_chunk_mut::<TAG_BYTES>().ok_or(Error::DecryptError)?;
        let nonce = GcmNonce::from(self.nonce(sequence));
        let tag = Tag::from(*tag);
        self.key
            .decrypt_inout_detached(&nonce, aad, (&mut *bytes).into(), &tag)
            .map_err(|_| Error::DecryptError)?;
        Ok(bytes.len())
    }
}

impl MessageEncrypter for RecordCipher {
    fn encrypt(
        &mut self,
        message: OutboundPlainMessage<'_>,
        sequence: u64,
    ) -> Result<OutboundOpaqueMessage, Error> {
        let length = self.encrypted_payload_len(message.payload.len());
        let mut payload = PrefixedPayload::with_capacity(length);
        payload.extend_from_chunks(&message.payload);
        payload.extend_from_slice(&message.typ.to_array());
        let tag = self.seal(sequence, &make_tls13_aad(length), payload.as_mut())?;
        payload.extend_from_slice(&tag);
        // The outer type and version of every protected record: RFC 8446, section 5.2.
        Ok(OutboundOpaqueMessage::new(ContentType::ApplicationData, ProtocolVersion::TLSv1_2, payload))
    }

    fn encrypted_payload_len(&self, payload_bytes: usize) -> usize {
        payload_bytes + 1 + TAG_BYTES
    }
}

impl MessageDecrypter for RecordCipher {
    fn decrypt<'a>(
        &mut self,
        mut message: InboundOpaqueMessage<'a>,
        sequence: u64,
    ) -> Result<InboundPlainMessage<'a>, Error> {
        let payload = &mut message.payload;
        let plain_bytes = self.open(sequence, &make_tls13_aad(payload.len()), payload)?;
        payload.truncate(plain_bytes);
        message.into_tls13_unpadded_message()
    }
}
