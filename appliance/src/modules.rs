//! The kernel's modules that go in, by name, with all that they depend on.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::archive::Archive;
use crate::{about, packages, read, run};

/// In the order in which they are loaded. What is not on this list (and needed by nothing on it) is not in the appliance.
const WANTED: &[&str] = &[
    // What others look for when they are loaded, without naming it as a dependency.
    "crc32c_generic",
    "crc32c-intel",
    // What guests need.
    "kvm",
    "kvm-amd",
    "kvm-intel",
    "tun",
    "bridge",
    "nf_tables",
    // Disks.
    "ext4",
    "virtio_pci",
    "virtio_blk",
    "virtio_scsi",
    "sd_mod",
    "nvme",
    "ahci",
    "xhci-pci",
    "ehci-pci",
    "uas",
    "usb-storage",
    // Slots of the system.
    "efivarfs",
    "vfat",
    "nls_cp437",
    "nls_ascii",
    // Networks.
    "virtio_net",
    "e1000",
    "e1000e",
    "igb",
    "igc",
    "ixgbe",
    "r8169",
    "tg3",
    // The rest.
    "virtio-rng",
    "i6300esb",
    "iTCO_wdt",
    "sp5100_tco",
];

/// Puts the modules below `modules/`, and the order in which they are loaded.
pub fn add(kernel: &Path, archive: &mut Archive) -> Result<(), String> {
    let folder = packages::only(&kernel.join("lib/modules"), "")?;
    let list = folder.join("modules.dep");
    let dependencies = parse(&fs::read_to_string(&list).map_err(about(&list))?);
    let built_in = fs::read_to_string(folder.join("modules.builtin")).map_err(about(&folder))?;
    let built_in: Vec<_> = built_in.lines().map(name).collect();
    let mut order = Vec::new();
    for wanted in WANTED.iter().map(|wanted| name(wanted)).filter(|wanted| !built_in.contains(wanted)) {
        visit(&wanted, &dependencies, &mut order)?;
    }
    archive.folder("modules");
    for module in &order {
        let (file, _) = &dependencies[module];
        archive.file(&format!("modules/{module}.ko"), 0o600, unpack(&folder.join(file))?);
    }
    archive.file("modules/order", 0o600, (order.join("\n") + "\n").into_bytes());
    Ok(())
}

/// Each module's file, and the names of those that it needs.
type Dependencies = BTreeMap<String, (PathBuf, Vec<String>)>;

fn parse(list: &str) -> Dependencies {
    let lines = list.lines().filter_map(|line| line.split_once(':'));
    lines
        .map(|(file, needs)| (name(file), (file.into(), needs.split_whitespace().map(name).collect())))
        .collect()
}

/// A module's name: its file's, without what follows the first dot, and dashes as the kernel writes them.
fn name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split('.').next().unwrap_or(file).replace('-', "_")
}

fn visit(module: &str, dependencies: &Dependencies, order: &mut Vec<String>) -> Result<(), String> {
    if order.iter().any(|done| done == module) {
        return Ok(());
    }
    let (_, needs) = dependencies.get(module).ok_or_else(|| format!("the kernel has no module {module}"))?;
    // modules.dep names what is needed the other way round, and whole.
    needs.iter().rev().try_for_each(|needed| visit(needed, dependencies, order))?;
    order.push(module.to_owned());
    Ok(())
}

/// A module's bytes, as its signature is for.
fn unpack(file: &Path) -> Result<Vec<u8>, String> {
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => run::run(Command::new("xz").arg("-dc").arg(file)),
        Some("zst") => run::run(Command::new("zstd").arg("-dc").arg(file)),
        _ => read(file),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "kernel/arch/x86/kvm/kvm-amd.ko: kernel/arch/x86/kvm/kvm.ko kernel/virt/lib/irqbypass.ko\n\
                        kernel/arch/x86/kvm/kvm.ko.xz: kernel/virt/lib/irqbypass.ko\n\
                        kernel/virt/lib/irqbypass.ko:\n";

    #[test]
    fn a_module_comes_after_all_that_it_needs_and_once() {
        let (dependencies, mut order) = (parse(LIST), Vec::new());
        for wanted in ["kvm_amd", "kvm", "irqbypass"] {
            visit(wanted, &dependencies, &mut order).unwrap();
        }
        assert_eq!(order, ["irqbypass", "kvm", "kvm_amd"]);
    }

    #[test]
    fn one_that_the_kernel_has_not_got_is_named() {
        let error = visit("floppy", &parse(LIST), &mut Vec::new()).unwrap_err();
        assert_eq!(error, "the kernel has no module floppy");
    }
}
