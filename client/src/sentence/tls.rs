//! Why the two sides do not trust each other, or do not understand each other.

use petrel_wire::limits::CHAIN_CERTIFICATES_MAX;
use rustls::{AlertDescription, CertificateError, PeerIncompatible};

use super::{Sentence, say};

/// The sentence for what TLS says.
pub(super) fn tls(address: &str, fault: &rustls::Error) -> Sentence {
    match fault {
        rustls::Error::InvalidCertificate(error) => server_certificate(address, error),
        rustls::Error::NoCertificatesPresented => {
            server_certificate(address, &CertificateError::ApplicationVerificationFailure)
        }
        rustls::Error::AlertReceived(alert) => alert_received(address, *alert),
        rustls::Error::InvalidMessage(_)
        | rustls::Error::InappropriateMessage { .. }
        | rustls::Error::PeerSentOversizedRecord => say(
            format!("{address} does not speak TLS"),
            "a control plane, which speaks nothing else",
            "correct address and port in the profile",
        ),
        rustls::Error::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13)
        | rustls::Error::PeerIncompatible(PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig) => {
            old_tls(address)
        }
        other => say(
            format!("TLS with {address} failed ({other})"),
            "a TLS 1.3 session",
            "try again; if it persists, see who stands between this machine and the host",
        ),
    }
}

fn server_certificate(address: &str, error: &CertificateError) -> Sentence {
    match error {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => say(
            format!("the host at {address} is not to be trusted: another CA signed its certificate"),
            "one signed by the CA in the profile",
            "use the profile that was made for this host; if the host was made anew, fetch its new profile",
        ),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => say(
            format!("the certificate of the host at {address} has expired"),
            "one that is valid now",
            "have the host's seal renewed; if it should be valid, correct this machine's clock",
        ),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => say(
            format!("the certificate of the host at {address} is not valid yet"),
            "one that is valid now",
            "correct this machine's clock",
        ),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => say(
            format!("the host at {address} is another one ({error})"),
            "the host that the profile names",
            "correct the address or the host in the profile",
        ),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => say(
            format!("who answers at {address} has a certificate that is not a server's"),
            "the host's own certificate",
            "do not go on: somebody with an operator's certificate may pose as the host",
        ),
        other => say(
            format!("the certificate of the host at {address} is not acceptable ({other})"),
            "the certificate that `petrel init` made for it",
            "have the host's seal made anew",
        ),
    }
}

fn alert_received(address: &str, alert: AlertDescription) -> Sentence {
    match alert {
        AlertDescription::UnsupportedCertificate => say(
            format!("the host at {address} says that this operator's certificate is not for clients"),
            "one that is no CA's, with the extended key usage clientAuth",
            "have a certificate signed by `petrel cert sign`",
        ),
        AlertDescription::AccessDenied => say(
            format!("the host at {address} finds no way along this operator's certificates to its CA"),
            format!(
                "at most {CHAIN_CERTIFICATES_MAX} certificates, each signed by the CA whose certificate comes next, the last by \
                 the host's CA, and no others"
            ),
            "see `petrel cert show` for the chain in the profile, and take from it what does not belong there",
        ),
        AlertDescription::BadCertificate => say(
            format!("the host at {address} cannot read a certificate of this operator's"),
            "X.509 with Ed25519 keys, and no critical extension that the host does not know",
            "have it signed anew, for an Ed25519 key",
        ),
        AlertDescription::UnknownCA
        | AlertDescription::CertificateUnknown
        | AlertDescription::DecryptError => say(
            format!("the host at {address} does not trust this operator's certificate"),
            "one signed by the CA of the host's operators",
            "use the profile that was made for this host, or have its owner sign a certificate for you",
        ),
        AlertDescription::CertificateExpired => say(
            format!(
                "the host at {address} says that this operator's certificate has expired, or is not valid yet"
            ),
            "a chain of certificates that are all valid by the host's clock",
            "have it signed anew by `petrel cert renew`; if it should be valid, correct the host's clock",
        ),
        AlertDescription::CertificateRevoked => say(
            format!("the host at {address} says that this operator's certificate is revoked"),
            "one that is valid",
            "ask the host's owner for a new one",
        ),
        AlertDescription::CertificateRequired => say(
            format!("the host at {address} denies access ({alert:?})"),
            "the certificate of one of its operators",
            "ask the host's owner for one",
        ),
        AlertDescription::NoApplicationProtocol => not_petrel(address),
        AlertDescription::ProtocolVersion | AlertDescription::HandshakeFailure => old_tls(address),
        other => say(
            format!("the peer at {address} broke TLS off ({other:?})"),
            "a control plane of this release of Petrel",
            "correct the address in the profile, or use the same release on both sides",
        ),
    }
}

fn old_tls(address: &str) -> Sentence {
    say(
        format!("the peer at {address} and this client have no TLS version or cipher in common"),
        "a control plane, which speaks TLS 1.3",
        "correct address and port in the profile",
    )
}

/// The sentence for a TLS server of another kind.
pub(super) fn not_petrel(address: &str) -> Sentence {
    say(
        format!("{address} speaks TLS, but not Petrel's protocol"),
        "a control plane",
        "correct address and port in the profile",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_failures_are_told_apart() {
        use rustls::Error as Tls;
        let faults = [
            Tls::InvalidCertificate(CertificateError::UnknownIssuer),
            Tls::InvalidCertificate(CertificateError::Expired),
            Tls::InvalidCertificate(CertificateError::NotValidForName),
            Tls::AlertReceived(AlertDescription::UnknownCA),
            Tls::AlertReceived(AlertDescription::CertificateExpired),
            Tls::AlertReceived(AlertDescription::UnsupportedCertificate),
            Tls::AlertReceived(AlertDescription::AccessDenied),
            Tls::AlertReceived(AlertDescription::BadCertificate),
            Tls::AlertReceived(AlertDescription::NoApplicationProtocol),
            Tls::AlertReceived(AlertDescription::ProtocolVersion),
            Tls::InvalidMessage(rustls::InvalidMessage::InvalidContentType),
        ];
        let said: std::collections::HashSet<_> = faults.iter().map(|fault| tls("a:1", fault).wrong).collect();
        assert_eq!(said.len(), faults.len());
    }
}
