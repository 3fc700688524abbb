//! What certificates say.

use std::path::Path as File;

use petrel_certificate::{Certificate, scope};
use petrel_wire::Path;
use petrel_wire::operator::{CertificateFault, Right, Rights};
use serde_json::{Value, json};

use super::files;
use crate::failure::Failure;
use crate::show::{Lines, hex, policy_lines};
use crate::units;

/// A certificate of a file.
pub struct Shown {
    says: Certificate,
    /// The path that it gives, as far as the file tells: a CA's own, or an operator's scope.
    path: Option<Path>,
}

/// All certificates in a file. If they form a chain, the path goes down from the last to the first.
pub fn read(file: &File) -> Result<Vec<Shown>, Failure> {
    let mut path = Some(Path::ROOT);
    let mut all = Vec::new();
    for der in files::certificates(file)?.iter().rev() {
        let says = Certificate::read(der).map_err(|_| files::unusable(file, "a certificate is malformed"))?;
        if says.is_ca && !super::issuer::is_root(der) {
            path = path.and_then(|above| scope(&above, &says).ok());
        }
        all.push(Shown { says, path: path.clone() });
    }
    all.reverse();
    Ok(all)
}

impl Shown {
    fn role(&self) -> &'static str {
        match (self.says.is_ca, self.says.is_client) {
            (true, _) => "ca",
            (false, true) => "operator",
            (false, false) => "other",
        }
    }

    /// As JSON.
    pub fn json(&self) -> Value {
        let Certificate { name, serial, not_before_ms, not_after_ms, key, policy, rights, .. } = &self.says;
        json!({
            "name": name,
            "role": self.role(),
            "path": self.path.as_ref().map(Path::to_string),
            "policy": policy.as_ref().ok().and_then(Option::as_ref).map(crate::json::policy),
            "rights": rights.as_ref().ok().map(|rights| rights_of(*rights)),
            "faults": self.faults(),
            "not_before_ms": not_before_ms,
            "not_after_ms": not_after_ms,
            "serial": hex(serial),
            "key": key,
        })
    }

    /// Why no host takes it.
    fn faults(&self) -> Vec<String> {
        let policy = self.says.policy.as_ref().err().copied().map(fault);
        policy.into_iter().chain(self.says.rights.as_ref().err().copied().map(fault)).collect()
    }

    fn text(&self) -> String {
        let says = &self.says;
        let mut lines = Lines::default();
        // Somebody else's text: quoted, so that none of it drives the terminal.
        lines.add("name", says.name.as_ref().map_or("none".into(), |name| format!("{name:?}")));
        lines.add("role", self.role());
        lines.add("path", self.path.as_ref().map_or("none: its name is no label".into(), Path::to_string));
        match &says.policy {
            Ok(None) => lines.add("policy", "none: it limits nothing"),
            Ok(Some(policy)) => lines.add_all("policy", policy_lines(policy)),
            Err(error) => lines.add("policy", fault(*error)),
        }
        match says.rights {
            Ok(rights) => lines.add("rights", rights_of(rights).join(", ")),
            Err(error) => lines.add("rights", fault(error)),
        }
        let now_ms = units::now_ms();
        let state = match () {
            () if says.not_after_ms < now_ms => "expired",
            () if says.not_before_ms > now_ms => "not yet valid",
            () => "valid now",
        };
        let [from, to] = [says.not_before_ms, says.not_after_ms].map(units::date);
        lines.add("valid", format!("{from} to {to}, {state}"));
        lines.add("serial", hex(&says.serial));
        lines.add("key", format!("{:?}", says.key));
        lines.render()
    }
}

/// All of them for people.
pub fn text(all: &[Shown]) -> String {
    all.iter().map(Shown::text).collect::<Vec<_>>().join("\n")
}

fn rights_of(rights: Rights) -> Vec<String> {
    let all = [Right::Read, Right::Operate, Right::Delegate].into_iter();
    all.filter(|right| rights.has(*right)).map(|right| right.to_string()).collect()
}

fn fault(fault: CertificateFault) -> String {
    match fault {
        CertificateFault::Command => "one command of albatross's, which no session is opened by".into(),
        CertificateFault::PolicyVersion(version) => format!("of version {version}, which is not read here"),
        _ => "not readable".into(),
    }
}
