//! Makes the sealed appliance: `petrel-appliance --help`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use x509_cert::Certificate;
use x509_cert::der::DecodePem;

use petrel_appliance::archive::{self, Archive};
use petrel_appliance::packages::{self, Packages};
use petrel_appliance::uki::{self, Signer};
use petrel_appliance::{about, image, modules, read, run};

/// What goes in of ours: petrel-init as the first process, and what it starts.
const PROGRAMS: &[&str] = &["petrel-shim", "petrel-tender"];
/// An empty ext4 for the first boot: small, as it grows to the size of its place.
const STATE_KIB: u32 = 16 * 1024;
const STATE_UUID: &str = "70657472-656c-4000-8000-737461746521";

/// The kernel's command line. What it says last on the serial console it says on the screen as well; a kernel that has
/// failed starts again.
const CMDLINE: &str = "console=tty0 console=ttyS0,115200 panic=5 quiet";
const EFI: &str = "usr/lib/systemd/boot/efi";

/// Makes the sealed appliance: a bootable image for UEFI, and a kernel and an initramfs for QEMU and PXE.
#[derive(Parser)]
struct Args {
    /// The folder of petrel-init, petrel-shim and petrel-tender, statically linked
    #[arg(long)]
    programs: PathBuf,
    /// The control plane's image
    #[arg(long)]
    control_plane: PathBuf,
    /// Where packages are kept
    #[arg(long)]
    cache: PathBuf,
    /// Where the appliance goes
    #[arg(long)]
    out: PathBuf,
    /// The package whose dependency is the kernel
    #[arg(long, default_value = "linux-image-amd64")]
    kernel: String,
    /// The private key that signs for Secure Boot, PEM
    #[arg(long, requires = "certificate")]
    key: Option<PathBuf>,
    /// Its certificate, PEM
    #[arg(long, requires = "key")]
    certificate: Option<PathBuf>,
    /// The certificate of the operators' CA whose hosts alone the appliance shall be, PEM; any CA's when absent
    #[arg(long)]
    operators: Option<PathBuf>,
}

fn main() -> ExitCode {
    match make(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("appliance: {error}");
            ExitCode::FAILURE
        }
    }
}

fn make(args: &Args) -> Result<(), String> {
    let packages = Packages::new(&args.cache)?;
    let kernel = packages.kernel(&args.kernel)?;
    fs::create_dir_all(&args.out).map_err(about(&args.out))?;
    let initrd = args.out.join("initrd.img");
    let contents = contents(args, &kernel)?;
    archive::compress(&contents.finish(), &initrd)?;
    let vmlinuz = args.out.join("vmlinuz");
    fs::copy(packages::only(&kernel.join("boot"), "vmlinuz-")?, &vmlinuz).map_err(about(&vmlinuz))?;
    let efi = packages.unpacked("systemd-boot-efi")?.join(EFI);
    let unified = args.out.join("petrel.efi");
    uki::make(&efi.join("linuxx64.efi.stub"), &vmlinuz, &initrd, CMDLINE, &unified)?;
    let boot_manager = args.out.join("boot.efi");
    fs::copy(efi.join("systemd-bootx64.efi"), &boot_manager).map_err(about(&boot_manager))?;
    if let (Some(key), Some(certificate)) = (args.key.clone(), args.certificate.clone()) {
        let signer = Signer { key, certificate };
        [&unified, &boot_manager].iter().try_for_each(|file| uki::sign(file, &signer))?;
    }
    let image = args.out.join("petrel.img");
    image::make(&unified, &boot_manager, &image)?;
    fs::remove_file(&boot_manager).map_err(about(&boot_manager))?;
    for file in [vmlinuz, initrd, unified, image] {
        let bytes = fs::metadata(&file).map_err(about(&file))?.len();
        println!("{:<40} {:>6.1} MB", file.display(), bytes as f64 / 1e6);
    }
    Ok(())
}

/// All that the appliance's root file system holds.
fn contents(args: &Args, kernel: &Path) -> Result<Archive, String> {
    let mut archive = Archive::default();
    for folder in ["dev", "petrel", "proc", "run", "state", "sys"] {
        archive.folder(folder);
    }
    archive.file("init", 0o755, read(&args.programs.join("petrel-init"))?);
    for program in PROGRAMS {
        archive.file(&format!("petrel/{program}"), 0o755, read(&args.programs.join(program))?);
    }
    archive.file("petrel/petrel.hvt", 0o644, read(&args.control_plane)?);
    archive.file("petrel/state.ext4", 0o600, empty_state(&args.out)?);
    if let Some(certificate) = &args.operators {
        archive.file("petrel/operators.key", 0o644, operators_key(certificate)?);
    }
    modules::add(kernel, &mut archive)?;
    Ok(archive)
}

fn empty_state(folder: &Path) -> Result<Vec<u8>, String> {
    let file = folder.join("state.ext4");
    let seed =
        format!("hash_seed={STATE_UUID},root_owner=0:0,lazy_itable_init=0,lazy_journal_init=0,nodiscard");
    let command = ["-q", "-F", "-t", "ext4", "-b", "4096", "-i", "4096", "-m", "0", "-J", "size=4"];
    run::run(
        std::process::Command::new("mke2fs")
            .args(command)
            .args(["-U", STATE_UUID, "-E", &seed, "-L", "petrel-state"])
            .arg(&file)
            .arg(STATE_KIB.to_string() + "k")
            // Its times are those of the epoch.
            .env("E2FSPROGS_FAKE_TIME", "1")
            .env("PATH", run::path()),
    )?;
    let state = read(&file)?;
    fs::remove_file(&file).map_err(about(&file))?;
    Ok(state)
}

/// The public key of the operators' CA, as it signs sealed hosts.
fn operators_key(file: &Path) -> Result<Vec<u8>, String> {
    let certificate = Certificate::from_pem(read(file)?).map_err(about(file))?;
    let key = certificate.tbs_certificate().subject_public_key_info().subject_public_key.raw_bytes();
    if key.len() == 32 { Ok(key.to_vec()) } else { Err(format!("{}: not of an Ed25519 key", file.display())) }
}
