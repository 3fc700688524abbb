//! Both roles against rustls as everybody else uses it: with `std`, ring's provider and its own record layer.

use alloc::sync::Arc;
use alloc::{string::String, vec, vec::Vec};
use core::time::Duration;
use std::io::{Read, Write};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    PKCS_ED25519, PublicKeyData, date_time_ymd,
};
use rustls::crypto::ring::default_provider;
use rustls::{ClientConnection, Connection, ServerConnection};

use super::*;

/// 2026-06-01, within the certificates' validity.
pub(crate) const fn june() -> Duration {
    Duration::from_secs(1_780_272_000)
}

pub(crate) struct Ca {
    issuer: CertifiedIssuer<'static, KeyPair>,
    /// Its certificate and those above it, but for the root's.
    above: Vec<Vec<u8>>,
}

#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) certificate: Vec<u8>,
    /// What it presents beside.
    pub(crate) intermediates: Vec<Vec<u8>>,
    pub(crate) key: Vec<u8>,
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(vec![String::from("petrel")]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(2026, 1, 1);
    params.not_after = date_time_ymd(2027, 1, 1);
    params
}

impl Ca {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = params(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        Self { issuer: CertifiedIssuer::self_signed(params, key).unwrap(), above: Vec::new() }
    }

    /// A CA that this one has certified.
    fn delegate(&self, label: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = params(label);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        change(&mut params);
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let issuer = CertifiedIssuer::signed_by(params, key, &self.issuer).unwrap();
        let above = std::iter::once(issuer.der().to_vec()).chain(self.above.clone()).collect();
        Self { issuer, above }
    }

    pub(crate) fn der(&self) -> Vec<u8> {
        self.issuer.der().to_vec()
    }

    fn issue(&self, mut params: CertificateParams, purpose: ExtendedKeyUsagePurpose) -> Identity {
        params.extended_key_usages = vec![purpose];
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let certificate = certificate.der().to_vec();
        Identity { certificate, intermediates: self.above.clone(), key: key.serialize_der() }
    }

    pub(crate) fn client(&self, name: &str) -> Identity {
        self.issue(params(name), ExtendedKeyUsagePurpose::ClientAuth)
    }

    pub(crate) fn server(&self) -> Identity {
        self.issue(params("alpha"), ExtendedKeyUsagePurpose::ServerAuth)
    }
}

/// A host's CAs and the server made of them.
struct Fixture {
    operators: Ca,
    host: Ca,
    server: OperatorsServer,
}

impl Fixture {
    fn new() -> Self {
        Self::at(june)
    }

    fn at(clock: WallClock) -> Self {
        let (operators, host) = (Ca::new("operators"), Ca::new("host"));
        let server = host.server();
        let server = OperatorsServer::new(&server.certificate, &server.key, &operators.der(), clock).unwrap();
        Self { operators, host, server }
    }

    fn client(&self, identity: Option<Identity>, alpn: &[&[u8]]) -> Peer {
        client_connection(&self.host.der(), identity, alpn)
    }

    /// The outcome of a handshake with such a client: our channel, and what the client made of it.
    fn meet(&self, identity: Option<Identity>, alpn: &[&[u8]]) -> (SecureChannel, Result<(), rustls::Error>) {
        let mut channel = self.server.accept().unwrap();
        let mut client = self.client(identity, alpn);
        let outcome = pump(&mut channel, &mut client, usize::MAX);
        (channel, outcome)
    }
}

/// An operator's client that trusts the host's CA.
pub(crate) fn client_connection(host_ca: &[u8], identity: Option<Identity>, alpn: &[&[u8]]) -> Peer {
    let mut roots = RootCertStore::empty();
    roots.add(certificate_der(host_ca)).unwrap();
    let config = ClientConfig::builder_with_details(Arc::new(default_provider()), Arc::new(Clock(june)))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match identity {
        None => config.with_no_client_auth(),
        Some(Identity { certificate, intermediates, key }) => {
            let chain = std::iter::once(&certificate).chain(&intermediates);
            let chain = chain.map(|certificate| certificate_der(certificate)).collect();
            config.with_client_auth_cert(chain, private_key_der(&key)).unwrap()
        }
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Peer::new(ClientConnection::new(Arc::new(config), "petrel".try_into().unwrap()).unwrap())
}

/// The other end, and what it has read.
pub(crate) struct Peer {
    pub(crate) tls: Connection,
    pub(crate) read: Vec<u8>,
    pub(crate) closed: bool,
}

impl Peer {
    fn new(tls: impl Into<Connection>) -> Self {
        Self { tls: tls.into(), read: Vec::new(), closed: false }
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.tls.writer().write_all(bytes).unwrap();
    }

    /// The ciphertext it wants to send.
    pub(crate) fn ciphertext(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut bytes).unwrap();
        }
        bytes
    }

    pub(crate) fn receive(&mut self, mut ciphertext: &[u8]) -> Result<(), rustls::Error> {
        while !ciphertext.is_empty() {
            self.tls.read_tls(&mut ciphertext).unwrap();
            let state = self.tls.process_new_packets()?;
            let mut bytes = vec![0; state.plaintext_bytes_to_read()];
            self.tls.reader().read_exact(&mut bytes).unwrap();
            self.read.extend_from_slice(&bytes);
            self.closed |= state.peer_has_closed();
        }
        Ok(())
    }
}

/// Carries bytes both ways, at most `chunk` at once, until neither side has any.
fn pump(channel: &mut SecureChannel, peer: &mut Peer, chunk: usize) -> Result<(), rustls::Error> {
    loop {
        let to_channel = peer.ciphertext();
        let to_peer = channel.ciphertext().to_vec();
        channel.sent(to_peer.len());
        if to_channel.is_empty() && to_peer.is_empty() {
            return Ok(());
        }
        to_channel.chunks(chunk).for_each(|bytes| channel.receive(bytes));
        peer.receive(&to_peer)?;
    }
}

fn pattern(length: usize) -> Vec<u8> {
    (0..251).cycle().take(length).collect()
}

#[test]
fn given_an_operator_of_our_ca_then_the_session_opens_and_names_it() {
    let fixture = Fixture::new();
    let identity = fixture.operators.client("alice");
    let certificate = identity.certificate.clone();
    let (channel, outcome) = fixture.meet(Some(identity), &[ALPN]);
    assert_eq!((channel.state(), outcome), (&State::Open, Ok(())));
    assert_eq!(channel.peer(), Some(PeerIdentity { name: "alice".into(), chain: vec![certificate] }));
}

#[test]
fn data_of_all_sizes_passes_both_ways_however_it_is_cut() {
    let fixture = Fixture::new();
    for chunk in [1, 5, 1448, usize::MAX] {
        let mut channel = fixture.server.accept().unwrap();
        let mut client = fixture.client(Some(fixture.operators.client("alice")), &[ALPN]);
        pump(&mut channel, &mut client, chunk).unwrap();
        for length in [1, 16, 16 * 1024, 16 * 1024 + 1, 50_000] {
            client.write(&pattern(length));
            channel.send(&pattern(length));
            pump(&mut channel, &mut client, chunk).unwrap();
            assert_eq!(channel.plaintext(), pattern(length));
            channel.consume(length);
            assert_eq!(core::mem::take(&mut client.read), pattern(length));
        }
        client.tls.send_close_notify();
        pump(&mut channel, &mut client, chunk).unwrap();
        assert_eq!(channel.state(), &State::PeerClosed);
        channel.send(b"last words");
        channel.close();
        pump(&mut channel, &mut client, chunk).unwrap();
        assert_eq!((&client.read[..], client.closed), (&b"last words"[..], true));
    }
}

#[test]
fn a_key_update_of_the_peer_is_followed() {
    let fixture = Fixture::new();
    let mut channel = fixture.server.accept().unwrap();
    let mut client = fixture.client(Some(fixture.operators.client("alice")), &[ALPN]);
    pump(&mut channel, &mut client, usize::MAX).unwrap();
    for round in 0..3 {
        client.tls.refresh_traffic_keys().unwrap();
        client.write(b"after");
        pump(&mut channel, &mut client, 7).unwrap();
        assert_eq!(channel.plaintext(), b"after", "round {round}");
        channel.consume(5);
        channel.send(b"too");
        pump(&mut channel, &mut client, 7).unwrap();
        assert_eq!(core::mem::take(&mut client.read), b"too");
    }
}

/// The failure on our side, and the alert by which the client learnt of it.
fn refused(meeting: (SecureChannel, Result<(), rustls::Error>)) -> (Failure, rustls::AlertDescription) {
    match (meeting.0.state(), meeting.1) {
        (State::Failed(failure), Err(rustls::Error::AlertReceived(alert))) => {
            assert_eq!(meeting.0.peer(), None);
            (failure.clone(), alert)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn given_a_client_that_must_not_come_in_then_both_sides_learn_why() {
    use rustls::AlertDescription as Alert;
    let fixture = Fixture::new();
    for name in ["operators", "others"] {
        let stranger = Ca::new(name).client("mallory");
        assert_eq!(
            refused(fixture.meet(Some(stranger), &[ALPN])),
            (Failure::UnknownIssuer, Alert::UnknownCA)
        );
    }
    assert_eq!(refused(fixture.meet(None, &[ALPN])), (Failure::NoCertificate, Alert::CertificateRequired));
    let alice = fixture.operators.client("alice");
    assert_eq!(refused(fixture.meet(Some(alice), &[])), (Failure::Protocol, Alert::AccessDenied));
    let alice = fixture.operators.client("alice");
    assert_eq!(
        refused(fixture.meet(Some(alice), &[b"h2"])),
        (Failure::Protocol, Alert::NoApplicationProtocol)
    );
    let server = fixture.operators.issue(params("web"), ExtendedKeyUsagePurpose::ServerAuth);
    let (failure, alert) = refused(fixture.meet(Some(server), &[ALPN]));
    assert_eq!((failure, alert), (Failure::Purpose, Alert::UnsupportedCertificate));
}

#[test]
fn given_an_operator_below_other_cas_then_the_whole_path_is_known() {
    let fixture = Fixture::new();
    let mut ca = fixture.operators.delegate("l1", |_| {});
    for label in ["l2", "l3", "l4", "l5", "l6"] {
        ca = ca.delegate(label, |_| {});
    }
    let olga = ca.client("olga");
    let path: Vec<_> = std::iter::once(olga.certificate.clone()).chain(olga.intermediates.clone()).collect();
    assert_eq!(path.len(), petrel_wire::limits::CHAIN_CERTIFICATES_MAX);
    let (channel, outcome) = fixture.meet(Some(olga), &[ALPN]);
    assert_eq!((channel.state(), outcome), (&State::Open, Ok(())));
    assert_eq!(channel.peer().map(|peer| peer.chain), Some(path));
    let too_long = ca.delegate("l7", |_| {}).client("olga");
    assert_eq!(
        refused(fixture.meet(Some(too_long), &[ALPN])),
        (Failure::NotAPath, rustls::AlertDescription::AccessDenied)
    );
}

#[test]
fn given_certificates_that_are_not_exactly_the_path_then_they_are_refused() {
    use rustls::AlertDescription as Alert;
    let fixture = Fixture::new();
    let acme = fixture.operators.delegate("acme", |_| {});
    let web = acme.delegate("web", |_| {});
    let zeta = fixture.operators.delegate("zeta", |_| {});
    let olga = web.client("olga");
    let with = |intermediates: &[&Vec<u8>]| {
        let intermediates = intermediates.iter().map(|der| (*der).clone()).collect();
        refused(fixture.meet(Some(Identity { intermediates, ..olga.clone() }), &[ALPN]))
    };
    let [web_der, acme_der] = &web.above[..] else { unreachable!() };
    let not_a_path = (Failure::NotAPath, Alert::AccessDenied);
    assert_eq!(with(&[web_der, acme_der, &zeta.above[0]]), not_a_path, "one more behind");
    assert_eq!(with(&[&zeta.above[0], web_der, acme_der]), not_a_path, "one more in front");
    assert_eq!(with(&[acme_der, web_der]), not_a_path, "in another order");
    assert_eq!(with(&[web_der, web_der, acme_der]), not_a_path, "one twice");
    assert_eq!(with(&[web_der, acme_der, &fixture.operators.der()]), not_a_path, "the root, which is known");
    assert_eq!(with(&[web_der]), (Failure::UnknownIssuer, Alert::UnknownCA), "one too few");
    assert_eq!(with(&[]), (Failure::UnknownIssuer, Alert::UnknownCA));
}

#[test]
fn given_a_ca_that_must_not_certify_so_then_its_operators_are_refused() {
    use rustls::AlertDescription as Alert;
    let fixture = Fixture::new();
    let meet = |ca: &Ca| refused(fixture.meet(Some(ca.client("olga")), &[ALPN]));
    // An operator who certifies others, and a CA that may certify only operators.
    let no_ca = fixture.operators.delegate("acme", |params| params.is_ca = IsCa::ExplicitNoCa);
    assert_eq!(meet(&no_ca), (Failure::NotAPath, Alert::AccessDenied));
    let last = |params: &mut CertificateParams| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let below_last = fixture.operators.delegate("acme", last).delegate("web", |_| {});
    assert_eq!(meet(&below_last), (Failure::NotAPath, Alert::AccessDenied));
    let expired = |params: &mut CertificateParams| params.not_after = date_time_ymd(2026, 2, 1);
    let expired = fixture.operators.delegate("acme", expired);
    assert_eq!(meet(&expired), (Failure::Expired, Alert::CertificateExpired));
}

#[test]
fn given_a_clock_outside_the_certificates_validity_then_they_are_refused() {
    use rustls::AlertDescription as Alert;
    for (clock, expected) in [
        ((|| Duration::from_secs(1_900_000_000)) as WallClock, (Failure::Expired, Alert::CertificateExpired)),
        (|| Duration::from_secs(1_700_000_000), (Failure::NotYetValid, Alert::CertificateExpired)),
    ] {
        let fixture = Fixture::at(clock);
        let alice = fixture.operators.client("alice");
        assert_eq!(refused(fixture.meet(Some(alice), &[ALPN])), expected);
    }
}

#[test]
fn given_a_client_that_does_not_speak_tls_then_it_is_told_so() {
    let fixture = Fixture::new();
    for text in [&b"GET / HTTP/1.1\r\nHost: petrel\r\n\r\n"[..], b"SSH-2.0-OpenSSH_9.2\r\n", &[0xff; 100]] {
        let mut channel = fixture.server.accept().unwrap();
        channel.receive(text);
        assert_eq!(channel.state(), &State::Failed(Failure::NotTls), "{text:?}");
        assert_eq!(channel.ciphertext().first(), Some(&0x15), "an alert");
    }
}

#[test]
fn given_half_a_hello_then_the_channel_waits() {
    let fixture = Fixture::new();
    let hello = fixture.client(None, &[ALPN]).ciphertext();
    let mut channel = fixture.server.accept().unwrap();
    channel.receive(&hello[..hello.len() / 2]);
    assert_eq!((channel.state(), channel.ciphertext()), (&State::Handshaking, &[][..]));
}

#[test]
fn given_a_handshake_without_end_then_it_fails_before_it_fills_the_memory() {
    let fixture = Fixture::new();
    let mut channel = fixture.server.accept().unwrap();
    // A client hello of the greatest length, in records of the greatest size.
    let mut record = vec![0x16, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff];
    record.resize(5 + 0x4000, 0);
    for round in 0..64 {
        channel.receive(&record);
        assert!(channel.incoming_bytes() <= 80 * 1024, "round {round}");
    }
    assert!(matches!(channel.state(), State::Failed(_)), "{:?}", channel.state());
}

#[test]
fn a_record_that_was_changed_on_its_way_ends_the_connection() {
    let fixture = Fixture::new();
    let mut channel = fixture.server.accept().unwrap();
    let mut client = fixture.client(Some(fixture.operators.client("alice")), &[ALPN]);
    pump(&mut channel, &mut client, usize::MAX).unwrap();
    client.write(b"create");
    let mut record = client.ciphertext();
    *record.last_mut().unwrap() ^= 1;
    channel.receive(&record);
    assert!(matches!(channel.state(), State::Failed(Failure::Broken(_))), "{:?}", channel.state());
    assert_eq!(channel.plaintext(), b"");
}

#[test]
fn given_a_seal_with_damaged_keys_then_the_part_is_named() {
    let (operators, host) = (Ca::new("operators"), Ca::new("host"));
    let (server, other) = (host.server(), host.server());
    let made =
        |certificate, key, ca| OperatorsServer::new(certificate, key, ca, june).err().map(|error| error.part);
    let operators = operators.der();
    assert_eq!(made(&server.certificate, &server.key, &operators), None);
    assert_eq!(made(&server.certificate, &server.key, b"junk"), Some("operators' CA certificate"));
    assert_eq!(made(b"junk", &server.key, &operators), Some("server certificate or key"));
    assert_eq!(made(&server.certificate, &other.key, &operators), Some("server certificate or key"));
    assert_eq!(LinkClient::new(b"junk", b"").err().map(|error| error.part), Some("link key"));
}

/// The shim's side of the link.
pub(crate) fn shim_connection(key: &KeyPair, client_public_key: &[u8]) -> Peer {
    let config = petrel_link::server(default_provider(), &key.serialize_der(), client_public_key).unwrap();
    Peer::new(ServerConnection::new(Arc::new(config)).unwrap())
}

#[test]
fn given_the_shim_whose_key_is_pinned_then_the_link_opens_and_carries_data() {
    let ours = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let shims = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let client = LinkClient::new(&ours.serialize_der(), &shims.subject_public_key_info()).unwrap();
    let mut channel = client.connect().unwrap();
    let mut shim = shim_connection(&shims, &ours.subject_public_key_info());
    pump(&mut channel, &mut shim, 11).unwrap();
    assert_eq!(channel.state(), &State::Open);
    channel.send(&pattern(100_000));
    shim.write(&pattern(30_000));
    pump(&mut channel, &mut shim, usize::MAX).unwrap();
    assert_eq!(shim.read, pattern(100_000));
    assert_eq!(channel.plaintext(), pattern(30_000));
}

#[test]
fn given_another_key_on_either_side_of_the_link_then_it_does_not_open() {
    let keys: Vec<KeyPair> = (0..3).map(|_| KeyPair::generate_for(&PKCS_ED25519).unwrap()).collect();
    let [ours, shims, other] = &keys[..] else { unreachable!() };
    let connect = |pinned: &KeyPair| {
        LinkClient::new(&ours.serialize_der(), &pinned.subject_public_key_info()).unwrap().connect().unwrap()
    };

    let mut channel = connect(other);
    let mut shim = shim_connection(shims, &ours.subject_public_key_info());
    assert!(matches!(pump(&mut channel, &mut shim, usize::MAX), Err(rustls::Error::AlertReceived(_))));
    assert_eq!(channel.state(), &State::Failed(Failure::WrongKey));

    let mut channel = connect(shims);
    let mut shim = shim_connection(shims, &other.subject_public_key_info());
    pump(&mut channel, &mut shim, usize::MAX).unwrap_err();
    channel.receive(&shim.ciphertext());
    assert!(matches!(channel.state(), State::Failed(Failure::Alert(_))), "{:?}", channel.state());
}
