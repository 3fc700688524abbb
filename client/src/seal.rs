//! `petrel seal`: all that an appliance needs to be one host, signed by its operators' CA.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use petrel_wire::limits::SEALED_HOST_VERSION;
use petrel_wire::seal;
use petrel_wire::sealed::{Bridge, SealedHost, Uplink};
use petrel_wire::{BridgeName, List};
use ring::signature::{Ed25519KeyPair, KeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;

use crate::args::Seal;
use crate::cert::files;
use crate::failure::Failure;

/// What of an appliance's image is for the sealed host.
const PARTITION: &str = "petrel-seal";

/// What of `shim.toml` says which bridges there are.
#[derive(Deserialize)]
struct ShimToml {
    bridges: Vec<BridgeName>,
}

/// Runs the command; returns what to print.
pub fn run(args: &Seal) -> Result<String, Failure> {
    let host = sealed_host(args)?;
    let key = authority(&args.site.join("ca/ca-key.pem"))?;
    let signer = key.public_key().as_ref().first_chunk().copied().unwrap_or_default();
    let sign = |signed: &[u8]| key.sign(signed).as_ref().first_chunk().copied().unwrap_or([0; 64]);
    let image = host.encode(&signer, sign).map_err(|error| {
        Failure::local(format!("the host cannot be sealed ({error})"), "256 KiB at most", "shorten shim.toml")
    })?;
    match place(&args.to)? {
        Some((offset, bytes)) => write_into(&args.to, &image, offset, bytes)?,
        None => files::write_new(&args.to, &image)?,
    }
    Ok(format!("{} is sealed in {}: it holds private keys\n", host.host, args.to.display()))
}

/// Where in an appliance's image or disk the sealed host goes, and how many bytes there is room for; nothing if there is no
/// such file yet.
fn place(path: &Path) -> Result<Option<(u64, u64)>, Failure> {
    if !path.try_exists().map_err(|error| unwritable(path, &error.to_string()))? {
        return Ok(None);
    }
    let table = gpt::GptConfig::new().writable(false).open(path);
    let table = table.map_err(|error| unwritable(path, &error.to_string()))?;
    let mut partitions = table.partitions().values();
    let Some(seal) = partitions.find(|partition| partition.name == PARTITION) else {
        return Err(unwritable(path, &format!("it has no partition {PARTITION}")));
    };
    let size = *table.logical_block_size();
    let both = seal.bytes_start(size).and_then(|start| Ok((start, seal.bytes_len(size)?)));
    both.map(Some).map_err(|error| unwritable(path, &error.to_string()))
}

fn write_into(path: &Path, image: &[u8], offset: u64, bytes: u64) -> Result<(), Failure> {
    if image.len() as u64 > bytes {
        return Err(unwritable(path, &format!("its partition {PARTITION} is too small")));
    }
    let file = OpenOptions::new().write(true).open(path);
    let written = file.and_then(|file| file.write_all_at(image, offset).and_then(|()| file.sync_all()));
    written.map_err(|error| unwritable(path, &error.to_string()))
}

fn unwritable(path: &Path, why: &str) -> Failure {
    Failure::local(
        format!("the sealed host cannot be written to {} ({why})", path.display()),
        "the image of an appliance or a disk that it was written to, or the name of a file that is to be made",
        "correct the path",
    )
}

fn sealed_host(args: &Seal) -> Result<SealedHost, Failure> {
    let folder = args.site.join("host");
    let file = |name: &str| {
        let path = folder.join(name);
        fs::read(&path).map_err(|error| unusable(&path, &error.to_string()))
    };
    let seal = file("seal.img")?;
    let about_seal = |error: seal::SealError| unusable(&folder.join("seal.img"), &error.to_string());
    let told = seal::Seal::decode(&seal).map_err(about_seal)?;
    let toml_path = folder.join("shim.toml");
    let toml =
        String::from_utf8(file("shim.toml")?).map_err(|error| unusable(&toml_path, &error.to_string()))?;
    let said: ShimToml = toml::from_str(&toml).map_err(|error| unusable(&toml_path, &error.to_string()))?;
    Ok(SealedHost {
        version: SEALED_HOST_VERSION,
        host: told.host,
        machine: args.machine.clone(),
        bridges: bridges(&said.bridges, &args.uplink)?,
        shim_toml: toml,
        shim_key: file("shim-key.der")?,
        control_plane_public_key: file("control-plane-public.der")?,
        seal,
    })
}

/// Each bridge with its uplink.
fn bridges<const N: usize>(names: &[BridgeName], given: &[Bridge]) -> Result<List<Bridge, N>, Failure> {
    if let Some(stray) = given.iter().find(|bridge| !names.contains(&bridge.name)) {
        return Err(Failure::usage(
            format!("there is no bridge {:?} in shim.toml", &*stray.name),
            format!("one of: {}", names.join(", ")),
            "correct --uplink",
        ));
    }
    let with_uplink = names.iter().enumerate().map(|(number, name)| {
        let given = given.iter().find(|bridge| bridge.name == *name).map(|bridge| bridge.uplink);
        let usual = if number == 0 { Uplink::First } else { Uplink::None };
        Bridge { name: name.clone(), uplink: given.unwrap_or(usual) }
    });
    List::try_from(with_uplink.collect::<Vec<_>>()).map_err(|_| {
        Failure::local("there are too many bridges", format!("{N} at most"), "take some out of shim.toml")
    })
}

pub fn authority(path: &Path) -> Result<Ed25519KeyPair, Failure> {
    let pem = files::read(path)?;
    let key = PrivatePkcs8KeyDer::from_pem_slice(&pem).map_err(|error| unusable(path, &error.to_string()))?;
    // The public key is not in the form that `petrel init` writes: it is derived.
    Ed25519KeyPair::from_pkcs8_maybe_unchecked(key.secret_pkcs8_der())
        .map_err(|error| unusable(path, &error.to_string()))
}

fn unusable(path: &Path, why: &str) -> Failure {
    Failure::local(
        format!("{} cannot be used ({why})", path.display()),
        "the folder that `petrel init --appliance` has made",
        "correct the path, or make the site anew",
    )
}
