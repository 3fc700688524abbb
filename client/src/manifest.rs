//! Manifests: what many unikernels shall be, in a file.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use petrel_wire::Name;
use petrel_wire::operator::{Create, Request};
use serde::Deserialize;

use crate::args::{self, ImageArg, When};
use crate::create::{Source, wanted};
use crate::failure::Failure;
use crate::limits::MANIFEST_BYTES_MAX;

/// One unikernel of a manifest.
pub struct Entry {
    /// What it shall be.
    pub create: Create,
    /// Its image.
    pub(crate) source: Source,
}

impl Entry {
    /// The request that makes it so, whether there is one of this name or not.
    pub fn request(&self) -> Request {
        Request::Create(Box::new(Create { force: true, ..self.create.clone() }))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    unikernel: BTreeMap<String, Table>,
}

/// The fields of a unikernel; each means what the option of `petrel create` means.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Table {
    image: String,
    mem: Option<u32>,
    #[serde(default)]
    cpu: Vec<u16>,
    #[serde(default)]
    net: Vec<String>,
    #[serde(default)]
    block: Vec<String>,
    #[serde(default)]
    arg: Vec<String>,
    #[serde(default)]
    restart: When,
    #[serde(default)]
    exit_code: Vec<u8>,
    #[serde(default)]
    after: Vec<String>,
    ready: Option<String>,
    alive: Option<String>,
    alive_every: Option<u16>,
    alive_failures: Option<u8>,
}

/// Reads a manifest and the images that it names. Each unikernel comes behind those that it is started after.
///
/// # Errors
/// What is wrong with them.
pub fn read(path: &Path) -> Result<Vec<Entry>, Failure> {
    parse(path, &read_file(path)?)
}

/// Reads the text of a manifest, which `path` names, and the images that it names.
///
/// # Errors
/// What is wrong with them.
pub fn parse(path: &Path, text: &str) -> Result<Vec<Entry>, Failure> {
    let file: File = toml::from_str(text).map_err(|error| {
        Failure::local(
            format!("the manifest {} is not well-formed ({})", path.display(), error.to_string().trim()),
            "TOML with a table [unikernel.NAME] for each unikernel",
            "correct the file; `petrel apply --help` shows the fields",
        )
    })?;
    let folder = path.parent().unwrap_or(Path::new("")).to_path_buf();
    let entries = file.unikernel.into_iter().map(|(name, table)| entry(path, &folder, &name, table));
    Ok(in_order(entries.collect::<Result<_, _>>()?))
}

fn read_file(path: &Path) -> Result<String, Failure> {
    let cannot = |why: String| {
        Failure::local(
            format!("the manifest {} cannot be read ({why})", path.display()),
            "a readable text file",
            "correct the path, or the file's owner and mode",
        )
    };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|error| cannot(error.to_string()))?;
    // Not every file knows its size.
    file.take(MANIFEST_BYTES_MAX + 1).read_to_string(&mut text).map_err(|error| cannot(error.to_string()))?;
    if text.len() as u64 > MANIFEST_BYTES_MAX {
        return Err(cannot(format!("it has more than {MANIFEST_BYTES_MAX} bytes")));
    }
    Ok(text)
}

fn entry(path: &Path, folder: &Path, name: &str, table: Table) -> Result<Entry, Failure> {
    let bad = |field: &str, why: String| {
        Failure::local(
            format!("the manifest {} has a wrong field `{field}` of \"{name}\" ({why})", path.display()),
            "what the option of `petrel create` takes",
            "correct the file",
        )
    };
    let image = match args::image(&table.image).map_err(|why| bad("image", why))? {
        ImageArg::File(file) => ImageArg::File(folder.join(file)),
        digest @ ImageArg::Digest(_) => digest,
    };
    let probe = |field: &'static str, text: Option<String>| {
        text.map(|text| text.parse())
            .transpose()
            .map_err(|why: petrel_wire::ProbeError| bad(field, why.to_string()))
    };
    let after = table.after.iter().map(|name| name.parse());
    let create = args::Create {
        name: name.parse().map_err(|why: petrel_wire::NameError| bad("name", why.to_string()))?,
        image,
        mem: table.mem.unwrap_or(args::MEMORY_MIB),
        cpu: table.cpu,
        net: table
            .net
            .iter()
            .map(|net| args::net(net))
            .collect::<Result<_, _>>()
            .map_err(|why| bad("net", why))?,
        block: table
            .block
            .iter()
            .map(|block| args::block(block))
            .collect::<Result<_, _>>()
            .map_err(|why| bad("block", why))?,
        arg: table.arg.into_iter().map(Into::into).collect(),
        supervision: args::Supervision {
            restart: table.restart,
            restart_on_fail: false,
            exit_code: table.exit_code,
            after: after
                .collect::<Result<_, petrel_wire::NameError>>()
                .map_err(|why| bad("after", why.to_string()))?,
            ready: probe("ready", table.ready)?,
            alive: probe("alive", table.alive)?,
            alive_every: table.alive_every.unwrap_or(args::ALIVE_EVERY_S),
            alive_failures: table.alive_failures.unwrap_or(args::ALIVE_FAILURES),
        },
        force: true,
        wait: false,
        json: args::Json { json: false },
    };
    let source = Source::of(&create.image)?;
    if let Source::Here(image) = &source {
        image.check_devices(&create.net, &create.block)?;
        image.check_memory(create.mem)?;
    }
    let create = Create { image: source.digest(), ..wanted(&create)? };
    Ok(Entry { create, source })
}

/// Puts each behind those that it is started after. What waits for itself comes last; the host refuses it.
fn in_order(mut rest: Vec<Entry>) -> Vec<Entry> {
    let mut ordered: Vec<Entry> = Vec::new();
    loop {
        let waits = |entry: &Entry, rest: &[Entry]| {
            let named = |after: &Name| rest.iter().any(|other| other.create.name == *after);
            entry.create.supervision.after.iter().any(named)
        };
        let Some(next) = rest.iter().position(|entry| !waits(entry, &rest)) else { break };
        ordered.push(rest.remove(next));
    }
    ordered.append(&mut rest);
    ordered
}
