//! Clients that are known by the CA of their certificates.

use alloc::vec::Vec;

use petrel_wire::limits::CHAIN_CERTIFICATES_MAX;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::verify_tls13_signature;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible, RootCertStore,
    SignatureScheme,
};
use webpki::{EndEntityCert, KeyUsage};

use super::provider::SIGNATURES;

/// Accepts a client whose certificate leads to the operators' CA by way of exactly the certificates that it presents.
///
/// What the engine gets is what the client presented. So each certificate of it must be one of the path that was
/// verified, and in its place: one more could lend the client a label, a policy or a right that nobody gave it.
#[derive(Debug)]
pub(super) struct OperatorsCa {
    roots: RootCertStore,
    hints: Vec<DistinguishedName>,
}

impl OperatorsCa {
    pub(super) fn new(roots: RootCertStore) -> Self {
        Self { hints: roots.subjects(), roots }
    }
}

impl ClientCertVerifier for OperatorsCa {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if 1 + intermediates.len() > CHAIN_CERTIFICATES_MAX {
            return Err(NOT_A_PATH.into());
        }
        let certificate = EndEntityCert::try_from(end_entity).map_err(reason)?;
        let (usage, roots) = (KeyUsage::client_auth(), &self.roots.roots);
        let path = certificate
            .verify_for_usage(SIGNATURES.all, roots, intermediates, now, usage, None, None)
            .map_err(reason)?;
        let verified = path.intermediate_certificates().map(|certificate| certificate.der());
        if !verified.eq(intermediates.iter().map(|der| CertificateDer::from(der.as_ref()))) {
            return Err(NOT_A_PATH.into());
        }
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(PeerIncompatible::Tls13RequiredForQuic))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &SIGNATURES)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SIGNATURES.supported_schemes()
    }
}

/// The certificates are not one path. The client learns it by the alert access_denied, which none of the other
/// reasons leads to.
const NOT_A_PATH: CertificateError = CertificateError::ApplicationVerificationFailure;

/// The reason in rustls's words, which decide the alert that tells the client.
fn reason(error: webpki::Error) -> Error {
    use webpki::Error as Webpki;
    let reason = match error {
        Webpki::CertNotValidYet { .. } => CertificateError::NotValidYet,
        Webpki::CertExpired { .. } | Webpki::InvalidCertValidity => CertificateError::Expired,
        // All CAs of operators may have the same name, so a certificate of another one looks like one of ours with a
        // bad signature; its holder is told what it really is.
        Webpki::UnknownIssuer | Webpki::InvalidSignatureForPublicKey => CertificateError::UnknownIssuer,
        Webpki::CaUsedAsEndEntity | Webpki::EmptyEkuExtension | Webpki::RequiredEkuNotFoundContext(_) => {
            CertificateError::InvalidPurpose
        }
        Webpki::EndEntityUsedAsCa
        | Webpki::MaximumPathBuildCallsExceeded
        | Webpki::MaximumPathDepthExceeded
        | Webpki::MaximumSignatureChecksExceeded
        | Webpki::NameConstraintViolation
        | Webpki::PathLenConstraintViolated => NOT_A_PATH,
        Webpki::UnsupportedCriticalExtension => CertificateError::UnhandledCriticalExtension,
        _ => CertificateError::BadEncoding,
    };
    reason.into()
}
