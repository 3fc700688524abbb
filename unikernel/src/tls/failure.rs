//! Why a connection failed, in words for the log.

use alloc::string::String;
use core::fmt;

use rustls::{CertificateError, Error, InvalidMessage};

/// Why a connection failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// What the peer sent is not TLS.
    NotTls,
    /// The peer showed no certificate.
    NoCertificate,
    /// The peer's certificate does not chain to the CA that is trusted here.
    UnknownIssuer,
    /// The peer's certificate, or one of its chain, has expired.
    Expired,
    /// The peer's certificate, or one of its chain, is not valid yet.
    NotYetValid,
    /// The peer's certificate is not for clients.
    Purpose,
    /// What the peer showed are not the certificates of one path, each signed by the next and no others; or too many.
    NotAPath,
    /// The peer's certificate cannot be accepted for another reason.
    Certificate(String),
    /// The peer's public key is not the one that is pinned.
    WrongKey,
    /// The peer does not speak our protocol: no ALPN, or none that is spoken here.
    Protocol,
    /// The peer and we have no version, suite or group in common.
    Incompatible(String),
    /// The peer ended the handshake or the connection, and this is the alert it sent.
    Alert(String),
    /// The peer sent more than a handshake may hold, without getting any further.
    Oversized,
    /// The peer broke the protocol in another way, or a record was forged.
    Broken(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotTls => f.write_str("what the peer sends is not TLS"),
            Self::NoCertificate => f.write_str("the peer showed no certificate"),
            Self::UnknownIssuer => {
                f.write_str("the peer's certificate is not from the CA that is trusted here")
            }
            Self::Expired => f.write_str("the peer's certificate has expired"),
            Self::NotYetValid => f.write_str("the peer's certificate is not valid yet"),
            Self::Purpose => f.write_str("the peer's certificate is not for clients"),
            Self::NotAPath => {
                f.write_str("the peer's certificates are not one path to the CA that is trusted here")
            }
            Self::Certificate(reason) => write!(f, "the peer's certificate cannot be accepted: {reason}"),
            Self::WrongKey => f.write_str("the peer's public key is not the one in the seal"),
            Self::Protocol => f.write_str("the peer does not offer the protocol petrel/1 (ALPN)"),
            Self::Incompatible(reason) => write!(f, "no TLS 1.3 with the peer: {reason}"),
            Self::Alert(alert) => write!(f, "the peer refused: {alert}"),
            Self::Oversized => f.write_str("the peer sends more than a handshake may hold"),
            Self::Broken(reason) => write!(f, "the TLS connection is broken: {reason}"),
        }
    }
}

impl core::error::Error for Failure {}

/// What rustls says when the resolver has no certificate for a client: ours has none for one without ALPN.
const NO_CERTIFICATE_FOR_CLIENT: &str = "no server certificate chain resolved";

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::InvalidMessage(
                InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
            ) => Self::NotTls,
            Error::NoCertificatesPresented => Self::NoCertificate,
            Error::InvalidCertificate(error) => Self::from_certificate(error),
            Error::NoApplicationProtocol => Self::Protocol,
            Error::General(text) if text == NO_CERTIFICATE_FOR_CLIENT => Self::Protocol,
            Error::PeerIncompatible(reason) => Self::Incompatible(alloc::format!("{reason:?}")),
            Error::AlertReceived(alert) => Self::Alert(alloc::format!("{alert:?}")),
            error => Self::Broken(alloc::format!("{error}")),
        }
    }
}

impl Failure {
    fn from_certificate(error: CertificateError) -> Self {
        match error {
            CertificateError::UnknownIssuer => Self::UnknownIssuer,
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Self::NotYetValid,
            CertificateError::InvalidPurpose => Self::Purpose,
            CertificateError::ApplicationVerificationFailure => Self::NotAPath,
            CertificateError::NotValidForName => Self::WrongKey,
            error => Self::Certificate(alloc::format!("{error}")),
        }
    }
}
