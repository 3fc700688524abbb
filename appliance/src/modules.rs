//! The kernel's modules that go in, by name, with all that they depend on and what each is for.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::archive::Archive;
use crate::{about, packages, read, run};

/// What is needed on each machine.
const ALWAYS: &[&str] = &[
    // What ext4 looks for, without naming it as a dependency.
    "crc32c_generic",
    "ext4",
    "bridge",
    "tun",
];

/// What is needed where UEFI firmware has booted the system: for its slots, which may be on a stick that appears late.
const EFI: &[&str] = &["efivarfs", "vfat", "nls_cp437", "nls_ascii", "sd_mod", "uas", "usb-storage"];

/// What is needed where there is a device that it drives.
const DRIVERS: &[&str] = &[
    // The CPU.
    "crc32c-intel",
    "kvm-amd",
    "kvm-intel",
    // Disks.
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

/// What petrel-init loads for nothing yet: filters.
const UNUSED: &[&str] = &["nf_tables"];

/// Puts the modules below `modules/`, with what `host-shim/init/src/modules.rs` reads of them. What is not named above (and
/// needed by nothing there) is not in the appliance.
pub fn add(kernel: &Path, archive: &mut Archive) -> Result<(), String> {
    let folder = packages::only(&kernel.join("lib/modules"), "")?;
    let text = |list| fs::read_to_string(folder.join(list)).map_err(about(&folder.join(list)));
    let dependencies = parse(&text("modules.dep")?, &text("modules.softdep")?);
    let built_in = text("modules.builtin")?;
    let built_in: BTreeSet<_> = built_in.lines().map(name).collect();
    archive.folder("modules");
    let (mut needs, mut packed) = (String::new(), BTreeSet::new());
    let wanted: BTreeSet<_> = [ALWAYS, EFI, DRIVERS, UNUSED].concat().into_iter().map(name).collect();
    for module in wanted.difference(&built_in) {
        let mut order = Vec::new();
        visit(module, &dependencies, &mut order)?;
        needs += &line_of_needs(&order);
        packed.extend(order);
    }
    for module in packed {
        let (file, _) = &dependencies[&module];
        archive.file(&format!("modules/{module}.ko"), 0o600, unpack(&folder.join(file))?);
    }
    archive.file("modules/needs", 0o600, needs.into_bytes());
    archive.file("modules/aliases", 0o600, aliases(&text("modules.alias")?, &built_in).into_bytes());
    Ok(())
}

/// A module, and what is loaded before it.
fn line_of_needs(order: &[String]) -> String {
    let (module, before) = order.split_last().expect("at least the module itself");
    [std::slice::from_ref(module), before].concat().join(" ") + "\n"
}

/// What each module is needed for: `module pattern` in each line.
fn aliases(list: &str, built_in: &BTreeSet<String>) -> String {
    let signs = [(ALWAYS, "always"), (EFI, "efi")];
    let signs =
        signs.iter().flat_map(|(modules, sign)| modules.iter().map(move |module| (name(module), *sign)));
    let drivers: BTreeSet<_> = DRIVERS.iter().map(|driver| name(driver)).collect();
    let devices = list.lines().filter_map(|line| {
        let (pattern, module) = line.strip_prefix("alias ")?.rsplit_once(' ')?;
        drivers.contains(module).then(|| (module.to_owned(), pattern))
    });
    let all = signs.chain(devices).filter(|(module, _)| !built_in.contains(module));
    all.map(|(module, pattern)| format!("{module} {pattern}\n")).collect()
}

/// Each module's file, and the names of those that it needs.
type Dependencies = BTreeMap<String, (PathBuf, Vec<String>)>;

/// From the kernel's lists: what a module names, and what it only asks to be there before it (`softdep`: a driver of
/// network cards and that of their other half). Of the latter some are no modules but what several can do; those are named
/// above.
fn parse(list: &str, soft: &str) -> Dependencies {
    let lines = list.lines().filter_map(|line| line.split_once(':'));
    // modules.dep names what is needed the other way round, and whole.
    let needs = |needs: &str| needs.split_whitespace().rev().map(name).collect();
    let mut all: Dependencies =
        lines.map(|(file, named)| (name(file), (file.into(), needs(named)))).collect();
    for line in soft.lines().filter_map(|line| line.strip_prefix("softdep ")) {
        let Some((module, before)) = line.split_once(" pre: ") else { continue };
        let before = before.split(" post:").next().unwrap_or_default().split_whitespace().map(name);
        let before: Vec<_> = before.filter(|module| all.contains_key(module)).collect();
        if let Some((_, needs)) = all.get_mut(&name(module)) {
            needs.extend(before);
        }
    }
    all
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
    needs.iter().try_for_each(|needed| visit(needed, dependencies, order))?;
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
                        kernel/virt/lib/irqbypass.ko:\n\
                        kernel/drivers/net/r8169.ko.xz: kernel/drivers/net/mdio.ko.xz\n\
                        kernel/drivers/net/mdio.ko.xz:\n\
                        kernel/drivers/net/phy/realtek.ko.xz:\n";
    const SOFT: &str = "# Soft dependencies\nsoftdep r8169 pre: realtek crypto-of-some post: mdio\n";

    #[test]
    fn a_module_comes_after_all_that_it_needs_and_once() {
        let (dependencies, mut order) = (parse(LIST, SOFT), Vec::new());
        for wanted in ["kvm_amd", "kvm", "irqbypass"] {
            visit(wanted, &dependencies, &mut order).unwrap();
        }
        assert_eq!(order, ["irqbypass", "kvm", "kvm_amd"]);
    }

    #[test]
    fn what_a_module_asks_for_comes_before_it_as_well() {
        let mut order = Vec::new();
        visit("r8169", &parse(LIST, SOFT), &mut order).unwrap();
        assert_eq!(order, ["mdio", "realtek", "r8169"]);
        assert_eq!(line_of_needs(&order), "r8169 mdio realtek\n");
    }

    #[test]
    fn a_driver_is_for_its_devices_and_others_are_for_each_machine() {
        let list = "# Aliases\nalias pci:v00001AF4d*sv*sd*bc*sc*i* virtio_pci\nalias fs-ext4 ext4\n\
                    alias cpu:type:x86,ven*fam*mod*:feature:*00C2* kvm_amd\nalias pci:v*bc03* nouveau\n";
        let written = aliases(list, &BTreeSet::from(["tun".to_owned()]));
        for line in [
            "ext4 always",
            "vfat efi",
            "virtio_pci pci:v00001AF4d*sv*sd*bc*sc*i*",
            "kvm_amd cpu:type:x86,ven*fam*mod*:feature:*00C2*",
        ] {
            assert!(written.lines().any(|written| written == line), "{line}");
        }
        for module in ["tun", "nouveau", "nf_tables"] {
            assert!(!written.lines().any(|line| line.starts_with(module)), "{module}");
        }
    }

    #[test]
    fn one_that_the_kernel_has_not_got_is_named() {
        let error = visit("floppy", &parse(LIST, SOFT), &mut Vec::new()).unwrap_err();
        assert_eq!(error, "the kernel has no module floppy");
    }
}
