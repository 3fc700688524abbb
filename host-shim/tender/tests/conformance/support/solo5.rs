//! Solo5 v0.7.2, built from the sources that the registry crate `solo5-sys` ships: test guests, elftool and the
//! reference tender. Built once per target directory, by upstream's own configure.sh and makefiles.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The guests that the tests use: `tests/test_NAME/test_NAME.hvt` and `.spt` of upstream's tree.
const GUESTS: &[&str] = &[
    "blk",
    "exception",
    "fpu",
    "globals",
    "hello",
    "mft_maxdevices",
    "net",
    "net_2if",
    "notls",
    "quiet",
    "ssp",
    "time",
    "tls",
    "wnox",
    "xnow",
    "zeropage",
];

/// Those that only spt has.
const SPT_GUESTS: &[&str] = &["seccomp"];

/// Changes whenever the steps below do, so that a tree built by older steps is built again.
const RECIPE: &str = "Solo5 v0.7.2, recipe 2";

/// Upstream's test guest `name` for `target` ("hvt" or "spt").
pub fn guest(name: &str, target: &str) -> PathBuf {
    let image = tree().join(format!("tests/test_{name}/test_{name}.{target}"));
    assert!(image.is_file(), "{} was not built: is it in GUESTS?", image.display());
    image
}

/// A guest made of sources of ours (a `guest.c` and what belongs to it), by upstream's toolchain: the images' path, to
/// which the target is the extension.
pub fn guest_from(sources: &Path) -> PathBuf {
    let name = "test_of_ours";
    let folder = tree().join("tests").join(name);
    fs::create_dir_all(&folder).expect("the target directory is writable");
    for source in fs::read_dir(sources).expect("sources of ours") {
        let source = source.expect("readable");
        let to = match source.file_name() {
            file if file == "guest.c" => folder.join(format!("{name}.c")),
            file => folder.join(file),
        };
        fs::copy(source.path(), to).expect("readable and writable");
    }
    let makefile =
        format!("include $(TOPDIR)/Makefile.common\ntest_NAME := {name}\ninclude ../Makefile.tests\n");
    fs::write(folder.join("GNUmakefile"), makefile).expect("writable");
    // Headers are no prerequisites in upstream's rules.
    let _ = fs::remove_file(folder.join(format!("{name}.o")));
    make(tree(), &format!("tests/{name}"), &[&format!("{name}.hvt"), &format!("{name}.spt")]);
    folder.join(name)
}

/// The reference elftool.
pub fn elftool() -> PathBuf {
    tree().join("elftool/solo5-elftool")
}

/// The reference hvt tender.
pub fn reference_tender() -> PathBuf {
    tree().join("tenders/hvt/solo5-hvt")
}

/// Upstream's built source tree.
pub fn tree() -> &'static Path {
    static TREE: OnceLock<PathBuf> = OnceLock::new();
    TREE.get_or_init(|| {
        let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("solo5");
        fs::create_dir_all(&home).expect("the target directory is writable");
        let lock = File::create(home.join("lock")).expect("the target directory is writable");
        // Other test programs of this workspace use the same tree; the lock goes when `lock` is closed.
        lock.lock().expect("the file system has locks");
        let tree = home.join("solo5-sys-0.1.0/solo5");
        // The built tree knows its own absolute path.
        let stamp = format!("{RECIPE} in {}", tree.display());
        let stamp_file = home.join("stamp");
        if fs::read_to_string(&stamp_file).ok().as_deref() != Some(&stamp) {
            obtain(&home);
            build(&tree);
            fs::write(&stamp_file, &stamp).expect("the target directory is writable");
        }
        tree
    })
}

/// Unpacks the sources below `home`. `cargo vendor` downloads and checks them, and runs none of their code.
fn obtain(home: &Path) {
    let manifest = workspace_root().join("host-shim/tender/tests/upstream-sources/Cargo.toml");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    run(Command::new(cargo)
        .args(["vendor", "--locked", "--versioned-dirs", "--manifest-path"])
        .arg(manifest)
        .arg(home.join("vendor")));
    let unpacked = home.join("solo5-sys-0.1.0");
    if unpacked.exists() {
        fs::remove_dir_all(&unpacked).expect("the target directory is writable");
    }
    // Moved away: a later `cargo vendor` must not find its directory changed by the build.
    fs::rename(home.join("vendor/solo5-sys-0.1.0"), unpacked).expect("cargo vendor unpacked solo5-sys");
}

fn build(tree: &Path) {
    // A release tarball of upstream's has this file made by git.
    fs::write(tree.join("include/version.h"), "#define SOLO5_VERSION \"v0.7.2\"\n").expect("writable");
    // A newer compiler warns of more, which is no reason to fail here.
    let rules = tree.join("Makefile.common");
    let text = fs::read_to_string(&rules).expect("upstream's tree has Makefile.common");
    fs::write(&rules, text.replace(" -Werror", "")).expect("writable");

    run(Command::new("./configure.sh").current_dir(tree));
    make(tree, "elftool", &["solo5-elftool"]);
    make(tree, "toolchain", &[]);
    make(tree, "bindings", &["solo5_hvt.o", "solo5_spt.o"]);
    make(tree, "tenders", &["hvt/solo5-hvt", "spt/solo5-spt"]);
    let of_both = GUESTS.iter().flat_map(|name| [(name, "hvt"), (name, "spt")]);
    for (name, target) in of_both.chain(SPT_GUESTS.iter().map(|name| (name, "spt"))) {
        make(tree, &format!("tests/test_{name}"), &[&format!("test_{name}.{target}")]);
    }
}

fn make(tree: &Path, directory: &str, targets: &[&str]) {
    let mut top = std::ffi::OsString::from("TOPDIR=");
    top.push(tree);
    run(Command::new("make")
        .arg("-C")
        .arg(tree.join(directory))
        .arg(top)
        .args(targets)
        // The tests may themselves run under make, whose flags and job server are not meant for this one.
        .env_remove("MAKEFLAGS")
        .env_remove("MFLAGS")
        .env_remove("MAKELEVEL"));
}

fn run(command: &mut Command) {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error} (`make setup` installs what the tests need)"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}(`make setup` installs what the tests need)",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
}

/// The folder that holds the workspace's Cargo.lock.
pub fn workspace_root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = here.ancestors().find(|folder| folder.join("Cargo.lock").is_file());
    root.expect("the tests run in the workspace they were built in").to_path_buf()
}
