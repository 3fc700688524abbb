//! The engine's own tables.

use petrel_engine::Engine;

use super::{Checked, Violation, ensure};

/// After every input: each table within its bound, all of them in step.
pub fn audit(engine: &Engine) -> Checked {
    for table in engine.tables() {
        ensure(table.entries <= table.max, || {
            format!("{} has {} entries, and {} are the most", table.name, table.entries, table.max)
        })?;
    }
    engine.audit().map_err(|what| Violation(what.into()))
}
