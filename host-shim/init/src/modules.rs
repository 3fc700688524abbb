//! The kernel's modules: those that are always needed, and the drivers of the devices that there are.
//!
//! The image's builder (`appliance/src/modules.rs`) has put them below [`FOLDER`], with two lists. Each line of `needs` has a
//! module and those that are loaded before it, in their order. Each line of `aliases` has a module and a pattern: it is
//! loaded when something fits that. What there is are the kernel's names for devices (`modalias`), and two signs.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use rustix::io::Errno;
use rustix::system::finit_module;

use crate::{about, log};

const FOLDER: &str = "/modules";
const BUSES: &str = "/sys/bus";
/// The name of the CPU and its features, for those who drive them: KVM.
const CPU: &str = "/sys/devices/system/cpu/modalias";
/// It was booted by UEFI firmware, so it may have slots for systems.
const EFI: &str = "/sys/firmware/efi";

/// What is known of modules, and what was done about it.
pub struct Modules {
    parameters: Parameters,
    lists: Lists,
    seen: BTreeSet<String>,
    tried: BTreeSet<String>,
}

impl Modules {
    /// Reads what there is to know.
    pub fn read() -> Result<Self, String> {
        let read = |list| fs::read_to_string(Path::new(FOLDER).join(list)).map_err(about(list));
        let lists = Lists::of(&read("needs")?, &read("aliases")?);
        Ok(Self { parameters: Parameters::read()?, lists, seen: BTreeSet::new(), tried: BTreeSet::new() })
    }

    /// Loads what is needed now. Devices may be there later, those on USB above all: look again.
    pub fn load(&mut self) {
        let mut loaded = Vec::new();
        // Once more after something was new: a driver may bring further devices to light.
        loop {
            let new: Vec<_> = signs().into_iter().filter(|sign| self.seen.insert(sign.clone())).collect();
            if new.is_empty() {
                break;
            }
            for name in new.iter().flat_map(|sign| self.lists.needed(sign)) {
                if self.tried.insert(name.to_owned()) {
                    match insert(name, &self.parameters.of_module(name)) {
                        Ok(()) => loaded.push(name),
                        Err(error) => log(format_args!("module {name}: {error}")),
                    }
                }
            }
        }
        if !loaded.is_empty() {
            log(format_args!("modules loaded: {}", loaded.join(" ")));
        }
    }
}

/// What there is for which a module may be needed.
fn signs() -> Vec<String> {
    let mut signs = vec!["always".to_owned()];
    if Path::new(EFI).exists() {
        signs.push("efi".into());
    }
    let entries =
        |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let devices = entries(Path::new(BUSES)).flat_map(|bus| entries(&bus.join("devices")));
    let names = devices.map(|device| device.join("modalias")).chain([CPU.into()]);
    signs.extend(names.filter_map(|file| Some(fs::read_to_string(file).ok()?.trim_end().to_owned())));
    signs
}

fn insert(name: &str, parameters: &str) -> io::Result<()> {
    let file = File::open(format!("{FOLDER}/{name}.ko"))?;
    match finit_module(file, &CString::new(parameters)?, 0) {
        // It is there, or in the kernel.
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// What the builder has written.
struct Lists {
    needs: BTreeMap<String, Vec<String>>,
    aliases: Vec<(String, String)>,
}

impl Lists {
    fn of(needs: &str, aliases: &str) -> Self {
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let needs = needs.lines().map(words).filter_map(|line| {
            let (module, needs) = line.split_first()?;
            Some((module.clone(), needs.to_vec()))
        });
        let aliases = aliases.lines().filter_map(|line| line.split_once(' '));
        let aliases = aliases.map(|(module, pattern)| (module.to_owned(), pattern.to_owned()));
        Self { needs: needs.collect(), aliases: aliases.collect() }
    }

    /// The modules to be loaded when there is `sign`, in this order.
    fn needed(&self, sign: &str) -> Vec<&str> {
        let fitting = self.aliases.iter().filter(|(_, pattern)| fits(pattern.as_bytes(), sign.as_bytes()));
        let mut needed = Vec::new();
        for (module, _) in fitting {
            let before = self.needs.get(module).into_iter().flatten();
            needed.extend(before.map(String::as_str).chain([module.as_str()]));
        }
        needed
    }
}

/// Whether a text fits a pattern: `*` is anything, `?` any byte, `[…]` one of those in it, which may be ranges.
fn fits(mut pattern: &[u8], mut text: &[u8]) -> bool {
    // Behind the last star: how the pattern goes on there, and what of the text the star has not taken yet.
    let mut star: Option<(&[u8], &[u8])> = None;
    loop {
        if let Some(rest) = pattern.strip_prefix(b"*") {
            star = Some((rest, text));
            pattern = rest;
        } else if let (Some(rest), [_, behind @ ..]) = (fits_one(pattern, text), text) {
            (pattern, text) = (rest, behind);
        } else if pattern.is_empty() && text.is_empty() {
            return true;
        } else {
            // It does not go on: the last star takes one byte more. Others before it need not.
            let Some((rest, [_, behind @ ..])) = star else { return false };
            star = Some((rest, behind));
            (pattern, text) = (rest, behind);
        }
    }
}

/// What follows a pattern's first element, if that is for one byte and the text begins with such.
fn fits_one<'a>(pattern: &'a [u8], text: &[u8]) -> Option<&'a [u8]> {
    let byte = text.first()?;
    match pattern {
        [b'?', rest @ ..] => Some(rest),
        [b'[', class @ ..] => {
            let end = class.iter().position(|byte| *byte == b']')?;
            is_in(&class[..end], byte).then_some(&class[end + 1..])
        }
        [literal, rest @ ..] => (literal == byte).then_some(rest),
        [] => None,
    }
}

fn is_in(class: &[u8], byte: &u8) -> bool {
    match class {
        [first, b'-', last, rest @ ..] => (first..=last).contains(&byte) || is_in(rest, byte),
        [one, rest @ ..] => one == byte || is_in(rest, byte),
        [] => false,
    }
}

/// What the kernel's command line says to modules: `kvm_amd.npt=0`.
struct Parameters(BTreeMap<String, Vec<String>>);

impl Parameters {
    fn read() -> Result<Self, String> {
        let line = fs::read_to_string("/proc/cmdline").map_err(about("/proc/cmdline"))?;
        let cpu = fs::read_to_string("/proc/cpuinfo").map_err(about("/proc/cpuinfo"))?;
        // QEMU's emulated nested paging now and then ends a busy guest. What the command line says comes later, and wins.
        let usual = if cpu.contains("QEMU TCG CPU") { "kvm_amd.npt=0 " } else { "" };
        Ok(Self::of(&(usual.to_owned() + &line)))
    }

    fn of(line: &str) -> Self {
        let mut all = BTreeMap::<_, Vec<_>>::new();
        for (module, setting) in line.split_whitespace().filter_map(|word| word.split_once('.')) {
            all.entry(module.replace('-', "_")).or_default().push(setting.to_owned());
        }
        Self(all)
    }

    /// The parameters of a module.
    fn of_module(&self, name: &str) -> String {
        self.0.get(name).map(|settings| settings.join(" ")).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_of_modules_stand_in_the_kernels_own_syntax() {
        let parameters = Parameters::of("console=ttyS0 kvm_amd.npt=0 quiet kvm-amd.nested=0 tun.a=b\n");
        assert_eq!(parameters.of_module("kvm_amd"), "npt=0 nested=0");
        assert_eq!(parameters.of_module("tun"), "a=b");
        assert_eq!(parameters.of_module("kvm"), "");
    }

    #[test]
    fn a_module_is_loaded_behind_those_that_it_needs_and_for_what_it_drives_alone() {
        let lists = Lists::of(
            "tun\nkvm_amd irqbypass kvm\nkvm_intel irqbypass kvm\n",
            "tun always\nkvm_amd cpu:type:x86,ven*:feature:*00C2*\nkvm_intel cpu:type:x86,ven*:feature:*0085*\n",
        );
        assert_eq!(lists.needed("always"), ["tun"]);
        let amd = "cpu:type:x86,ven0002fam0019mod0001:feature:,0000,0001,00C0,00C2,00C3";
        assert_eq!(lists.needed(amd), ["irqbypass", "kvm", "kvm_amd"]);
        assert!(lists.needed("cpu:type:x86,ven0002fam0019mod0001:feature:,0000").is_empty());
    }

    #[test]
    fn patterns_are_those_of_the_kernels_own_lists() {
        let network = "pci:v00001AF4d00001041sv00001AF4sd00001100bc02sc00i00";
        let usb = "usb:v13FDp3940d0100dc00dsc00dp00ic08isc06ip50in00";
        for (pattern, text) in [
            ("always", "always"),
            ("pci:v00001AF4d*sv*sd*bc*sc*i*", network),
            ("pci:v*d*sv*sd*bc02sc*i*", network),
            ("usb:v13FDp3940d0[0-2]*dc*dsc*dp*ic*isc*ip*in*", usb),
            ("usb:v*p*d*dc*dsc*dp*ic08isc06ip50in*", usb),
            ("mdio:00??1*", "mdio:0001100"),
            ("*[B-D0]", "xyz0"),
            ("*", ""),
            ("*aab", "aaaab"),
        ] {
            assert!(fits(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("always", "always?"),
            ("always", "alway"),
            ("pci:v00001AF5d*sv*sd*bc*sc*i*", network),
            ("pci:v*d*sv*sd*bc03sc*i*", network),
            ("usb:v13FDp3940d0[2-9]*dc*dsc*dp*ic*isc*ip*in*", usb),
            ("?", ""),
            ("[", "["),
            ("*[B-D]", "E"),
            ("*aab", "aaaaba"),
        ] {
            assert!(!fits(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
        }
    }
}
