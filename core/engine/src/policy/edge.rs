//! Names on their way in and out of a session. Inside the engine each is called as it is from the root.

use petrel_wire::operator::{MapNames, Refusal};
use petrel_wire::{Name, Path};

/// From a session of this scope into the engine.
pub(crate) struct Inward<'a>(pub &'a Path);

/// From the engine to a session of this scope.
pub(crate) struct Outward<'a>(pub &'a Path);

/// A name that a session must not see. There should be none on the way to it.
#[derive(Debug)]
pub(crate) struct OutOfSight;

impl MapNames for Inward<'_> {
    type Error = Refusal;

    fn name(&self, name: Name) -> Result<Name, Refusal> {
        self.0.join(&name).map_err(|_| Refusal::ScopedName)
    }

    fn path(&self, path: Path) -> Result<Path, Refusal> {
        self.0.join(path.labels()).map_err(|_| Refusal::ScopedName)
    }
}

impl Outward<'_> {
    fn relative<'a>(&self, name: &'a str) -> Result<&'a str, OutOfSight> {
        self.0.relative(name).ok_or(OutOfSight)
    }
}

impl MapNames for Outward<'_> {
    type Error = OutOfSight;

    fn name(&self, name: Name) -> Result<Name, OutOfSight> {
        self.relative(&name)?.parse().map_err(|_| OutOfSight)
    }

    /// Whoever sees more may have had a unikernel started after one that this session does not see.
    fn other(&self, name: Name) -> Result<Option<Name>, OutOfSight> {
        Ok(self.name(name).ok())
    }

    fn path(&self, path: Path) -> Result<Path, OutOfSight> {
        Path::ROOT.join(self.relative(path.labels())?).map_err(|_| OutOfSight)
    }
}
