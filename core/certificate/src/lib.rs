//! What an operator's certificates say.
//!
//! The engine reads here what a session may do, the client what it signs and shows. Nothing here verifies a
//! signature: the engine gets chains that TLS has verified.
//!
//! | extension | where | what |
//! |---|---|---|
//! | [`POLICY_OID`] | a CA's certificate | what all below the CA's path may have, in albatross's ASN.1 |
//! | [`RIGHTS_OID`] | any certificate | what the holder, and whom it certifies, may do |
//!
//! Both only ever narrow: a certificate without them has what its issuer has.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod certificate;
mod chain;
mod extension;

pub use certificate::Certificate;
pub use chain::{Chain, Link, scope};
pub use extension::{NotExpressible, policy_extension, read_policy, read_rights, rights_extension};

/// albatross's extension: 1.3.6.1.4.1.49836.42.
pub const POLICY_OID: [u64; 8] = [1, 3, 6, 1, 4, 1, 49_836, 42];

/// Petrel's own extension with a certificate's rights.
///
/// It is made of the UUID 9f6425dc-0c4c-43e9-8860-fc345650d789, in the way that Microsoft published for objects that
/// have no registered number. An arc below 2.25 would hold the UUID in one piece of 128 bits, which most X.509
/// libraries cannot read, MirageOS's among them: they would refuse the whole certificate.
pub const RIGHTS_OID: [u64; 14] =
    [1, 2, 840, 113_556, 1, 8000, 2554, 40_804, 9692, 3148, 17_385, 34_912, 16_528_470, 5_298_057];
