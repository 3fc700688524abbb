//! `petrel apply` and `petrel diff`: what a manifest says against what is there.

pub mod volumes;

use std::collections::BTreeSet;

use petrel_wire::Name;
use petrel_wire::operator::{Create, Refusal, Request, Response, UnikernelInfo, Wish};

use crate::args;
use crate::cli;
use crate::create::deploy;
use crate::error::Error;
use crate::failure::Failure;
use crate::manifest::{self, Entry};
use crate::sentence::About;
use crate::session::Session;
use crate::{json, show};

/// What is to be done about one unikernel or volume.
pub struct Step {
    /// Which.
    pub name: Name,
    /// What.
    pub action: Action,
    /// Why: what it is otherwise than it shall be.
    pub differences: Vec<Difference>,
}

/// What is to be done. A unikernel and a volume may be called the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// There is no unikernel of this name.
    Create,
    /// The unikernel is to be something else.
    Replace,
    /// The unikernel is what it shall be, but stopped.
    Start,
    /// The manifest does not name the unikernel.
    Destroy,
    /// It is about a volume.
    Volume(volumes::Change),
}

/// Something that is otherwise than it shall be.
#[derive(Debug, PartialEq, Eq)]
pub struct Difference {
    /// The manifest's word for it.
    pub field: &'static str,
    /// What is there.
    pub is: String,
    /// What the manifest says.
    pub shall_be: String,
}

/// Runs either command.
pub fn run(
    args: &args::Manifest,
    dry: bool,
    open: impl FnOnce() -> Result<Session, Failure>,
) -> Result<u8, Failure> {
    let manifest = manifest::read(&args.file)?;
    let mut session = open()?;
    // Volumes come before the unikernels that store on them.
    let mut steps = volumes::plan(&mut session, &manifest)?;
    steps.extend(plan(&mut session, &manifest.unikernels, args.prune)?);
    let named = manifest.volumes.len() + manifest.unikernels.len();
    let unchanged = named - steps.iter().filter(|step| step.action != Action::Destroy).count();
    let as_json = || json::plan(&steps, unchanged);
    if dry {
        return cli::print_data(args.json.json, as_json, || show::plan(&steps, unchanged));
    }
    volumes::check_plan(&steps)?;
    // Whether anybody reads what is done or not, all of it is done.
    let mut said = Ok(0);
    for step in &steps {
        if !args.json.json && said.is_ok() {
            said = cli::print(&show::step(step));
        }
        let entry = manifest.unikernels.iter().find(|entry| entry.create.name == step.name);
        carry_out(&mut session, step, entry)?;
    }
    said?;
    cli::print_data(args.json.json, as_json, || show::unchanged(unchanged))
}

/// What is to be done about unikernels, in this order.
fn plan(session: &mut Session, entries: &[Entry], prune: bool) -> Result<Vec<Step>, Failure> {
    let mut steps = Vec::new();
    if prune {
        // First of all: they may have what others are to get.
        let named: BTreeSet<&Name> = entries.iter().map(|entry| &entry.create.name).collect();
        let others = session.list()?.into_iter().filter(|unikernel| !named.contains(&unikernel.name));
        let destroy = |name| Step { name, action: Action::Destroy, differences: Vec::new() };
        steps.extend(others.map(|unikernel| destroy(unikernel.name)));
    }
    for entry in entries {
        let name = &entry.create.name;
        let (action, differences) = match session.request(Request::Info(name.clone())) {
            Ok(Response::Info(info)) => match differences(&info, &entry.create) {
                same if same.is_empty() && info.unikernel.wish == Wish::Running => continue,
                same if same.is_empty() => (Action::Start, same),
                differences => (Action::Replace, differences),
            },
            Ok(_) => return Err(cli::stray()),
            Err(Error::Refused(Refusal::NoSuchUnikernel)) => (Action::Create, Vec::new()),
            Err(error) => return Err(Failure::about(&error, &About { name: Some(name), image: None })),
        };
        steps.push(Step { name: name.clone(), action, differences });
    }
    Ok(steps)
}

fn carry_out(session: &mut Session, step: &Step, entry: Option<&Entry>) -> Result<(), Failure> {
    let shown = entry.map(|entry| entry.source.shown());
    let about = About { name: Some(&step.name), image: shown.as_deref() };
    let name = step.name.clone();
    let done = match (step.action, entry) {
        (Action::Volume(change), _) => return volumes::carry_out(session, name, change),
        (Action::Create | Action::Replace, Some(entry)) => deploy(session, entry.request(), &entry.source),
        (Action::Start, _) => session.request(Request::Start(name)),
        _ => session.request(Request::Destroy(name)),
    };
    done.map(drop).map_err(|error| Failure::about(&error, &about))
}

/// In what a unikernel is otherwise than it shall be.
fn differences(info: &UnikernelInfo, create: &Create) -> Vec<Difference> {
    let mut all = Vec::new();
    let mut compare = |field, is: String, shall_be: String| {
        if is != shall_be {
            all.push(Difference { field, is, shall_be });
        }
    };
    let mut cpus = create.cpus.to_vec();
    cpus.sort_unstable();
    cpus.dedup();
    let nets = |net: &petrel_wire::operator::Net| format!("{}={}", net.device, net.bridge);
    let blocks = |block: &petrel_wire::operator::Block| format!("{}={}", block.device, block.volume);
    let arg = |arg: &petrel_wire::Blob<{ petrel_wire::limits::CMDLINE_BYTES_MAX }>| {
        format!("{:?}", String::from_utf8_lossy(arg))
    };
    let (is, shall_be) = (&info.watching.supervision, &create.supervision);
    compare("image", format!("{:?}", info.unikernel.image), format!("{:?}", create.image));
    compare("mem", info.unikernel.memory_mib.to_string(), create.memory_mib.to_string());
    if !cpus.is_empty() {
        // Without any, it has those that policies have given it.
        compare("cpu", listed(info.cpus.iter().map(u16::to_string)), listed(cpus.iter().map(u16::to_string)));
    }
    compare("net", sorted(info.nets.iter().map(|(net, _)| nets(net))), sorted(create.nets.iter().map(nets)));
    compare("block", sorted(info.blocks.iter().map(blocks)), sorted(create.blocks.iter().map(blocks)));
    compare("arg", listed(info.args.iter().map(arg)), listed(create.args.iter().map(arg)));
    compare("restart", show::restart(&is.restart), show::restart(&shall_be.restart));
    compare("after", sorted(is.after.iter().map(|name| name.to_string())), {
        sorted(shall_be.after.iter().map(|name| name.to_string()))
    });
    compare("ready", show::probe(is.ready.as_ref()), show::probe(shall_be.ready.as_ref()));
    compare("alive", show::alive(is.alive.as_ref()), show::alive(shall_be.alive.as_ref()));
    all
}

fn listed(values: impl Iterator<Item = String>) -> String {
    let values: Vec<_> = values.collect();
    if values.is_empty() { "none".into() } else { values.join(" ") }
}

fn sorted(values: impl Iterator<Item = String>) -> String {
    let values: BTreeSet<_> = values.collect();
    listed(values.into_iter())
}
