//! `petrel cert`: requests, signatures, revocations.
//!
//! Keys never travel: who wants a certificate makes the key and sends a request, who has a CA's key signs. All of it
//! is Ed25519, the one kind of key that control planes take.

pub mod files;
mod issuer;
mod request;
mod show;

use std::path::{Path, PathBuf};
use std::time::Duration;

use petrel_certificate::{POLICY_OID, RIGHTS_OID, policy_extension, rights_extension};
use petrel_wire::operator::{Policy, Request, Response, Revocable, Revocation, Rights};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose,
};

use crate::args::{CertCommand, Delegate, Limits, Renew, Revoke, RevokedArg, Sign, rights};
use crate::cli::{print, print_data, stray};
use crate::error::Error;
use crate::failure::Failure;
use crate::keys::{DAY, params};
use crate::profile::Profile;
use crate::session::Session;
use crate::{json, show as tables};
use issuer::Issuer;
use request::CertificateRequest;

const HOUR: Duration = Duration::from_secs(60 * 60);

/// Runs the command; returns the exit code. `profile` reads the profile, for the commands that need one.
pub fn run(command: &CertCommand, profile: impl FnOnce() -> Result<Profile, Failure>) -> Result<u8, Failure> {
    match command {
        CertCommand::Request { name, key, dir } => print(&request::make(name, key.as_deref(), dir)?),
        CertCommand::Delegate(args) => print(&delegate(args)?),
        CertCommand::Sign(args) => print(&sign(args)?),
        CertCommand::Renew(args) => print(&renew(args)?),
        CertCommand::Revoke(args) => revoke(args, &profile()?),
        CertCommand::Revoked(form) => {
            let all = revocations(&mut Session::connect(&profile()?)?)?;
            print_data(form.json, || all.iter().map(json::revocation).collect(), || tables::revocations(&all))
        }
        CertCommand::Show { file, json: form } => {
            let shown = match file {
                Some(file) => show::read(file)?,
                None => show::read(&profile()?.certificate)?,
            };
            print_data(form.json, || shown.iter().map(show::Shown::json).collect(), || show::text(&shown))
        }
    }
}

fn delegate(args: &Delegate) -> Result<String, Failure> {
    let issuer = Issuer::load(&args.authority)?;
    let request = CertificateRequest::read(&args.csr)?;
    let mut params = params(&args.label, DAY * args.days).map_err(|error| unmade(&error))?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    if let Some(policy) = certified_policy(&args.limits)? {
        params.custom_extensions.push(policy);
    }
    narrow(&mut params, rights(&args.rights));
    let chain = issuer.sign(params, &request.key)?;
    write(&chain, &args.csr, args.out.as_deref())
}

fn sign(args: &Sign) -> Result<String, Failure> {
    let issuer = Issuer::load(&args.authority)?;
    let request = CertificateRequest::read(&args.csr)?;
    let name = match (&args.name, request.name) {
        (Some(name), _) => name.to_string(),
        (None, Some(name)) => name,
        (None, None) => {
            return Err(Failure::local(
                format!("{} does not say who asks", args.csr.display()),
                "a common name in it",
                "give one with --name",
            ));
        }
    };
    let mut params = params(&name, HOUR * args.hours).map_err(|error| unmade(&error))?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    narrow(&mut params, rights(&args.rights));
    let chain = issuer.sign(params, &request.key)?;
    write(&chain, &args.csr, args.out.as_deref())
}

fn renew(args: &Renew) -> Result<String, Failure> {
    let issuer = Issuer::load(&args.authority)?;
    let chain = issuer.renew(&args.file, args.hours.map(|hours| HOUR * hours))?;
    files::replace(&args.file, chain.as_bytes())?;
    Ok(format!("{}  the certificate, signed anew\n", args.file.display()))
}

/// The extension with a policy, if a limit is given: then all must be, as the extension has room for no other.
fn certified_policy(limits: &Limits) -> Result<Option<CustomExtension>, Failure> {
    if limits.policy()? == Policy::default() {
        return Ok(None);
    }
    let policy = Policy {
        unikernels: limits.unikernels,
        memory_mib: limits.mem,
        cpus: Some(limits.cpus()?).filter(|cpus| !cpus.is_empty()),
        volume_mib: Some(limits.volume_space.unwrap_or(0)),
        bridges: Some(limits.bridges()?),
    };
    let extension = policy_extension(&policy).map_err(|_| {
        Failure::usage(
            "a certificate's policy sets every limit, and some are not given",
            "--unikernels, --mem and --cpu",
            "add what is missing, or leave all out and use `petrel policy set` on the host",
        )
    })?;
    Ok(Some(CustomExtension::from_oid_content(&POLICY_OID, extension)))
}

fn narrow(params: &mut CertificateParams, rights: Option<Rights>) {
    let extension =
        rights.map(|rights| CustomExtension::from_oid_content(&RIGHTS_OID, rights_extension(rights)));
    params.custom_extensions.extend(extension);
}

/// Writes a chain beside the request that it answers, unless told where.
fn write(chain: &str, csr: &Path, out: Option<&Path>) -> Result<String, Failure> {
    let path = out.map_or_else(|| csr.with_extension("pem"), PathBuf::from);
    files::write_new(&path, chain.as_bytes())?;
    Ok(format!("{}  the certificate: send it to who asked for it\n", path.display()))
}

fn revoke(args: &Revoke, profile: &Profile) -> Result<u8, Failure> {
    let what = match &args.what {
        RevokedArg::This(what) => what.clone(),
        RevokedArg::KeyIn(file) => Revocable::Key(files::first_certificate(file)?.key),
    };
    let request = Request::CertRevoke { path: args.path.clone(), what: what.clone() };
    let Response::CertRevoked { sessions } = Session::connect(profile)?.request(request)? else {
        return Err(stray());
    };
    print_data(
        args.json.json,
        || json::revoked(&what, sessions),
        || format!("{} is revoked; sessions that ended by it: {sessions}\n", tables::revocable(&what)),
    )
}

fn revocations(session: &mut Session) -> Result<Vec<Revocation>, Error> {
    session.pages(Request::CertRevocations, usize::MAX, |response| match response {
        Response::Revocations { page, more } => Some((page, more)),
        _ => None,
    })
}

/// rcgen could not do it.
fn unmade(error: &rcgen::Error) -> Failure {
    Failure::local(
        format!("no certificate can be made ({error})"),
        "a source of randomness and a clock after 1970",
        "correct this machine's clock",
    )
}
