//! Creating: what is checked, what it costs, and that a refused create leaves nothing.

use petrel_wire::{
    Blob,
    limits::{CMDLINE_BYTES_MAX, MEMORY_MIB_MAX, TAPS_MAX, UNIKERNELS_MAX},
    operator::{
        Block, Create, DeviceKind, ImageFault, Refusal, Request, Response, State, Table, VolumeRefusal,
    },
    shim::{Fault, Op},
};

use crate::{
    host::Applies,
    image::{self, BLOCK, NET, Recipe, digest},
    world::{World, create, info, name, networked, plain},
};

const TWO_NETS: Recipe<'static> = Recipe {
    target: image::HVT,
    version: 2,
    devices: &[("net0", NET), ("net1", NET)],
    end: 0x20_0000,
    notes_at: 512,
    padding: 0,
};

const TWO_DISKS: Recipe<'static> = Recipe { devices: &[("disk0", BLOCK), ("disk1", BLOCK)], ..TWO_NETS };
const NOTHING: Recipe<'static> = Recipe { devices: &[], ..TWO_NETS };

fn disk(device: &str, volume: &str) -> Block {
    Block { device: device.parse().unwrap(), volume: volume.parse().unwrap() }
}

pub fn with_disks(create: Create, disks: &[(&str, &str)]) -> Create {
    let blocks: Vec<_> = disks.iter().map(|(device, volume)| disk(device, volume)).collect();
    Create { blocks: blocks.try_into().unwrap(), ..create }
}

/// The volume "data" belongs to this unikernel.
fn in_use(user: Option<&str>) -> Refusal {
    VolumeRefusal::InUse { volume: name("data"), user: user.map(name) }.into()
}

/// Nothing of any refused create is anywhere.
fn nothing_is_left(world: &mut World) -> bool {
    let empty = world.list().is_empty();
    empty && world.host.ledger.taps.is_empty() && world.host.running().is_empty()
}

#[test]
fn a_create_is_one_round_trip_when_its_image_is_known() {
    let mut world = World::new();
    let digest = world.host.store(image::build(&TWO_NETS));
    let session = world.client();
    world.create(session, 1, networked("first", digest, &["net0", "net1"]));
    world.send(session, 2, create(networked("second", digest, &["net1", "net0"])));
    let asked: Vec<_> = world.requests.iter().map(|request| &request.op).collect();
    assert!(matches!(asked[..], [Op::TapCreate { .. }, Op::TapCreate { .. }, Op::Spawn(_)]));
    world.run();
    let Response::Created(unikernel) = world.next(session, 2) else { panic!() };
    assert_eq!((unikernel.name, unikernel.state), (name("second"), State::Running));
    assert_eq!(world.host.free_taps(), 0);
}

#[test]
fn an_unknown_image_is_looked_into_once_for_all_who_wait() {
    let mut world = World::new();
    let digest = world.host.store(image::build(&NOTHING));
    let session = world.client();
    world.send(session, 1, create(plain("a", digest)));
    world.send(session, 2, create(plain("b", digest)));
    world.send(session, 3, create(plain("a", digest)));
    let reads = world.requests.iter().filter(|request| matches!(request.op, Op::ImageRead { .. })).count();
    assert_eq!(reads, 1);
    world.run();
    assert_eq!(world.next(session, 3), Response::Refused(Refusal::NameTaken));
    assert!(matches!(world.next(session, 1), Response::Created(_)));
    assert!(matches!(world.next(session, 2), Response::Created(_)));
}

#[test]
fn a_mac_address_is_the_same_whenever_the_name_is_and_differs_by_device() {
    let macs = |unikernel| {
        let mut world = World::new();
        let digest = world.host.store(image::build(&TWO_NETS));
        let session = world.client();
        world.create(session, 1, networked(unikernel, digest, &["net0", "net1"]));
        [0, 1].map(|i| world.host.spawned[0].nets[i].mac)
    };
    assert_eq!(macs("a"), macs("a"));
    assert!(macs("a") != macs("b") && macs("a")[0] != macs("a")[1]);
}

#[test]
fn instances_and_taps_are_never_used_again() {
    let mut world = World::new();
    let digest = world.host.store(image::build(&TWO_NETS));
    for round in 0..3 {
        let session = world.client();
        world.create(session, 1, networked("a", digest, &["net0", "net1"]));
        assert_eq!(world.ask(session, 2, Request::Destroy(name("a"))), Response::Destroyed);
        if round == 1 {
            world.restart();
            world.run();
        }
    }
    let mut instances: Vec<_> = world.host.spawned.iter().map(|spawn| spawn.instance).collect();
    instances.dedup();
    assert!(instances.len() == 3 && instances.is_sorted());
}

/// Each thing that can be wrong with a create, and what is said about it.
#[test]
fn a_create_that_cannot_be_is_refused_with_the_reason() {
    let mut world = World::new();
    let nothing = world.host.store(image::build(&NOTHING));
    let nets = world.host.store(image::build(&TWO_NETS));
    let disks = world.host.store(image::build(&TWO_DISKS));
    let large = world.host.store(image::build(&Recipe { end: 0x200_0000, ..NOTHING }));
    let spt = world.host.store(image::build(&Recipe { target: image::SPT, version: 1, ..NOTHING }));
    let script = world.host.store(b"#!/bin/sh".to_vec());
    let known = world.host.facts.bridges.clone();
    let device = |text: &str| text.parse().unwrap();
    let mut elsewhere = networked("a", nets, &["net0", "net1"]);
    elsewhere.nets = vec![
        petrel_wire::operator::Net { device: device("net0"), bridge: "service".parse().unwrap() },
        petrel_wire::operator::Net { device: device("net1"), bridge: "nowhere".parse().unwrap() },
    ]
    .try_into()
    .unwrap();
    let memory = |asked_mib, min_mib| Refusal::Memory { asked_mib, min_mib, max_mib: 2048 };
    let with_memory = |image, memory_mib| Create { memory_mib, ..plain("a", image) };
    let arguments = |args: Vec<Vec<u8>>| {
        let args: Vec<_> = args.into_iter().map(|arg| Blob::try_from(arg).unwrap()).collect();
        Create { args: args.try_into().unwrap(), ..plain("a", nothing) }
    };
    let too_long = Refusal::Arguments { max: CMDLINE_BYTES_MAX as u32 };
    let missing = |name, kind| Refusal::DeviceMissing { device: device(name), kind };
    let unknown = |name, kind| Refusal::DeviceUnknown { device: device(name), kind };
    let cases = [
        (plain("a", digest(b"nowhere")), Refusal::NoSuchImage),
        (plain("a", script), Refusal::NotAnImage(ImageFault::NotElf)),
        (plain("a", spt), Refusal::NoMonitor { target: image::SPT, version: 1 }),
        // Found before the image is asked for, so that it is not uploaded in vain.
        (with_memory(digest(b"nowhere"), 0), memory(0, 2)),
        (with_memory(nothing, 0), memory(0, 2)),
        (with_memory(nothing, 2), memory(2, 3)),
        (with_memory(large, 32), memory(32, 33)),
        (with_memory(nothing, 2049), memory(2049, 3)),
        (with_memory(nothing, u32::MAX), memory(u32::MAX, 3)),
        (networked("a", nets, &["net0"]), missing("net1", DeviceKind::Net)),
        (networked("a", nothing, &["net0"]), unknown("net0", DeviceKind::Net)),
        (networked("a", nets, &["net0", "net1", "net0"]), Refusal::DeviceTwice(device("net0"))),
        (with_disks(plain("a", disks), &[("disk1", "data")]), missing("disk0", DeviceKind::Block)),
        (with_disks(plain("a", nets), &[("net0", "data")]), unknown("net0", DeviceKind::Block)),
        (with_disks(plain("a", disks), &[("disk0", "data"), ("disk1", "data")]), in_use(Some("a"))),
        (elsewhere, Refusal::BridgeUnknown { bridge: "nowhere".parse().unwrap(), known }),
        (Create { cpus: vec![0, 7].try_into().unwrap(), ..plain("a", nothing) }, Refusal::CpuUnknown(7)),
        (arguments(vec![b"a\0b".to_vec()]), too_long.clone()),
        (arguments(vec![vec![b'x'; CMDLINE_BYTES_MAX]]), too_long.clone()),
        (arguments(vec![vec![b'x'; CMDLINE_BYTES_MAX / 2]; 2]), too_long),
    ];
    let session = world.client();
    for (wanted, refusal) in cases {
        assert_eq!(world.refused(session, 1, create(wanted.clone())), refusal, "{wanted:?}");
        assert!(nothing_is_left(&mut world));
    }
    let longest = arguments(vec![vec![b'x'; CMDLINE_BYTES_MAX - 1]]);
    world.create(session, 1, longest);
}

#[test]
fn a_name_is_taken_while_its_create_is_under_way_and_until_it_is_destroyed() {
    let mut world = World::new();
    let digest = world.host.store(image::build(&NOTHING));
    let session = world.client();
    world.create(session, 1, plain("known", digest));
    world.send(session, 2, create(plain("a", digest)));
    world.send(session, 3, create(plain("a", digest)));
    assert_eq!(world.next(session, 3), Response::Refused(Refusal::NameTaken));
    world.run();
    assert!(matches!(world.next(session, 2), Response::Created(_)));
    let instance = world.instance(1);
    world.host.end(instance, petrel_wire::ExitStatus::Code(0));
    world.run();
    assert_eq!(world.refused(session, 4, create(plain("a", digest))), Refusal::NameTaken);
    assert_eq!(world.ask(session, 5, Request::Destroy(name("a"))), Response::Destroyed);
    world.create(session, 6, plain("a", digest));
}

#[test]
fn memory_is_given_until_the_host_has_no_more_and_given_back_when_one_ends() {
    let mut world = World::new();
    let digest = world.host.store(image::build(&NOTHING));
    let session = world.client();
    world.create(session, 1, Create { memory_mib: 2000, ..plain("a", digest) });
    let refusal = Refusal::MemoryGiven { host_mib: 2048, given_mib: 2000, asked_mib: 49 };
    let wanted = Create { memory_mib: 49, ..plain("b", digest) };
    assert_eq!(world.refused(session, 2, create(wanted.clone())), refusal);
    let instance = world.instance(0);
    world.host.end(instance, petrel_wire::ExitStatus::Code(0));
    world.run();
    world.create(session, 3, wanted);
    let Response::Host(host) = world.ask(session, 4, Request::Host) else { panic!() };
    assert_eq!((host.memory_used_mib, host.unikernels), (49, 2));
}

#[test]
fn no_unikernel_gets_more_memory_than_a_guest_can_address() {
    let mut world = World::with_endless_memory();
    let digest = world.host.store(image::build(&NOTHING));
    let session = world.client();
    let asked_mib = MEMORY_MIB_MAX + 1;
    let refusal = Refusal::Memory { asked_mib, min_mib: 2, max_mib: MEMORY_MIB_MAX };
    let wanted = Create { memory_mib: asked_mib, ..plain("a", digest) };
    assert_eq!(world.refused(session, 1, create(wanted)), refusal);
}

#[test]
fn a_volume_is_one_unikernels_until_it_ends() {
    let mut world = World::new();
    let digest = world.host.store(image::build(&Recipe { devices: &[("disk0", BLOCK)], ..NOTHING }));
    let session = world.client();
    world.create(session, 1, with_disks(plain("a", digest), &[("disk0", "data")]));
    let second = with_disks(plain("b", digest), &[("disk0", "data")]);
    assert_eq!(world.refused(session, 2, create(second.clone())), in_use(Some("a")));
    let nowhere = with_disks(plain("c", digest), &[("disk0", "nowhere")]);
    let unknown = VolumeRefusal::Unknown(name("nowhere")).into();
    assert_eq!(world.refused(session, 3, create(nowhere)), unknown);
    let instance = world.instance(0);
    world.host.end(instance, petrel_wire::ExitStatus::Code(0));
    world.run();
    world.create(session, 4, second);
}

#[test]
fn a_volume_that_the_shim_knows_to_be_in_use_is_named() {
    let mut world = World::new();
    let digest = world.host.store(image::build(&Recipe { devices: &[("disk0", BLOCK)], ..NOTHING }));
    world.host.ledger.volumes.insert("data".parse().unwrap());
    let session = world.client();
    let wanted = with_disks(plain("a", digest), &[("disk0", "data")]);
    assert_eq!(world.refused(session, 1, create(wanted)), in_use(None));
}

/// Lets each request of a create meet a fault: it is refused, undone, and can be done afterwards.
#[test]
fn a_create_that_fails_on_the_host_is_undone() {
    fn first_tap(op: &Op) -> bool {
        matches!(op, Op::TapCreate { tap, .. } if tap.0 == 1)
    }
    fn second_tap(op: &Op) -> bool {
        matches!(op, Op::TapCreate { tap, .. } if tap.0 == 2)
    }
    fn spawn(op: &Op) -> bool {
        matches!(op, Op::Spawn(_))
    }
    let os = Fault::Os { errno: 12 };
    let cases: [(Applies, Fault, Refusal); 6] = [
        (first_tap, os, Refusal::Shim(os)),
        (second_tap, os, Refusal::Shim(os)),
        (second_tap, Fault::Full, Refusal::Full(Table::Taps)),
        (spawn, os, Refusal::Shim(os)),
        (spawn, Fault::Full, Refusal::Full(Table::Unikernels)),
        (spawn, Fault::Exists, Refusal::Shim(Fault::Exists)),
    ];
    for (step, fault, refusal) in cases {
        let mut world = World::new();
        let digest = world.host.store(image::build(&TWO_NETS));
        let session = world.client();
        world.host.faults.push((step, fault));
        let wanted = networked("a", digest, &["net0", "net1"]);
        assert_eq!(world.refused(session, 1, create(wanted.clone())), refusal);
        assert!(nothing_is_left(&mut world));
        world.create(session, 2, wanted);
    }
}

#[test]
fn a_refusal_comes_when_the_taps_are_gone() {
    let mut world = World::new();
    let digest = world.host.store(image::build(&TWO_NETS));
    let session = world.client();
    world.host.faults.push((|op| matches!(op, Op::Spawn(_)), Fault::Os { errno: 12 }));
    world.send(session, 1, create(networked("a", digest, &["net0", "net1"])));
    while world.nothing_for(session) {
        assert!(world.step());
    }
    assert!(world.host.ledger.taps.is_empty());
}

#[test]
fn an_image_that_went_from_the_host_is_asked_for_again() {
    let mut world = World::new();
    let image = image::build(&NOTHING);
    let session = world.client();
    world.push(session, 1, &image);
    world.host.images.clear();
    world.host.ledger.images.clear();
    assert_eq!(world.refused(session, 2, create(plain("a", digest(&image)))), Refusal::NoSuchImage);
    assert_eq!(world.push(session, 3, &image), Response::ImageStored(digest(&image)));
    world.create(session, 4, plain("a", digest(&image)));
}

#[test]
fn a_guest_that_ends_at_once_was_created_and_is_kept_to_be_looked_at() {
    let mut world = World::new();
    let digest = world.host.store(image::build(&NOTHING));
    world.host.brief_guests = true;
    let session = world.client();
    world.send(session, 1, create(plain("a", digest)));
    world.run();
    assert!(matches!(world.next(session, 1), Response::Created(_)));
    let Response::Info(info) = world.ask(session, 2, info("a")) else { panic!() };
    assert_eq!(info.unikernel.state, State::Ended(petrel_wire::ExitStatus::Code(0)));
    assert_eq!((info.pid, info.unikernel.ended_ms), (0, Some(1_700_000_000_000)));
}

#[test]
fn a_create_goes_on_when_its_client_is_gone() {
    let mut world = World::new();
    let digest = world.host.store(image::build(&TWO_NETS));
    let session = world.client();
    world.send(session, 1, create(networked("a", digest, &["net0", "net1"])));
    world.disconnect(session);
    world.run();
    assert_eq!(world.list()[0].state, State::Running);
}

#[test]
fn one_unikernel_too_many_is_refused() {
    let mut world = World::with_endless_memory();
    let digest = world.host.store(image::build(&NOTHING));
    let session = world.client();
    for i in 0..UNIKERNELS_MAX {
        world.create(session, 1, plain(&format!("u{i}"), digest));
    }
    let refusal = world.refused(session, 1, create(plain("extra", digest)));
    assert_eq!(refusal, Refusal::Full(Table::Unikernels));
    assert_eq!(world.list().len(), UNIKERNELS_MAX);
}

#[test]
fn one_tap_too_many_is_refused() {
    let mut world = World::with_endless_memory();
    let names: Vec<String> = (0..16).map(|i| format!("net{i}")).collect();
    let devices: Vec<(&str, u32)> = names.iter().map(|name| (name.as_str(), NET)).collect();
    let digest = world.host.store(image::build(&Recipe { devices: &devices, ..NOTHING }));
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let session = world.client();
    for i in 0..TAPS_MAX / 16 {
        world.create(session, 1, networked(&format!("u{i}"), digest, &names));
    }
    let refusal = world.refused(session, 1, create(networked("extra", digest, &names)));
    assert_eq!(refusal, Refusal::Full(Table::Taps));
    assert_eq!(world.ask(session, 2, Request::Destroy(name("u7"))), Response::Destroyed);
    world.create(session, 3, networked("extra", digest, &names));
}

#[test]
fn creates_that_wait_for_their_images_are_bounded() {
    let mut world = World::new();
    let digest = world.host.store(image::build(&NOTHING));
    let sessions: Vec<_> = (0..9).map(|_| world.client()).collect();
    // A link that breaks takes the first round with it.
    for round in 0..2 {
        let mut refused = 0;
        for (i, &session) in sessions.iter().enumerate() {
            for id in 0..16 {
                world.send(session, id, create(plain(&format!("u{i}-{id}"), digest)));
                refused += usize::from(!world.nothing_for(session));
                world.inboxes.get_mut(&session).unwrap().clear();
            }
        }
        assert_eq!(refused, 9 * 16 - 128);
        if round == 0 {
            world.link_down();
            world.link_up();
        }
        world.run();
        assert!(world.unanswered.is_empty());
        world.inboxes.values_mut().for_each(|inbox| inbox.clear());
    }
    // What waits takes a name only when its image is known, and memory is there for 64 of them.
    assert_eq!(world.list().len(), 64);
}
