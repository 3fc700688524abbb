//! `petrel policy`.

use petrel_wire::Path;
use petrel_wire::operator::{Policy, PolicyEntry, Request, Response};

use crate::args::PolicyCommand;
use crate::cli::{print_data, stray};
use crate::error::Error;
use crate::failure::Failure;
use crate::session::Session;
use crate::{json, show};

/// Runs the command; returns the exit code.
pub fn run(command: &PolicyCommand, open: impl FnOnce() -> Result<Session, Failure>) -> Result<u8, Failure> {
    match command {
        PolicyCommand::Set { path, limits } => {
            let policy = limits.policy()?;
            if policy == Policy::default() {
                return Err(Failure::usage(
                    "no limit is given",
                    "at least one, as --mem 256",
                    "add one, or remove the policy with `petrel policy rm`",
                ));
            }
            let request = Request::PolicySet { path: path.clone(), policy: Box::new(policy) };
            let Response::PolicySet = open()?.request(request)? else { return Err(stray()) };
            Ok(0)
        }
        PolicyCommand::Ls { path, json: form } => {
            let entries = list(&mut open()?, path)?;
            print_data(
                form.json,
                || entries.iter().map(json::policy_entry).collect(),
                || show::policies(&entries),
            )
        }
        PolicyCommand::Rm { path } => {
            let answer = open()?.request(Request::PolicyRemove(path.clone()))?;
            let Response::PolicyRemoved = answer else { return Err(stray()) };
            Ok(0)
        }
    }
}

/// All pages of the policies of a path.
fn list(session: &mut Session, path: &Path) -> Result<Vec<PolicyEntry>, Error> {
    session.pages(Request::PolicyList(path.clone()), usize::MAX, |response| match response {
        Response::Policies { page, more } => Some((page, more)),
        _ => None,
    })
}
