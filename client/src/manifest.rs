//! Manifests: what many unikernels and volumes shall be, in a file.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use petrel_wire::Name;
use petrel_wire::limits::{VOLUME_BLOCK_BYTES, VOLUME_BYTES_MAX};
use petrel_wire::operator::{Create, Request};
use serde::Deserialize;

use crate::args::{self, ImageArg, When};
use crate::create::{Source, wanted};
use crate::failure::Failure;
use crate::limits::{MANIFEST_BYTES_MAX, MANIFEST_VOLUMES_MAX};
use crate::units;

/// What is in a manifest.
pub struct Manifest {
    /// The volumes, in the order of their names.
    pub volumes: Vec<Volume>,
    /// The unikernels, each behind those that it is started after.
    pub unikernels: Vec<Entry>,
}

/// One volume of a manifest.
#[derive(Debug, PartialEq, Eq)]
pub struct Volume {
    /// What it is called.
    pub name: Name,
    /// Its size.
    pub bytes: u64,
}

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
    volume: BTreeMap<String, VolumeTable>,
    #[serde(default)]
    unikernel: BTreeMap<String, Table>,
}

/// The fields of a volume.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VolumeTable {
    size: String,
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

/// Reads a manifest and the images that it names.
///
/// # Errors
/// What is wrong with them.
pub fn read(path: &Path) -> Result<Manifest, Failure> {
    parse(path, &read_file(path)?)
}

/// Reads the text of a manifest, which `path` names, and the images that it names.
///
/// # Errors
/// What is wrong with them.
pub fn parse(path: &Path, text: &str) -> Result<Manifest, Failure> {
    let file: File = toml::from_str(text).map_err(|error| {
        Failure::local(
            format!("the manifest {} is not well-formed ({})", path.display(), error.to_string().trim()),
            "TOML with a table [unikernel.NAME] for each unikernel and [volume.NAME] for each volume",
            "correct the file; `petrel apply --help` shows the fields",
        )
    })?;
    if file.volume.len() > MANIFEST_VOLUMES_MAX {
        return Err(Failure::local(
            format!("the manifest {} has {} volumes", path.display(), file.volume.len()),
            format!("at most {MANIFEST_VOLUMES_MAX}, which is what a host can have"),
            "leave some out",
        ));
    }
    let volumes = file.volume.iter().map(|(name, table)| volume(path, name, table));
    let folder = path.parent().unwrap_or(Path::new("")).to_path_buf();
    let entries = file.unikernel.into_iter().map(|(name, table)| entry(path, &folder, &name, table));
    Ok(Manifest {
        volumes: volumes.collect::<Result<_, _>>()?,
        unikernels: in_order(entries.collect::<Result<_, _>>()?),
    })
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

fn volume(path: &Path, name: &str, table: &VolumeTable) -> Result<Volume, Failure> {
    let bad = |field: &str, why: String| {
        Failure::local(
            format!(
                "the manifest {} has a wrong field `{field}` of the volume \"{name}\" ({why})",
                path.display()
            ),
            "what `petrel volume create` takes",
            "correct the file",
        )
    };
    let bytes = units::parse_size(&table.size).map_err(|why| bad("size", why))?;
    if !bytes.is_multiple_of(VOLUME_BLOCK_BYTES) || !(VOLUME_BLOCK_BYTES..=VOLUME_BYTES_MAX).contains(&bytes)
    {
        let max = units::exact(VOLUME_BYTES_MAX);
        return Err(bad(
            "size",
            format!("expected a multiple of {VOLUME_BLOCK_BYTES} bytes, at least one and at most {max}"),
        ));
    }
    let name = name.parse().map_err(|why: petrel_wire::NameError| bad("name", why.to_string()))?;
    Ok(Volume { name, bytes })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn read_volumes(text: &str) -> Result<Vec<(String, u64)>, String> {
        match parse(Path::new("site.toml"), text) {
            Ok(read) => {
                Ok(read.volumes.iter().map(|volume| (volume.name.to_string(), volume.bytes)).collect())
            }
            Err(Failure::Told { sentence, .. }) => Err(sentence.to_string()),
            Err(Failure::Unread) => panic!("nothing is printed here"),
        }
    }

    #[test]
    fn volumes_are_read_with_sizes_in_binary_units() {
        let text = "[volume.data]\nsize = \"1G\"\n[volume.\"acme:log\"]\nsize = \"512\"\n";
        assert_eq!(read_volumes(text), Ok(vec![("acme:log".into(), 512), ("data".into(), 1 << 30)]));
        assert_eq!(read_volumes(""), Ok(Vec::new()));
    }

    #[test]
    fn volumes_that_cannot_be_meant_are_refused() {
        for (text, expected) in [
            ("[volume.data]\n", "missing field `size`"),
            ("[volume.data]\nsize = 1024\n", "expected a string"),
            ("[volume.data]\nsize = \"1M\"\nmode = 3\n", "unknown field `mode`"),
            ("[volume.data]\nsize = \"1.5G\"\n", "wrong field `size` of the volume \"data\" (expected bytes"),
            ("[volume.data]\nsize = \"0\"\n", "a multiple of 512 bytes"),
            ("[volume.data]\nsize = \"513\"\n", "a multiple of 512 bytes"),
            ("[volume.data]\nsize = \"17T\"\n", "at most 16T"),
            ("[volume.\"a/b\"]\nsize = \"1M\"\n", "'/' is not allowed"),
        ] {
            let said = read_volumes(text).unwrap_err();
            assert!(said.contains(expected), "{expected:?} is missing in {said}");
        }
    }

    #[test]
    fn a_manifest_has_no_more_volumes_than_a_host() {
        let manifest = |volumes: usize| -> String {
            (0..volumes).map(|i| format!("[volume.v{i}]\nsize = \"1M\"\n")).collect()
        };
        assert_eq!(read_volumes(&manifest(MANIFEST_VOLUMES_MAX)).unwrap().len(), MANIFEST_VOLUMES_MAX);
        let said = read_volumes(&manifest(MANIFEST_VOLUMES_MAX + 1)).unwrap_err();
        assert!(said.contains("has 1025 volumes: at most 1024"), "{said}");
    }
}
