//! The sealed host, verified: signed by the operators whom this image or this host's first boot has named, and for
//! this machine.

use std::fs;
use std::io::ErrorKind;

use petrel_wire::sealed::{Alleged, SealedHost};
use ring::signature::{ED25519, UnparsedPublicKey};

/// The public key of the operators' CA, where the image was made for one.
const OPERATORS: &str = "/petrel/operators.key";
const MACHINE: &str = "/sys/class/dmi/id/product_uuid";

/// A host that was signed, and who has signed it.
pub struct Identity {
    host: SealedHost,
    pub signer: [u8; 32],
}

impl std::ops::Deref for Identity {
    type Target = SealedHost;
    fn deref(&self) -> &SealedHost {
        &self.host
    }
}

/// Verifies what was found on a disk.
pub fn verify(image: &[u8]) -> Result<Identity, String> {
    let pinned = match fs::read(OPERATORS) {
        Ok(key) => Some(key),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(format!("{OPERATORS}: {error}")),
    };
    let machine = fs::read_to_string(MACHINE).unwrap_or_default();
    verify_for(image, pinned.as_deref(), machine.trim())
}

fn verify_for(image: &[u8], pinned: Option<&[u8]>, machine: &str) -> Result<Identity, String> {
    let alleged = Alleged::find(image).map_err(|error| error.to_string())?;
    if pinned.is_some_and(|key| key != alleged.signer) {
        return Err("it is signed by others than the operators that this image was made for".into());
    }
    UnparsedPublicKey::new(&ED25519, alleged.signer)
        .verify(alleged.signed, alleged.signature)
        .map_err(|_| "it was altered since it was signed: seal the host again".to_string())?;
    let host = alleged.decode().map_err(|error| error.to_string())?;
    match &host.machine {
        Some(wanted) if !wanted.eq_ignore_ascii_case(machine) => {
            Err(format!("it is for another machine, {wanted}; this is {machine}"))
        }
        _ => Ok(Identity { host, signer: *alleged.signer }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use petrel_wire::List;
    use petrel_wire::limits::SEALED_HOST_VERSION;
    use ring::signature::{Ed25519KeyPair, KeyPair};

    fn sealed(seed: u8, machine: Option<&str>) -> Vec<u8> {
        let key = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
        let host = SealedHost {
            version: SEALED_HOST_VERSION,
            host: "alpha".parse().unwrap(),
            machine: machine.map(Into::into),
            bridges: List::default(),
            shim_toml: String::new(),
            shim_key: Vec::new(),
            control_plane_public_key: Vec::new(),
            seal: vec![0; 512],
        };
        let signer = key.public_key().as_ref().try_into().unwrap();
        host.encode(&signer, |signed| key.sign(signed).as_ref().try_into().unwrap()).unwrap()
    }

    fn refusal(image: &[u8], pinned: Option<&[u8]>, machine: &str) -> String {
        verify_for(image, pinned, machine).err().expect("it is refused")
    }

    #[test]
    fn a_host_that_was_signed_is_what_it_says() {
        let image = sealed(1, None);
        let identity = verify_for(&image, None, "any").unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(&*identity.host.host, "alpha");
        assert!(verify_for(&image, Some(&identity.signer), "any").is_ok());
    }

    #[test]
    fn one_that_was_altered_anywhere_is_refused() {
        let image = sealed(1, None);
        let length = Alleged::find(&image).unwrap().signed.len() + 64;
        for at in 0..length {
            let mut altered = image.clone();
            altered[at] ^= 1;
            assert!(verify_for(&altered, None, "").is_err(), "byte {at}");
        }
    }

    #[test]
    fn one_of_other_operators_or_for_another_machine_is_refused() {
        let other = verify_for(&sealed(2, None), None, "").unwrap_or_else(|error| panic!("{error}")).signer;
        assert!(refusal(&sealed(1, None), Some(&other), "").contains("signed by others"));
        let here = "4c4c4544-0000-2010-8020-80c04f202020";
        assert!(verify_for(&sealed(1, Some(here)), None, &here.to_uppercase()).is_ok());
        assert!(refusal(&sealed(1, Some(here)), None, "another").contains("for another machine"));
    }
}
