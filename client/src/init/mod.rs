//! `petrel init`: everything that a new host and its operator need.
//!
//! ```text
//! DIR/ca/       ca.pem, ca-key.pem                            keep it off the host; signs operators and hosts
//! DIR/host/     shim.toml, seal.img, shim-key.der, control-plane-public.der     what the host needs
//! DIR/profile/  profile.toml, ca.pem, operator.pem, operator-key.pem            what the operator needs
//! ```
//!
//! All is made in a folder beside its place and renamed into it, so that it is there whole or not at all.

mod shim_toml;
mod staging;

use std::ffi::OsStr;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use petrel_wire::limits::SEAL_VERSION;
use petrel_wire::seal::{Addressing, Link, Seal, Service};

use crate::args::{Init, Ipv4};
use crate::failure::Failure;
use crate::image::Image;
use crate::keys::{Authority, LinkKey};
use crate::profile;
use shim_toml::Places;
use staging::Staging;

/// The shim's end of the link.
const SHIM_IPV4: Ipv4Addr = Ipv4Addr::new(169, 254, 25, 1);
/// The control plane's end of the link.
const CONTROL_PLANE_IPV4: Ipv4Addr = Ipv4Addr::new(169, 254, 25, 2);
const LINK_PREFIX: u8 = 30;
const SHIM_PORT: u16 = 1026;

/// What the profile says where the host has its address by DHCP.
const BY_NAME: &str = "\
# The host tells this name to DHCP servers, and many networks' DNS knows it then. Where it does not, put the address here that
# the host says on its console; the certificate is good for any.
";

impl Init {
    /// The control plane's address, if it is known.
    fn address(&self) -> Option<Ipv4Addr> {
        match self.ipv4 {
            Ipv4::Set((address, _)) => Some(address),
            Ipv4::Dhcp => None,
        }
    }
}

/// Runs the command; returns what to print. `profile` is the name to install the profile under.
pub fn run(args: &Init, profile: Option<&OsStr>) -> Result<String, Failure> {
    check_host(args)?;
    check_addresses(args)?;
    let places = if args.appliance { Places::of_an_appliance() } else { places(args)? };
    let install = if args.no_profile { None } else { place_of_profile(profile)? };

    let site = Staging::new(&args.dir)?;
    let mut made = make_keys(args)?;
    write_host(&site, args, &made, &places)?;
    site.folder("ca")?;
    site.write("ca/ca.pem", made.authority.certificate_pem().as_bytes())?;
    site.write("ca/ca-key.pem", made.authority.key_pem().as_bytes())?;
    let profile_files = profile_files(args, &mut made);
    site.folder("profile")?;
    for (name, text) in &profile_files {
        site.write(&format!("profile/{name}"), text.as_bytes())?;
    }
    let installed = match &install {
        Some(place) if !exists(place) => Some(install_profile(place, &profile_files)?),
        _ => None,
    };
    site.commit()?;
    if let Some(installed) = installed {
        installed.commit()?;
    }
    Ok(report(args, install.as_deref()))
}

/// The client verifies the host by this name, so it must be one that certificates know.
fn check_host(args: &Init) -> Result<(), Failure> {
    rustls::pki_types::DnsName::try_from(&*args.host).map(|_| ()).map_err(|_| {
        Failure::usage(
            format!("the host's name {:?} cannot stand in a certificate", &*args.host),
            "a DNS name, as alpha or alpha.example.org",
            "choose another --host",
        )
    })
}

fn check_addresses(args: &Init) -> Result<(), Failure> {
    let Ipv4::Set((address, prefix)) = args.ipv4 else {
        return match args.ipv4_gateway {
            None => Ok(()),
            Some(gateway) => Err(Failure::usage(
                format!("the gateway {gateway} is given, and DHCP names another"),
                "--ipv4-gateway with an address of its network, or neither",
                "leave --ipv4-gateway out",
            )),
        };
    };
    let network = |address: Ipv4Addr, prefix: u8| address.to_bits() >> (32 - u32::from(prefix));
    if let Some(gateway) = args.ipv4_gateway
        && (network(gateway, prefix) != network(address, prefix) || gateway == address)
    {
        return Err(Failure::usage(
            format!("the gateway {gateway} is not a neighbour of {address}/{prefix}"),
            "another address of the same network",
            "correct --ipv4-gateway or --ipv4",
        ));
    }
    let shorter = prefix.min(LINK_PREFIX);
    if network(address, shorter) == network(SHIM_IPV4, shorter) {
        return Err(Failure::usage(
            format!(
                "the network of {address}/{prefix} overlaps that of the link between shim and control plane"
            ),
            format!("a network apart from {SHIM_IPV4}/{LINK_PREFIX}"),
            "choose another --ipv4",
        ));
    }
    Ok(())
}

/// Where things are on a host that is this machine, or like it.
fn places(args: &Init) -> Result<Places, Failure> {
    let image = program(args.image.as_deref(), "petrel.hvt", "--image")?;
    let tender = program(args.tender.as_deref(), "petrel-tender", "--tender")?;
    Image::read(&image)?;
    Ok(Places { state_dir: "state".into(), state: "state.img".into(), image, tender })
}

/// The absolute path of a program that the host will use, which must be there.
fn program(given: Option<&Path>, name: &str, option: &str) -> Result<PathBuf, Failure> {
    let beside = || std::env::current_exe().ok().map(|own| own.with_file_name(name));
    let path = given.map(Path::to_path_buf).or_else(beside).unwrap_or_else(|| name.into());
    let absolute = std::fs::canonicalize(&path).ok().filter(|path| path.is_file());
    absolute.ok_or_else(|| {
        Failure::local(
            format!("there is no file {}", path.display()),
            format!("the host's {name}"),
            format!("give its path with {option}"),
        )
    })
}

/// Where the profile shall be installed; a name that was asked for must be free, `default` need not be.
fn place_of_profile(asked: Option<&OsStr>) -> Result<Option<PathBuf>, Failure> {
    if asked.is_some_and(|name| name.as_encoded_bytes().iter().any(|byte| matches!(byte, b'/' | b'.'))) {
        return Err(Failure::usage(
            "--profile names a path",
            "the bare name under which to install the operator's profile",
            "give a name, or --no-profile and copy DIR/profile where you like",
        ));
    }
    let place = profile::locate(Some(asked.unwrap_or(OsStr::new(profile::DEFAULT_NAME))))?;
    if asked.is_some() && exists(&place) {
        return Err(in_the_way(&place));
    }
    Ok(Some(place))
}

/// Whether something is there, a dangling link included.
fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

fn in_the_way(path: &Path) -> Failure {
    Failure::local(
        format!("{} exists already", path.display()),
        "a place where nothing is yet, since nothing is ever overwritten",
        "choose another place, or move that one away",
    )
}

struct Made {
    authority: Authority,
    server_certificate: Vec<u8>,
    server_key: Vec<u8>,
    operator_certificate_pem: String,
    operator_key_pem: String,
    shim: LinkKey,
    control_plane: LinkKey,
}

fn make_keys(args: &Init) -> Result<Made, Failure> {
    let make = || {
        let authority = Authority::new(&args.host)?;
        let server = authority.server(&args.host, args.address())?;
        let operator = authority.operator()?;
        Ok(Made {
            server_certificate: server.certificate.der().to_vec(),
            server_key: server.key.serialize_der(),
            operator_certificate_pem: operator.certificate.pem(),
            operator_key_pem: operator.key.serialize_pem(),
            shim: LinkKey::new()?,
            control_plane: LinkKey::new()?,
            authority,
        })
    };
    make().map_err(|error: rcgen::Error| {
        Failure::local(
            format!("no keys and certificates can be made ({error})"),
            "a source of randomness and a clock after 1970",
            "correct this machine's clock",
        )
    })
}

fn write_host(site: &Staging, args: &Init, made: &Made, places: &Places) -> Result<(), Failure> {
    let seal = Seal {
        version: SEAL_VERSION,
        host: args.host.clone(),
        service: Service {
            addressing: match args.ipv4 {
                Ipv4::Set(ipv4) => Addressing::Static { ipv4, gateway: args.ipv4_gateway },
                Ipv4::Dhcp => Addressing::Dhcp,
            },
            port: args.port,
            certificate: made.server_certificate.clone(),
            key: made.server_key.clone(),
            operators: made.authority.certificate_der().to_vec(),
        },
        link: Link {
            ipv4: (CONTROL_PLANE_IPV4, LINK_PREFIX),
            shim_ipv4: SHIM_IPV4,
            shim_port: SHIM_PORT,
            key: made.control_plane.private.clone(),
            shim_public_key: made.shim.public.clone(),
        },
    };
    let seal = seal.encode().map_err(|error| {
        Failure::local(format!("the seal cannot be made ({error})"), "one of 64 KiB at most", "report it")
    })?;
    site.folder("host")?;
    site.write("host/seal.img", &seal)?;
    site.write("host/shim-key.der", &made.shim.private)?;
    site.write("host/control-plane-public.der", &made.control_plane.public)?;
    site.write("host/shim.toml", shim_toml::render(args, places)?.as_bytes())
}

fn profile_files(args: &Init, made: &mut Made) -> [(&'static str, String); 4] {
    let profile = format!(
        "# Where the host is, and the name that its certificate must be for.\n{}address = \"{}:{}\"\nhost = \"{}\"\n",
        if args.address().is_some() { "" } else { BY_NAME },
        args.address().map_or_else(|| args.host.to_string(), |address| address.to_string()),
        args.port,
        args.host
    );
    [
        (profile::FILE_NAME, profile),
        ("ca.pem", made.authority.certificate_pem()),
        ("operator.pem", std::mem::take(&mut made.operator_certificate_pem)),
        ("operator-key.pem", std::mem::take(&mut made.operator_key_pem)),
    ]
}

fn install_profile(place: &Path, files: &[(&str, String)]) -> Result<Staging, Failure> {
    if let Some(folder) = place.parent() {
        staging::private_folder(folder, true)?;
    }
    let staged = Staging::new(place)?;
    for (name, text) in files {
        staged.write(name, text.as_bytes())?;
    }
    Ok(staged)
}

fn report(args: &Init, install: Option<&Path>) -> String {
    let dir = args.dir.display();
    let profile = match install {
        Some(place) if same_profile(place, &args.dir.join("profile")) => {
            format!("{dir}/profile/  the operator's profile, also installed as {}", place.display())
        }
        Some(place) => {
            format!("{dir}/profile/  the operator's profile; {} is another and stays", place.display())
        }
        None => format!("{dir}/profile/  the operator's profile: --profile {dir}/profile"),
    };
    let next = match args.appliance {
        true => format!("seal it: petrel seal {dir} FILE"),
        false => format!("petrel-shim --config {dir}/host/shim.toml"),
    };
    let found = match args.address() {
        Some(_) => String::new(),
        None => format!(
            "The profile reaches the host as {}:{}. If your network does not know that name, put the address that the host says \
             on its console into profile.toml.\n",
            args.host, args.port
        ),
    };
    format!(
        "{dir}/host/     for the host: {next}\n\
         {dir}/ca/       the CA of the operators: keep it off the host\n\
         {profile}\n{found}"
    )
}

fn same_profile(one: &Path, other: &Path) -> bool {
    let certificate = |folder: &Path| std::fs::read(folder.join("operator.pem")).ok();
    certificate(one).is_some_and(|bytes| Some(bytes) == certificate(other))
}
