//! Our images in upstream's own tools: Solo5 v0.7.2's elftool and hvt tender.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::run::{Outcome, run};
use crate::support::{Scratch, solo5};

/// An image as `make build` leaves it, in `$PETREL_IMAGES` or the workspace's out/.
fn image(name: &str) -> PathBuf {
    let folder =
        std::env::var_os("PETREL_IMAGES").map_or_else(|| solo5::workspace_root().join("out"), PathBuf::from);
    let image = folder.join(name);
    assert!(image.is_file(), "{} does not exist: run `make build` first", image.display());
    image
}

fn elftool(query: &str, image: &Path) -> Outcome {
    let mut command = Command::new(solo5::elftool());
    command.arg(query).arg(image);
    run(command)
}

/// An image and the devices it must declare: names with their types as upstream prints them.
struct Expected {
    image: &'static str,
    devices: &'static [(&'static str, &'static str)],
}

#[test]
fn petrel_hvt_is_taken_by_the_reference_tools() {
    taken_by_the_reference_tools(&Expected {
        image: "petrel.hvt",
        devices: &[
            ("service", "NET_BASIC"),
            ("shim", "NET_BASIC"),
            ("seal", "BLOCK_BASIC"),
            ("state", "BLOCK_BASIC"),
        ],
    });
}

#[test]
fn hello_hvt_is_taken_by_the_reference_tools() {
    taken_by_the_reference_tools(&Expected { image: "hello.hvt", devices: &[] });
}

#[test]
fn web_hvt_is_taken_by_the_reference_tools() {
    taken_by_the_reference_tools(&Expected { image: "web.hvt", devices: &[("service", "NET_BASIC")] });
}

#[test]
fn crash_hvt_is_taken_by_the_reference_tools() {
    taken_by_the_reference_tools(&Expected { image: "crash.hvt", devices: &[] });
}

fn taken_by_the_reference_tools(expected: &Expected) {
    let image = image(expected.image);
    let abi = elftool("query-abi", &image);
    assert_eq!(abi.code(), Some(0), "{abi}");
    abi.expect_says(r#""target": "hvt""#);

    let manifest = elftool("query-manifest", &image);
    assert_eq!(manifest.code(), Some(0), "{manifest}");
    for (name, kind) in expected.devices {
        manifest.expect_says(&format!(r#"{{ "name": "{name}", "type": "{kind}" }}"#));
    }
    assert_eq!(manifest.output.matches(r#""name":"#).count(), expected.devices.len(), "{manifest}");

    let scratch = Scratch::new(expected.image);
    let of_abi_1 = scratch.file("abi-1.hvt", &with_abi_version_1(&image));
    read_by_the_reference_tender(&of_abi_1);
    loaded_by_the_reference_loader(&of_abi_1, expected, &scratch);
}

/// The image with ABI version 1 in its ABI1 note.
///
/// v0.7.2 knows version 1 only. Upstream raised it to 2 in v0.8.0 because its loader then took images that the older
/// one refuses (thread-local storage, .bss in a segment of its own); what a guest and its tender say to each other is
/// the same. Our images need no newer loader, so v0.7.2 must take them once the number is its own.
fn with_abi_version_1(image: &Path) -> Vec<u8> {
    /// Type and name of the note, then the first word of its content: target 1, hvt. The version follows.
    const HEADER: &[u8] = b"ABI1Solo5\0\0\0\x01\0\0\0";
    let mut bytes = fs::read(image).expect("readable");
    let header = bytes.windows(HEADER.len()).position(|window| window == HEADER);
    let version = header.expect("the image has an ABI1 note for hvt") + HEADER.len();
    assert!(matches!(bytes[version..version + 4], [1 | 2, 0, 0, 0]), "an ABI version that upstream has");
    bytes[version] = 1;
    bytes
}

/// The tender looks into the manifest before it needs KVM, and only when ELF, ABI and manifest are in order.
fn read_by_the_reference_tender(image: &Path) {
    let mut command = Command::new(solo5::reference_tender());
    command.arg("--block:nosuchdevice=/dev/null").arg("--").arg(image);
    run(command).expect_refusal().expect_says("Resource not declared in manifest: 'nosuchdevice'");
}

/// The entry in the image's own ELF header: `e_entry`, a little-endian word at byte 24.
fn entry_of(image: &Path) -> u64 {
    let bytes = fs::read(image).expect("readable");
    u64::from_le_bytes(bytes[24..32].try_into().expect("eight bytes"))
}

/// The tender's loader, which the tender itself runs only when it has KVM.
fn loaded_by_the_reference_loader(image: &Path, expected: &Expected, scratch: &Scratch) {
    let tree = solo5::tree();
    let program = scratch.path().join("load");
    let mut compile = Command::new("cc");
    compile.arg("-I").arg(tree.join("include")).arg("-I").arg(tree.join("tenders/common"));
    compile.arg("-o").arg(&program);
    compile.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/load.c"));
    compile.arg(tree.join("tenders/common/libcommon.a"));
    let compiled = run(compile);
    assert_eq!(compiled.code(), Some(0), "{compiled}");

    let mut load = Command::new(program);
    load.arg(image);
    let loaded = run(load);
    assert_eq!(loaded.code(), Some(0), "{loaded}");
    loaded.expect_says(&format!("loaded, entry {:#x}", entry_of(image)));
    for (name, kind) in expected.devices {
        loaded.expect_says(&format!("device {name} of type {kind}\n"));
    }
    assert_eq!(loaded.output.matches("device ").count(), expected.devices.len(), "{loaded}");
}
