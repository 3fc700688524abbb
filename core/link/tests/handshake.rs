//! Both sides of the link against each other, in memory.

use std::io::{Read, Write};
use std::sync::Arc;

use rcgen::{KeyPair, PKCS_ED25519, PublicKeyData};
use rustls::crypto::ring::default_provider;
use rustls::{ClientConnection, Connection, Error, HandshakeKind, ServerConnection};

fn key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ED25519).unwrap()
}

/// A control plane and a shim, each with the key that it pins.
fn ends(control_plane: (&KeyPair, &KeyPair), shim: (&KeyPair, &KeyPair)) -> (Connection, Connection) {
    let pinned = |(own, peer): (&KeyPair, &KeyPair)| (own.serialize_der(), peer.subject_public_key_info());
    let (own, peer) = pinned(control_plane);
    let client = petrel_link::client(default_provider(), &own, &peer).unwrap();
    let (own, peer) = pinned(shim);
    let server = petrel_link::server(default_provider(), &own, &peer).unwrap();
    let client = ClientConnection::new(Arc::new(client), "shim".try_into().unwrap()).unwrap();
    (client.into(), ServerConnection::new(Arc::new(server)).unwrap().into())
}

/// Carries bytes to and fro until none are left.
fn pump(client: &mut Connection, server: &mut Connection) -> Result<(), Error> {
    while client.wants_write() || server.wants_write() {
        carry(client, server)?;
        carry(server, client)?;
    }
    Ok(())
}

fn carry(from: &mut Connection, to: &mut Connection) -> Result<(), Error> {
    let mut bytes = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut bytes).unwrap();
    }
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        to.read_tls(&mut rest).unwrap();
        to.process_new_packets()?;
    }
    Ok(())
}

#[test]
fn given_two_keys_that_pin_each_other_then_bytes_go_both_ways() {
    let (ours, shims) = (key(), key());
    let (mut control_plane, mut shim) = ends((&ours, &shims), (&shims, &ours));
    control_plane.writer().write_all(b"request").unwrap();
    pump(&mut control_plane, &mut shim).unwrap();
    shim.writer().write_all(b"reply").unwrap();
    pump(&mut control_plane, &mut shim).unwrap();
    let mut read = [0; 7];
    shim.reader().read_exact(&mut read).unwrap();
    assert_eq!(&read, b"request");
    control_plane.reader().read_exact(&mut read[..5]).unwrap();
    assert_eq!(&read[..5], b"reply");
}

#[test]
fn given_another_key_than_the_pinned_one_on_either_side_then_it_does_not_open() {
    let (ours, shims, other) = (key(), key(), key());
    for (control_plane, shim) in [((&ours, &other), (&shims, &ours)), ((&ours, &shims), (&shims, &other))] {
        let (mut control_plane, mut shim) = ends(control_plane, shim);
        let refused = pump(&mut control_plane, &mut shim).unwrap_err();
        assert!(matches!(refused, Error::InvalidCertificate(_)), "{refused}");
    }
}

#[test]
fn given_an_earlier_connection_then_the_next_one_still_proves_both_keys() {
    let (ours, shims) = (key(), key());
    let client =
        petrel_link::client(default_provider(), &ours.serialize_der(), &shims.subject_public_key_info());
    let server =
        petrel_link::server(default_provider(), &shims.serialize_der(), &ours.subject_public_key_info());
    let (client, server) = (Arc::new(client.unwrap()), Arc::new(server.unwrap()));
    for _ in 0..2 {
        let mut control_plane =
            ClientConnection::new(client.clone(), "shim".try_into().unwrap()).unwrap().into();
        let mut shim = ServerConnection::new(server.clone()).unwrap().into();
        pump(&mut control_plane, &mut shim).unwrap();
        assert_eq!(shim.handshake_kind(), Some(HandshakeKind::Full));
    }
}

#[test]
fn a_private_key_that_is_none_is_refused() {
    let public = key().subject_public_key_info();
    assert!(petrel_link::server(default_provider(), b"junk", &public).is_err());
    assert!(petrel_link::client(default_provider(), b"junk", &public).is_err());
}
