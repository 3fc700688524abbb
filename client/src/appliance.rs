//! `petrel appliance`: what is asked of the machine itself, and new systems for it.

use std::path::Path;
use std::str::FromStr;
use std::thread::sleep;
use std::time::Instant;

use petrel_wire::limits::VOLUME_BLOCK_BYTES;
use petrel_wire::operator::{Request, Response, VolumeRequest};
use petrel_wire::{ApplianceOp, Digest, Name, UPGRADE_VOLUME};
use ring::digest::{SHA256, digest};
use ring::signature::KeyPair;

use crate::args::ApplianceVerb;
use crate::cert::files;
use crate::cli::stray;
use crate::failure::Failure;
use crate::limits::{UPGRADE_POLL, UPGRADE_TIMEOUT};
use crate::seal::authority;
use crate::session::Session;

/// What stands before the signer's key and signature at the end of a signed system.
const MARK: &[u8] = b"PETRSYST";
/// It, the key and the signature.
const TRAILER_BYTES: usize = 8 + 32 + 64;

/// Runs the command; returns what to print.
pub fn run(verb: &ApplianceVerb, open: impl Fn() -> Result<Session, Failure>) -> Result<String, Failure> {
    let order = |op| ask(&mut open()?, op).map(|_| String::new());
    match verb {
        ApplianceVerb::Status => ask(&mut open()?, ApplianceOp::Status),
        ApplianceVerb::Log => ask(&mut open()?, ApplianceOp::Log),
        ApplianceVerb::Reboot => order(ApplianceOp::Reboot),
        ApplianceVerb::PowerOff => order(ApplianceOp::PowerOff),
        ApplianceVerb::Confirm => order(ApplianceOp::Confirm),
        ApplianceVerb::Sign { site, system, to } => sign(site, system, to),
        ApplianceVerb::Upgrade { system } => upgrade(system, open),
    }
}

fn ask(session: &mut Session, op: ApplianceOp) -> Result<String, Failure> {
    match session.request(Request::Appliance(op))? {
        Response::Appliance(text) => Ok(String::from_utf8_lossy(&text).into_owned()),
        _ => Err(stray()),
    }
}

fn sign(site: &Path, system: &Path, to: &Path) -> Result<String, Failure> {
    let key = authority(&site.join("ca/ca-key.pem"))?;
    let mut bytes = read(system)?;
    // It goes to the host in a volume, which is a whole number of blocks: what is filled up is behind all that EFI reads.
    let block = usize::try_from(VOLUME_BLOCK_BYTES).unwrap_or(1);
    bytes.resize((bytes.len() + TRAILER_BYTES).next_multiple_of(block) - TRAILER_BYTES, 0);
    let mut signed = [&bytes, MARK, key.public_key().as_ref()].concat();
    let signature = key.sign(&signed);
    signed.extend_from_slice(signature.as_ref());
    files::write_new(to, &signed)?;
    Ok(format!("{} is signed in {}\n", system.display(), to.display()))
}

fn upgrade(system: &Path, open: impl Fn() -> Result<Session, Failure>) -> Result<String, Failure> {
    let (bytes, volume) = (read(system)?, Name::from_str(UPGRADE_VOLUME).map_err(|_| stray())?);
    let hash = Digest(digest(&SHA256, &bytes).as_ref().try_into().unwrap_or_default());
    let mut session = open()?;
    let before = Status::of(&mut session)?;
    // What an earlier attempt has left is not there, most of the time.
    let _ = session.request(Request::Volume(VolumeRequest::Remove(volume.clone())));
    let create = VolumeRequest::Create { name: volume.clone(), bytes: bytes.len() as u64 };
    session.request(Request::Volume(create))?;
    session.push_volume(&volume, &mut &bytes[..], system, bytes.len() as u64, |_| {})?;
    ask(&mut session, ApplianceOp::Upgrade(hash))?;
    let name = installed(&mut session, hash)?;
    // It was copied: what is left serves nobody.
    session.request(Request::Volume(VolumeRequest::Remove(volume)))?;
    ask(&mut session, ApplianceOp::Reboot)?;
    drop(session);
    let after = eventually("come back", || {
        let status = open().and_then(|mut session| Status::of(&mut session)).ok();
        Ok(status.filter(|status| status.boot != before.boot))
    })?;
    if !after.is_trial {
        return Err(fell_back(&name, &after));
    }
    ask(&mut open()?, ApplianceOp::Confirm)?;
    let kept = eventually("keep the new system", || {
        Ok(Some(Status::of(&mut open()?)?).filter(|status| !status.is_trial))
    })?;
    Ok(format!("{} is booted, and kept\n", kept.system))
}

/// Waits until the machine has the system where it is booted next; its name there.
fn installed(session: &mut Session, hash: Digest) -> Result<String, Failure> {
    let outcome = eventually("install the new system", || {
        let status = Status::of(session)?;
        Ok(status.upgrade.strip_prefix(&format!("{hash} ")).map(str::to_owned))
    })?;
    match outcome.split_once(' ') {
        Some(("done", name)) => Ok(name.to_owned()),
        _ => Err(Failure::refused(
            format!("the machine does not take the new system ({})", outcome.trim_start_matches("failed ")),
            "a petrel.efi that the operators' CA of this host has signed",
            "sign it with `petrel appliance sign`",
        )),
    }
}

fn fell_back(name: &str, now: &Status) -> Failure {
    Failure::refused(
        format!("{name} did not come up, and the machine has gone back to {}", now.system),
        "a system whose control plane is reached within two minutes",
        "read the machine's console, and try again with another system",
    )
}

fn eventually<T>(what: &str, mut attempt: impl FnMut() -> Result<Option<T>, Failure>) -> Result<T, Failure> {
    let start = Instant::now();
    while start.elapsed() < UPGRADE_TIMEOUT {
        if let Some(found) = attempt()? {
            return Ok(found);
        }
        sleep(UPGRADE_POLL);
    }
    Err(Failure::refused(
        format!("the machine did not {what}"),
        format!("that to happen within {} s", UPGRADE_TIMEOUT.as_secs()),
        "read its console",
    ))
}

/// What a machine says of itself.
struct Status {
    boot: String,
    system: String,
    is_trial: bool,
    upgrade: String,
}

impl Status {
    fn of(session: &mut Session) -> Result<Self, Failure> {
        let text = ask(session, ApplianceOp::Status)?;
        let word = |key: &str| {
            let mut lines = text.lines().filter_map(|line| line.split_once(' '));
            lines.find(|(name, _)| *name == key).map(|(_, value)| value.to_owned()).unwrap_or_default()
        };
        let is_trial = word("state") == "trial";
        Ok(Self { boot: word("boot"), system: word("system"), is_trial, upgrade: word("upgrade") })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|error| {
        Failure::local(
            format!("{} cannot be read ({error})", path.display()),
            "a system as `make appliance` makes it: petrel.efi",
            "correct the path",
        )
    })
}
