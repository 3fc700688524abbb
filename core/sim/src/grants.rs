//! What the certificates of simulated operators say, and what follows from it: a reference model of who may do what, which
//! has nothing of the engine's. What TLS verifies is no part of the simulation; what a certificate says is read by the
//! engine, so they are real ones.

use std::sync::OnceLock;

use petrel_certificate::{POLICY_OID, RIGHTS_OID, policy_extension, rights_extension};
use petrel_wire::{
    List, Name, Path,
    operator::{ImageRequest, Policy, Refusal, Request, Right, Rights, VolumeRequest},
};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    SerialNumber, date_time_ymd,
};

use crate::{
    host::BRIDGES,
    world::{DAY_MS, WALL_START_MS},
};

/// What an operator is given by its certificates.
#[derive(Debug)]
pub struct Grant {
    /// The serial number of its own certificate. Those of the CAs follow from their paths.
    pub serial: u8,
    /// Below what all lies that it may see.
    pub scope: Path,
    rights: Rights,
    /// What the certificates of its CAs say for the CAs' paths.
    pub policies: Vec<(Path, Policy)>,
    /// Its last moment by the wall clock, in milliseconds since 1970.
    until_ms: u64,
    /// The certificates: the bytes differ from run to run, what they say does not.
    pub chain: Vec<Vec<u8>>,
}

/// All that there are. The first may do everything everywhere, and is never revoked.
pub fn all() -> &'static [Grant] {
    static ALL: OnceLock<Vec<Grant>> = OnceLock::new();
    ALL.get_or_init(|| {
        let only = |read, operate, delegate| Rights { read, operate, delegate };
        let (all, none) = (Rights::ALL, None);
        let (small, large) = (Some(policy(2, 40)), Some(policy(8, 400)));
        let (minute_ms, hour_ms) = (60_000, 3_600_000);
        let grants = [
            ("", all, [none.clone(), none.clone()], None),
            ("", only(true, false, false), [none.clone(), none.clone()], None),
            ("", only(true, true, false), [none.clone(), none.clone()], None),
            ("", all, [none.clone(), none.clone()], Some(hour_ms)),
            ("acme", all, [none.clone(), none.clone()], None),
            ("acme", all, [large.clone(), none.clone()], None),
            ("acme", all, [small.clone(), none.clone()], Some(10 * minute_ms)),
            ("acme", only(true, false, false), [none.clone(), none.clone()], None),
            ("acme", only(true, true, false), [small.clone(), none.clone()], None),
            ("acme", only(false, false, true), [none.clone(), none.clone()], Some(hour_ms)),
            ("acme:web", all, [none.clone(), none.clone()], Some(minute_ms)),
            ("acme:web", all, [large.clone(), small.clone()], None),
            ("acme:web", only(true, true, false), [small, large], None),
            ("acme:web", all, [none.clone(), none], Some(DAY_MS)),
        ];
        (1..)
            .zip(grants)
            .map(|(serial, (scope, rights, policies, for_ms))| {
                Grant::new(serial, scope, rights, policies, for_ms)
            })
            .collect()
    })
}

fn policy(unikernels: u32, memory_mib: u64) -> Policy {
    let bridges: Vec<_> = BRIDGES.iter().filter_map(|bridge| bridge.parse().ok()).collect();
    Policy {
        unikernels: Some(unikernels),
        memory_mib: Some(memory_mib),
        cpus: List::try_from(vec![0, 1, 3]).ok(),
        volume_mib: Some(4),
        bridges: List::try_from(bridges).ok(),
    }
}

impl Grant {
    fn new(
        serial: u8,
        scope: &str,
        rights: Rights,
        policies: [Option<Policy>; 2],
        for_ms: Option<u64>,
    ) -> Self {
        let until_ms = for_ms.map_or(u64::MAX, |for_ms| WALL_START_MS + for_ms);
        let mut chain = vec![certificate("olga", serial, Some(rights), None, for_ms)];
        let mut said = Vec::new();
        let labels: Vec<_> = scope.split(':').filter(|label| !label.is_empty()).collect();
        for (depth, (label, policy)) in labels.iter().zip(policies).enumerate() {
            let path = labels[..=depth].join(":").parse().unwrap_or_default();
            chain.insert(1, certificate(label, serial_of_ca(&path), None, policy.as_ref(), None));
            said.extend(policy.map(|policy| (path, policy)));
        }
        let scope = if scope.is_empty() { Path::ROOT } else { scope.parse().unwrap_or_default() };
        Self { serial, scope, rights, policies: said, until_ms, chain }
    }

    /// Whether it has ended by the wall clock. A certificate is valid through its last second.
    pub fn has_expired(&self, wall_ms: u64) -> bool {
        wall_ms > self.until_ms.saturating_add(999)
    }

    /// What it can be revoked by: the number of each of its certificates, and the path of the CA that issued it.
    pub fn links(&self) -> Vec<(u8, Path)> {
        let mut links = vec![(self.serial, self.scope.clone())];
        let mut below = self.scope.labels();
        while !below.is_empty() {
            let (above, serial) = (below.rsplit_once(':').map_or("", |(above, _)| above), serial_of(below));
            links.push((serial, above.parse().unwrap_or_default()));
            below = above;
        }
        links
    }

    /// The place of this name, or that of its last label, below the scope.
    pub fn own(&self, name: Name) -> Name {
        if within(self.scope.labels(), &name) {
            return name;
        }
        let label = name.rsplit(':').next().unwrap_or_default();
        format!("{}:{label}", self.scope.labels()).parse().unwrap_or(name)
    }

    /// Why this request, in which all is called as it is from the root, must not be carried out.
    pub fn forbids(&self, request: &Request) -> Option<Refusal> {
        let has = |right: &Right| match right {
            Right::Read => self.rights.read,
            Right::Operate => self.rights.operate,
            Right::Delegate => self.rights.delegate,
        };
        if let Some(missing) = rights_for(request).iter().find(|right| !has(right)) {
            return Some(Refusal::RightMissing(*missing));
        }
        let outside = match request {
            Request::StateExport | Request::StateImport { .. } => true,
            Request::Image(request) => !matches!(request, ImageRequest::Pull(_)),
            // Those above it decide for its own path.
            Request::PolicySet { path, .. } | Request::PolicyRemove(path) => *path == self.scope,
            _ => false,
        };
        (outside && !self.scope.is_root()).then_some(Refusal::OutsideScope)
    }
}

/// As docs/policy.md has it.
fn rights_for(request: &Request) -> &'static [Right] {
    match request {
        Request::PolicySet { .. } | Request::PolicyRemove(_) | Request::CertRevoke { .. } => {
            &[Right::Delegate]
        }
        Request::StateImport { .. } => &[Right::Operate, Right::Delegate],
        Request::Create(_)
        | Request::Destroy(_)
        | Request::Start(_)
        | Request::Stop(_)
        | Request::Restart { .. }
        | Request::Update { .. }
        | Request::Rollback { .. }
        | Request::ImagePush { .. }
        | Request::Image(ImageRequest::Remove(_) | ImageRequest::Collect) => &[Right::Operate],
        Request::Volume(VolumeRequest::List | VolumeRequest::Pull(_)) => &[Right::Read],
        Request::Volume(_) => &[Right::Operate],
        Request::Hello(_) | Request::ImageChunk(_) | Request::StateChunk(_) | Request::Cancel => &[],
        _ => &[Right::Read],
    }
}

/// Whether `labels` is `path` or lies below it.
pub fn within(path: &str, labels: &str) -> bool {
    let rest = labels.strip_prefix(path);
    path.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
}

fn serial_of_ca(path: &Path) -> u8 {
    serial_of(path.labels())
}

fn serial_of(labels: &str) -> u8 {
    if labels.contains(':') { 101 } else { 100 }
}

/// One of an operator, or of a CA if it says nothing of rights.
fn certificate(
    name: &str,
    serial: u8,
    rights: Option<Rights>,
    policy: Option<&Policy>,
    for_ms: Option<u64>,
) -> Vec<u8> {
    static KEY: OnceLock<KeyPair> = OnceLock::new();
    let key = KEY.get_or_init(|| KeyPair::generate().expect("this machine has randomness"));
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.serial_number = Some(SerialNumber::from(u64::from(serial)));
    params.not_after = date_time_ymd(2099, 1, 1);
    if let Some(for_ms) = for_ms {
        // The world begins with this year.
        params.not_after = date_time_ymd(2026, 1, 1) + std::time::Duration::from_millis(for_ms);
    }
    let rights_said = rights.map(|rights| (&RIGHTS_OID[..], rights_extension(rights)));
    let policy = policy.and_then(|policy| Some((&POLICY_OID[..], policy_extension(policy).ok()?)));
    let extensions = rights_said.into_iter().chain(policy);
    params.custom_extensions =
        extensions.map(|(oid, value)| CustomExtension::from_oid_content(oid, value)).collect();
    match rights {
        None => params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained),
        Some(_) => params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth],
    }
    params.self_signed(key).expect("it is well-formed").der().to_vec()
}
