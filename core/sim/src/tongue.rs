//! How an operator with a scope calls things, and how they are called from the root, as the model does.

use std::cell::RefCell;

use petrel_wire::{
    Name, Path,
    operator::{MapNames, Request, ServerMessage},
};

use crate::{
    grants::Grant,
    model::{Model, Violation, ensure},
};

/// What an operator with this grant sends for a request.
pub fn said(grant: &Grant, request: Request) -> Request {
    let nothing = "names of questions lie within the scope";
    if grant.scope.is_root() { request } else { request.map_names(&Said(&grant.scope)).expect(nothing) }
}

/// What an operator with this grant was told. If it was told what there is, all that was named must have been heard of: what
/// lies elsewhere does not exist for it.
pub fn heard(
    grant: &Grant,
    message: ServerMessage,
    lists: bool,
    model: &Model,
) -> Result<ServerMessage, Violation> {
    if grant.scope.is_root() {
        return Ok(message);
    }
    let heard = Heard { scope: &grant.scope, names: RefCell::default() };
    let ServerMessage { id, response } = message;
    let response = response.map_names(&heard)?;
    let names = heard.names.into_inner();
    let strange = names.iter().find(|name| lists && !model.has_heard_of(name));
    ensure(strange.is_none(), || format!("{strange:?} was told below {}: {response:?}", grant.scope))?;
    Ok(ServerMessage { id, response })
}

struct Said<'a>(&'a Path);

struct Heard<'a> {
    scope: &'a Path,
    names: RefCell<Vec<Name>>,
}

impl MapNames for Said<'_> {
    type Error = String;

    fn name(&self, name: Name) -> Result<Name, String> {
        let own = name.strip_prefix(self.0.labels()).and_then(|rest| rest.strip_prefix(':'));
        own.and_then(|own| own.parse().ok()).ok_or_else(|| format!("{name} is not below {}", self.0))
    }

    fn path(&self, path: Path) -> Result<Path, String> {
        match path.labels().strip_prefix(self.0.labels()) {
            Some("") => Ok(Path::ROOT),
            Some(rest) => rest.trim_start_matches(':').parse().map_err(|_| format!("{path} is no path")),
            None => Err(format!("{path} is not below {}", self.0)),
        }
    }
}

impl Heard<'_> {
    /// Whatever is told from the root begins with the scope's own labels, and nothing else here does.
    fn called(&self, labels: &str) -> Result<String, Violation> {
        let first = self.scope.labels().split(':').next();
        ensure(labels.split(':').next() != first, || format!("\"{labels}\" was told below {}", self.scope))?;
        Ok(format!("{}:{labels}", self.scope.labels()))
    }
}

impl MapNames for Heard<'_> {
    type Error = Violation;

    fn name(&self, name: Name) -> Result<Name, Violation> {
        let name: Name = self.called(&name)?.parse().map_err(|_| Violation("no name".into()))?;
        self.names.borrow_mut().push(name.clone());
        Ok(name)
    }

    fn path(&self, path: Path) -> Result<Path, Violation> {
        if path.is_root() {
            return Ok(self.scope.clone());
        }
        self.called(path.labels())?.parse().map_err(|_| Violation("no path".into()))
    }
}
