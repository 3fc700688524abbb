//! Upstream's test guests on the appliance's tender and KVM, with the outcomes that upstream expects: what `make test` does
//! in ring 3.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use petrel_qemu_tests::{Host, Machine, Settings, appliance, with_libraries};
use petrel_tests::checkout;

/// Where the test program looks for upstream's guests, and writes what it needs.
const FOLDER: &str = "target/tmp";
/// Upstream's cases for hvt, those of its newer options, and bad input.
const CASES: [&str; 5] = ["guests::", "options::", "refusals::", "--skip", "spt_guests::"];
/// What the tests start, of this machine.
const PROGRAMS: [&str; 3] = ["ip", "true", "unshare"];
/// How long a guest may take on an emulated CPU.
const GUEST_SECONDS: u32 = 300;

/// Upstream's source tree, built.
pub fn solo5() -> PathBuf {
    let tree = checkout().join(FOLDER).join("solo5/solo5-sys-0.1.0/solo5");
    assert!(tree.exists(), "`make qemu-parts` builds {}", tree.display());
    tree
}

/// Upstream's test guests, and what says that they are built, each where it is.
fn guests() -> Vec<(String, PathBuf)> {
    let entries = |folder: &Path| {
        let entries =
            fs::read_dir(folder).expect("upstream's tree").map(|entry| entry.expect("readable").path());
        entries.collect::<Vec<_>>()
    };
    let tests = entries(&solo5().join("tests")).into_iter().filter(|path| path.is_dir());
    let guests = tests.flat_map(|test| entries(&test));
    let guests = guests.filter(|file| file.extension().is_some_and(|extension| extension == "hvt"));
    let stamp = checkout().join(FOLDER).join("solo5/stamp");
    guests.chain([stamp]).map(|file| (file.display().to_string(), file)).collect()
}

/// A program of this machine.
fn program(name: &str) -> PathBuf {
    let path = petrel_appliance::run::path();
    let mut places = path.split(':').map(|folder| Path::new(folder).join(name));
    places.find(|place| place.exists()).unwrap_or_else(|| panic!("{name}: `make setup` installs it"))
}

/// The names of the tests.
fn cases(tests: &Path) -> Vec<String> {
    let listed = Command::new(tests).args(["--list", "--format", "terse"]).args(CASES).output();
    let listed = String::from_utf8(listed.expect("the test program runs").stdout).expect("names");
    listed.lines().filter_map(|line| Some(line.strip_suffix(": test")?.to_owned())).collect()
}

#[test]
fn upstreams_guests_do_on_kvm_what_upstream_expects() {
    let (host, tests) = (Host::new("alpha"), appliance("conformance"));
    let mut files = with_libraries("/conformance", tests.clone());
    files.extend(PROGRAMS.iter().flat_map(|name| with_libraries(&format!("/bin/{name}"), program(name))));
    files.extend(guests());
    files.push(("/witness".into(), appliance("petrel-witness")));
    let folder = checkout().join(FOLDER);
    let append = format!(
        "rdinit=/witness PETREL_TENDER=/petrel/petrel-tender PETREL_TEST_BACKEND=kvm PETREL_TEST_SECONDS={GUEST_SECONDS} \
         -- run {} /conformance --test-threads 1 {}",
        folder.display(),
        CASES.join(" ")
    );
    let machine = Machine::boot_with(
        &host,
        &Settings { overlay: Some(host.overlay(&files)), append, ..Settings::of(&host) },
    );
    let cases = cases(&tests);
    assert!(cases.len() > 20, "{cases:?}");
    // Each has the time that anything may take.
    for case in &cases {
        let case = format!("witness: test {case} ... ");
        let line = |text| machine.console.find(text).map(|(_, line)| line);
        println!("{}", machine.eventually(&case, || line(&case).or_else(|| line("witness: ended: "))));
    }
    let (_, ended) = machine.console.until("witness: ended: ");
    assert!(ended.ends_with("exit status: 0"), "{ended}");
    let passed = format!("witness: test result: ok. {} passed; 0 failed", cases.len());
    assert!(machine.console.find(&passed).is_some(), "{}", machine.console.text());
}
