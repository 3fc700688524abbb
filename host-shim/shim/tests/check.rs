//! What the shim lets its peer ask: each bound met from both sides.

use petrel_shim::check::{Refusal, check};
use petrel_shim::ledger::{Ledger, Record};
use petrel_wire::limits::{
    CMDLINE_BYTES_MAX, IMAGE_BYTES_MAX, IMAGE_READ_BYTES_MAX, IMAGES_MAX, SHIM_VERSION, TAPS_MAX,
    UNIKERNELS_MAX, UPLOADS_MAX,
};
use petrel_wire::shim::{
    Backend, Fault, Host, InstanceId, Listed, Monitor, Op, Reply, Spawn, SpawnBlock, SpawnNet, TapId,
};
use petrel_wire::{Blob, Digest, ExitStatus, List, Mac};

fn host() -> Host {
    let monitor =
        Monitor { name: "petrel-tender".parse().unwrap(), target: 1, version: 2, backend: Backend::Ring3 };
    Host {
        cpus: vec![0, 2].try_into().unwrap(),
        memory_mib: 1024,
        bridges: vec!["service".parse().unwrap()].try_into().unwrap(),
        monitors: vec![monitor].try_into().unwrap(),
    }
}

/// An image's name that is as good as any other.
fn digest(number: u32) -> Digest {
    let mut digest = Digest([0; 32]);
    digest.0[..4].copy_from_slice(&number.to_le_bytes());
    digest
}

fn start(ledger: &mut Ledger, instance: u64) {
    let listed = Listed { instance: InstanceId(instance), ..Listed::default() };
    ledger.started(Record { listed, ..Record::default() });
}

/// A ledger with an image, an upload with 10 bytes to come, a free tap, and two monitors: 1 has a tap and a volume,
/// 2 has ended. The control plane runs, as always.
fn ledger() -> Ledger {
    let mut ledger = Ledger { greeted: true, ..Ledger::default() };
    ledger.images.insert(digest(1));
    ledger.uploads.insert(digest(2), 10);
    ledger.taps.insert(TapId(1), None);
    start(&mut ledger, 0);
    let listed =
        Listed { instance: InstanceId(1), taps: vec![TapId(2)].try_into().unwrap(), ..Listed::default() };
    let volumes = vec!["taken".parse().unwrap()].try_into().unwrap();
    ledger.started(Record { listed, volumes, ..Record::default() });
    start(&mut ledger, 2);
    ledger.ended(InstanceId(2), ExitStatus::Code(0));
    ledger
}

fn spawn() -> Spawn {
    Spawn {
        instance: InstanceId(3),
        monitor: "petrel-tender".parse().unwrap(),
        image: digest(1),
        memory_mib: 32,
        cpus: List::new(),
        nets: List::new(),
        blocks: List::new(),
        args: List::new(),
        tag: Blob::default(),
    }
}

fn nets(devices: &[(&str, u32)]) -> List<SpawnNet, 16> {
    let net = |&(device, tap): &(&str, u32)| SpawnNet {
        device: device.parse().unwrap(),
        tap: TapId(tap),
        mac: Mac([2, 0, 0, 0, 0, 1]),
    };
    devices.iter().map(net).collect::<Vec<_>>().try_into().unwrap()
}

fn blocks(devices: &[(&str, &str)]) -> List<SpawnBlock, 16> {
    let block = |&(device, volume): &(&str, &str)| SpawnBlock {
        device: device.parse().unwrap(),
        volume: volume.parse().unwrap(),
    };
    devices.iter().map(block).collect::<Vec<_>>().try_into().unwrap()
}

fn args(args: &[&[u8]]) -> List<Blob<CMDLINE_BYTES_MAX>, 128> {
    args.iter().map(|arg| Blob::try_from(*arg).unwrap()).collect::<Vec<_>>().try_into().unwrap()
}

#[track_caller]
fn passes(op: Op, ledger: &Ledger) {
    assert_eq!(check(op.clone(), &host(), ledger).map(|checked| checked.into_op()), Ok(op));
}

#[track_caller]
fn faulted(op: Op, ledger: &Ledger, fault: Fault) {
    assert_eq!(check(op, &host(), ledger).map(|_| ()), Err(Refusal::Fault(fault)));
}

#[track_caller]
fn violates(op: Op, ledger: &Ledger, word: &str) {
    match check(op, &host(), ledger).map(|_| ()) {
        Err(Refusal::Violation(violation)) => assert!(violation.contains(word), "{violation}"),
        other => panic!("expected a violation, with the word {word}, but got {other:?}"),
    }
}

#[track_caller]
fn spawn_violates(change: impl FnOnce(&mut Spawn), word: &str) {
    let mut spawn = spawn();
    change(&mut spawn);
    violates(Op::Spawn(spawn.into()), &ledger(), word);
}

#[track_caller]
fn spawn_faulted(change: impl FnOnce(&mut Spawn), fault: Fault) {
    let mut spawn = spawn();
    change(&mut spawn);
    faulted(Op::Spawn(spawn.into()), &ledger(), fault);
}

#[test]
fn a_hello_comes_first_once_and_of_one_version() {
    let new = Ledger::default();
    passes(Op::Hello { version: SHIM_VERSION }, &new);
    violates(Op::Hello { version: SHIM_VERSION + 1 }, &new, "hello");
    violates(Op::Host, &new, "before hello");
    violates(Op::Hello { version: SHIM_VERSION }, &ledger(), "second hello");
    violates(Op::Hello { version: SHIM_VERSION + 1 }, &ledger(), "another version");
    passes(Op::Host, &ledger());
    passes(Op::List { after: None }, &ledger());
}

#[test]
fn an_upload_has_a_size_and_keeps_to_it() {
    let ledger = ledger();
    let begin = |number, bytes| Op::ImageBegin { digest: digest(number), bytes };
    passes(begin(3, 1), &ledger);
    passes(begin(3, IMAGE_BYTES_MAX), &ledger);
    passes(begin(1, 1), &ledger); // it is there, which is no fault
    violates(begin(3, 0), &ledger, "size");
    violates(begin(3, IMAGE_BYTES_MAX + 1), &ledger, "size");
    faulted(begin(2, 10), &ledger, Fault::Exists);

    let chunk = |number, bytes: usize| Op::ImageChunk {
        digest: digest(number),
        data: Blob::try_from(vec![0; bytes]).unwrap(),
    };
    passes(chunk(2, 10), &ledger);
    violates(chunk(2, 11), &ledger, "more bytes");
    passes(chunk(9, 11), &ledger); // of an upload that was refused: it is dropped

    violates(Op::ImageCommit(digest(2)), &ledger, "fewer bytes");
    faulted(Op::ImageCommit(digest(9)), &ledger, Fault::NotFound);
    let mut whole = ledger.clone();
    whole.uploads.insert(digest(2), 0);
    passes(Op::ImageCommit(digest(2)), &whole);
    passes(Op::ImageAbort(digest(2)), &ledger);
    faulted(Op::ImageAbort(digest(9)), &ledger, Fault::NotFound);
}

#[test]
fn an_image_is_read_in_small_parts_and_removed_if_it_is_there() {
    let ledger = ledger();
    let read = |number, bytes: usize| Op::ImageRead {
        digest: digest(number),
        offset: u64::MAX,
        bytes: u32::try_from(bytes).unwrap(),
    };
    passes(read(1, IMAGE_READ_BYTES_MAX), &ledger);
    violates(read(1, IMAGE_READ_BYTES_MAX + 1), &ledger, "read");
    faulted(read(2, 1), &ledger, Fault::NotFound);
    passes(Op::ImageRemove(digest(1)), &ledger);
    faulted(Op::ImageRemove(digest(2)), &ledger, Fault::NotFound);
}

#[test]
fn a_tap_is_on_a_configured_bridge_and_destroyed_while_nobody_has_it() {
    let ledger = ledger();
    let create = |tap, bridge: &str| Op::TapCreate { tap: TapId(tap), bridge: bridge.parse().unwrap() };
    passes(create(3, "service"), &ledger);
    violates(create(3, "private"), &ledger, "bridge");
    faulted(create(1, "service"), &ledger, Fault::Exists);
    faulted(create(2, "service"), &ledger, Fault::Exists);
    passes(Op::TapDestroy(TapId(1)), &ledger);
    faulted(Op::TapDestroy(TapId(2)), &ledger, Fault::InUse);
    faulted(Op::TapDestroy(TapId(3)), &ledger, Fault::NotFound);
}

#[test]
fn a_spawn_that_no_honest_control_plane_asks_for_is_a_violation() {
    passes(Op::Spawn(spawn().into()), &ledger());
    spawn_violates(|spawn| spawn.instance = InstanceId::CONTROL_PLANE, "own instance");
    spawn_violates(|spawn| spawn.monitor = "sh".parse().unwrap(), "monitor");
    spawn_violates(|spawn| spawn.memory_mib = 1, "memory");
    spawn_violates(|spawn| spawn.memory_mib = 1025, "memory");
    spawn_violates(|spawn| spawn.cpus = vec![0, 1].try_into().unwrap(), "CPU");
    spawn_violates(|spawn| spawn.nets = nets(&[("a", 1), ("b", 1)]), "tap");
    spawn_violates(|spawn| spawn.blocks = blocks(&[("a", "x"), ("a", "y")]), "devices");
    spawn_violates(
        |spawn| {
            spawn.nets = nets(&[("a", 1)]);
            spawn.blocks = blocks(&[("a", "x")]);
        },
        "devices",
    );
    spawn_violates(|spawn| spawn.args = args(&[b"a\0b"]), "arguments");
    // Each takes a byte more, for the space or NUL that follows it.
    let half = vec![b'a'; CMDLINE_BYTES_MAX / 2 - 1];
    let mut full = spawn();
    full.args = args(&[&half, &half]);
    passes(Op::Spawn(full.into()), &ledger());
    spawn_violates(|spawn| spawn.args = args(&[&half, &half, b""]), "arguments");
}

#[test]
fn a_spawn_for_which_something_is_missing_or_taken_is_a_fault() {
    let mut whole = spawn();
    whole.nets = nets(&[("net", 1)]);
    whole.blocks = blocks(&[("disk", "free")]);
    passes(Op::Spawn(whole.into()), &ledger());
    spawn_faulted(|spawn| spawn.instance = InstanceId(1), Fault::Exists);
    spawn_faulted(|spawn| spawn.instance = InstanceId(2), Fault::Exists);
    spawn_faulted(|spawn| spawn.image = digest(2), Fault::NotFound);
    spawn_faulted(|spawn| spawn.nets = nets(&[("net", 3)]), Fault::NotFound);
    spawn_faulted(|spawn| spawn.nets = nets(&[("net", 2)]), Fault::InUse);
    spawn_faulted(|spawn| spawn.blocks = blocks(&[("disk", "taken")]), Fault::InUse);
    spawn_faulted(|spawn| spawn.blocks = blocks(&[("a", "free"), ("b", "free")]), Fault::InUse);
}

#[test]
fn a_monitor_is_killed_at_any_time_and_forgotten_once_it_has_ended() {
    let ledger = ledger();
    passes(Op::Kill(InstanceId(1)), &ledger);
    passes(Op::Kill(InstanceId(2)), &ledger);
    faulted(Op::Kill(InstanceId(3)), &ledger, Fault::NotFound);
    faulted(Op::Forget(InstanceId(1)), &ledger, Fault::InUse);
    passes(Op::Forget(InstanceId(2)), &ledger);
    faulted(Op::Forget(InstanceId(3)), &ledger, Fault::NotFound);
}

#[test]
fn the_control_planes_own_monitor_is_nobodys_to_ask_for() {
    let mut ledger = ledger();
    faulted(Op::Kill(InstanceId::CONTROL_PLANE), &ledger, Fault::NotFound);
    ledger.ended(InstanceId::CONTROL_PLANE, ExitStatus::Code(0));
    faulted(Op::Forget(InstanceId::CONTROL_PLANE), &ledger, Fault::NotFound);
    for after in [None, Some(InstanceId::CONTROL_PLANE)] {
        let Reply::Listed { page, more: false } = ledger.page(after) else { panic!("expected one page") };
        let instances: Vec<_> = page.iter().map(|listed| listed.instance.0).collect();
        assert_eq!(instances, [1, 2]);
    }
}

#[test]
fn no_table_grows_over_its_bound() {
    let begin = Op::ImageBegin { digest: digest(u32::MAX), bytes: 1 };
    let mut uploads = Ledger { greeted: true, ..Ledger::default() };
    uploads.uploads.extend((1..u32::try_from(UPLOADS_MAX).unwrap()).map(|number| (digest(number), 1)));
    passes(begin.clone(), &uploads);
    uploads.uploads.insert(digest(0), 1);
    faulted(begin.clone(), &uploads, Fault::Full);

    // An upload holds the place of its image.
    let mut images = Ledger { greeted: true, ..Ledger::default() };
    images.images.extend((2..u32::try_from(IMAGES_MAX).unwrap()).map(digest));
    images.uploads.insert(digest(1), 1);
    passes(begin.clone(), &images);
    images.images.insert(digest(0));
    faulted(begin, &images, Fault::Full);

    let create = Op::TapCreate { tap: TapId(u32::MAX), bridge: "service".parse().unwrap() };
    let mut taps = Ledger { greeted: true, ..Ledger::default() };
    taps.taps.extend((1..u32::try_from(TAPS_MAX).unwrap()).map(|number| (TapId(number), None)));
    passes(create.clone(), &taps);
    taps.taps.insert(TapId(0), None);
    faulted(create, &taps, Fault::Full);

    let mut monitors = Ledger { greeted: true, ..Ledger::default() };
    monitors.images.insert(digest(1));
    // The control plane's is not one of them.
    (0..UNIKERNELS_MAX as u64).for_each(|instance| start(&mut monitors, instance));
    let last = Spawn { instance: InstanceId(UNIKERNELS_MAX as u64), ..spawn() };
    passes(Op::Spawn(last.clone().into()), &monitors);
    start(&mut monitors, u64::MAX);
    faulted(Op::Spawn(last.into()), &monitors, Fault::Full);
}
