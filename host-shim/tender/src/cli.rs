//! The command line: upstream's, and a few options of our own.
//!
//! As upstream does, it is read twice: first for the image, as what the other options may say depends on the
//! image's manifest.

use std::ffi::OsString;

use hvt_abi::boot::{GUEST_MEM_MAX, GUEST_PAGE_SIZE, HVT_ABI_VERSION};
use hvt_abi::manifest::is_device_name;
use hvt_abi::note::Target;

use crate::devices::Attached;
use crate::report::{Failure, warn};

/// Guest memory in bytes where the user says nothing.
const DEFAULT_MEMORY: u64 = 512 << 20;

/// Most memory of a guest that has no limit of its own, in bytes: far from where the kernel puts this program.
const MEMORY_MAX: u64 = 1 << 40;

/// What the user wants.
#[derive(Debug)]
pub enum Command {
    /// The usage message.
    Help,
    /// The version message.
    Version,
    /// Which backend would be used here, and why.
    Probe,
    /// A guest.
    Run(Invocation),
}

/// A command line whose options are not looked at yet.
#[derive(Debug)]
pub struct Invocation {
    options: Vec<OsString>,
    /// Path of the image.
    pub image: OsString,
    /// The guest's arguments.
    pub arguments: Vec<OsString>,
}

/// Which backend to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// KVM where it works, else ring 3.
    Auto,
    /// KVM or nothing.
    Kvm,
    /// Ring 3.
    Ring3,
}

/// What the options say about the machine; devices are attached as they are met.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Guest memory in bytes: for hvt, a multiple of 2 MiB up to 4 GiB.
    pub memory_bytes: u64,
    /// Which backend to use.
    pub backend: Choice,
    /// Frequency of the time-stamp counter in kHz, where the user knows it.
    pub tsc_khz: Option<u32>,
    /// The folder for a core file, if one is wanted.
    pub dump_core: Option<String>,
}

/// Finds the image, or an option that makes an image needless.
pub fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Command, Failure> {
    let mut arguments = arguments.peekable();
    let mut options = Vec::new();
    while let Some(option) = arguments.next_if(|word| word.as_encoded_bytes().starts_with(b"-")) {
        match option.to_str() {
            Some("--") => break,
            Some("--help") => return Ok(Command::Help),
            Some("--version") => return Ok(Command::Version),
            Some("--probe") => return Ok(Command::Probe),
            _ => options.push(option),
        }
    }
    match arguments.next() {
        Some(image) => Ok(Command::Run(Invocation { options, image, arguments: arguments.collect() })),
        None => Err(Failure::with_usage("Missing KERNEL operand")),
    }
}

impl Invocation {
    /// Reads the options, and attaches the devices that they name.
    pub fn settings(&self, target: Target, devices: &mut Attached) -> Result<Settings, Failure> {
        let mut settings =
            Settings { memory_bytes: DEFAULT_MEMORY, backend: Choice::Auto, tsc_khz: None, dump_core: None };
        for option in &self.options {
            let known = option.to_str().ok_or_else(|| invalid(option))?;
            if !settings.read(known)? && !attach(known, devices)? {
                return Err(invalid(option));
            }
        }
        if target == Target::Hvt {
            settings.memory_bytes = hvt_memory(settings.memory_bytes)?;
        }
        Ok(settings)
    }
}

impl Settings {
    /// Whether `option` is about the machine; then it is noted.
    fn read(&mut self, option: &str) -> Result<bool, Failure> {
        let Some((name, value)) = option.split_once('=') else {
            return Ok(false);
        };
        match name {
            "--mem" => self.memory_bytes = memory(value)?,
            "--dumpcore" => self.dump_core = Some(value.to_owned()),
            "--tsc-khz" => {
                let khz = value.parse().ok().filter(|khz| *khz > 0);
                self.tsc_khz = Some(khz.ok_or("Malformed argument to --tsc-khz")?);
            }
            "--backend" => {
                self.backend = match value {
                    "auto" => Choice::Auto,
                    "kvm" => Choice::Kvm,
                    "ring3" => Choice::Ring3,
                    _ => return Err("Malformed argument to --backend: it is auto, kvm or ring3".into()),
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// Whether `option` is about a device; then the device is attached.
fn attach(option: &str, devices: &mut Attached) -> Result<bool, Failure> {
    let Some((kind, rest)) = option.split_once(':') else {
        return Ok(false);
    };
    let Some((name, value)) = rest.split_once('=') else {
        return Ok(false);
    };
    if !is_device_name(name.as_bytes()) || value.is_empty() {
        return Ok(false);
    }
    let result = match kind {
        "--net" => devices.attach_net(name, value),
        "--block" => devices.attach_block(name, value),
        "--net-mac" => match mac(value) {
            Some(mac) => devices.set_mac(name, mac),
            None => return Ok(false),
        },
        "--block-sector-size" => block_size(value).and_then(|size| devices.set_block_size(name, size)),
        _ => return Ok(false),
    };
    result.map(|()| true).map_err(|fault| Failure::with_usage(format!("{fault}\nInvalid option: `{option}'")))
}

fn invalid(option: &OsString) -> Failure {
    Failure::with_usage(format!("Invalid option: `{}'", option.to_string_lossy()))
}

/// Guest memory from MiB.
fn memory(value: &str) -> Result<u64, Failure> {
    let mib: u64 = value.parse().ok().filter(|mib| *mib > 0).ok_or("Malformed argument to --mem")?;
    mib.checked_mul(1 << 20).filter(|bytes| *bytes <= MEMORY_MAX).ok_or_else(|| too_much(mib, MEMORY_MAX))
}

/// An hvt guest's memory comes in units of 2 MiB, and has an end.
fn hvt_memory(bytes: u64) -> Result<u64, Failure> {
    let whole = (bytes / GUEST_PAGE_SIZE).max(1) * GUEST_PAGE_SIZE;
    if whole != bytes {
        warn(format_args!("adjusting memory to {whole} bytes"));
    }
    if whole > GUEST_MEM_MAX { Err(too_much(whole >> 20, GUEST_MEM_MAX)) } else { Ok(whole) }
}

fn too_much(mib: u64, max: u64) -> Failure {
    format!("guest memory size (--mem) {mib} MiB exceeds the max size {} MiB", max >> 20).into()
}

fn block_size(value: &str) -> Result<u16, String> {
    let size = value.parse().ok().filter(|size: &u16| *size >= 512 && size.is_power_of_two());
    size.ok_or_else(|| "Block size must be a multiple of 2 greater than or equal 512".into())
}

fn mac(value: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut words = value.split(':');
    for byte in &mut mac {
        let word = words.next().filter(|word| (1..=2).contains(&word.len()))?;
        *byte = u8::from_str_radix(word, 16).ok()?;
    }
    words.next().is_none().then_some(mac)
}

/// The usage message.
pub const USAGE: &str = "\
usage: petrel-tender [ CORE OPTIONS ] [ MODULE OPTIONS ] [ -- ] KERNEL [ ARGS ]
KERNEL is the filename of the unikernel to run.
ARGS are optional arguments passed to the unikernel.
Core options:
  [ --mem=512 ] (guest memory in MB)
  [ --backend=auto ] (run the guest on kvm, in ring3, or on kvm where it works)
  [ --tsc-khz=KHZ ] (frequency of the time-stamp counter, to save measuring it)
    --probe (tell which backend and frequency would be used, alone)
    --help (display this help)
    --version (display version information)
Compiled-in modules: core dumpcore net block
Compiled-in module options:
    --dumpcore=DIR (enable guest core dump on abort/trap)
    --net:NAME=IFACE | @NN (attach tap at IFACE or at fd @NN as network NAME)
  [ --net-mac:NAME=HWADDR ] (set HWADDR for network NAME)
    --block:NAME=PATH | @NN (attach block device/file at PATH or at fd @NN as block storage NAME)
  [ --block-sector-size:NAME=SECTORSIZE ] (set sector size for block device NAME; must be a power of two \
greater than or equal 512)
";

/// The version message.
pub fn version() -> String {
    format!("petrel-tender tender, version {}\nABI version {HVT_ABI_VERSION}\n", env!("CARGO_PKG_VERSION"))
}
