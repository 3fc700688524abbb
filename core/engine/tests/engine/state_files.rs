//! State files: what a control plane gives away of its state, and what it takes in.

use petrel_engine::Level;
use petrel_wire::{
    Blob, Digest, ExitStatus, frame,
    limits::CHUNK_BYTES_MAX,
    operator::{Journal, ReadOnly, Refusal, Request, Response, State, StateFault, Table},
};

use crate::{
    image::{self, Recipe},
    journal::{DISK_BYTES, given_a_disk, is_logged, journal, names, with_image},
    world::{World, create, destroy, networked, plain},
};

fn export(world: &mut World) -> Vec<u8> {
    export_while(world, World::run)
}

/// … while something goes on, or nothing: it is made at once.
fn export_while(world: &mut World, goes_on: impl FnOnce(&mut World)) -> Vec<u8> {
    let session = world.client();
    world.send(session, 1, Request::StateExport);
    goes_on(world);
    let mut file = Vec::new();
    loop {
        match world.next(session, 1) {
            Response::StateData(data) => file.extend(data.into_vec()),
            Response::StateExported { records } => break assert!(records > 0),
            other => panic!("{other:?}"),
        }
    }
    world.disconnect(session);
    file
}

fn import(world: &mut World, file: &[u8], force: bool) -> Response {
    let session = world.client();
    let request = Request::StateImport { bytes: file.len() as u64, force };
    let mut answer = world.ask(session, 1, request);
    if answer == Response::StateWanted {
        for chunk in file.chunks(CHUNK_BYTES_MAX) {
            world.send(session, 1, Request::StateChunk(Blob::try_from(chunk).unwrap()));
        }
        world.run();
        answer = world.next(session, 1);
    }
    // The link is opened anew when another state has taken the place of this one.
    if !world.linked {
        world.link_up();
    }
    world.run();
    world.disconnect(session);
    answer
}

/// Many, of which some have ended and none runs any more.
fn given_a_past(disk_bytes: usize) -> (World, Digest) {
    let (mut world, digest) = with_image(World::with_disk(disk_bytes));
    let session = world.client();
    for i in 0..40 {
        let args = vec![Blob::try_from(vec![b'x'; 2000]).unwrap()].try_into().unwrap();
        let unikernel = networked(&format!("u{i}"), digest, &["net0"]);
        world.create(session, 1, petrel_wire::operator::Create { args, ..unikernel });
        world.host.end(world.instance(i), ExitStatus::Code(i as u8));
        world.run();
    }
    (world, digest)
}

#[test]
fn what_is_exported_is_there_after_an_import_elsewhere() {
    let (mut world, _) = given_a_past(DISK_BYTES);
    let file = export(&mut world);
    assert!(file.len() > 2 * CHUNK_BYTES_MAX, "it comes in pieces");
    for disk in [None, Some(DISK_BYTES)] {
        let mut other = disk.map_or_else(World::new, World::with_disk);
        assert!(matches!(import(&mut other, &file, false), Response::StateImported { records: 80.. }));
        assert_eq!(other.list(), world.list());
        if disk.is_some() {
            other.restart();
            other.run();
            assert_eq!(other.list(), world.list());
        }
        // What it is told next is remembered like anything else.
        let session = other.client();
        let digest = other.host.store(image::build(&Recipe::default()));
        other.create(session, 1, plain("next", digest));
        assert_eq!(other.ask(session, 2, destroy("u3")), Response::Destroyed);
        other.restart();
        other.run();
        if disk.is_some() {
            assert_eq!(other.list().len(), 40);
        }
    }
}

#[test]
fn an_import_takes_the_place_of_what_there_is_only_if_asked_to_and_never_of_what_runs() {
    let (mut world, digest) = given_a_past(DISK_BYTES);
    let file = export(&mut world);
    let in_use = |unikernels, running| Response::Refused(Refusal::StateInUse { unikernels, running });
    assert_eq!(import(&mut world, &file, false), in_use(40, 0));
    let session = world.client();
    world.create(session, 1, networked("new", digest, &["net0"]));
    assert_eq!(import(&mut world, &file, true), in_use(41, 1));
    assert_eq!(world.ask(session, 2, destroy("new")), Response::Destroyed);
    assert_eq!(world.ask(session, 3, destroy("u0")), Response::Destroyed);
    assert!(matches!(import(&mut world, &file, true), Response::StateImported { .. }));
    assert_eq!(names(&mut world).len(), 40);
    world.restart();
    world.run();
    assert_eq!(names(&mut world).len(), 40);
}

#[test]
fn what_the_shim_has_of_a_state_that_was_replaced_is_let_go() {
    let (mut world, _) = given_a_past(DISK_BYTES);
    let nothing = export(&mut World::with_disk(DISK_BYTES));
    assert!(matches!(import(&mut world, &nothing, true), Response::StateImported { .. }));
    assert_eq!((names(&mut world), world.host.ledger.monitors.len()), (vec![], 0));
}

#[test]
fn a_file_that_is_none_or_damaged_changes_nothing() {
    let (mut world, _) = given_a_past(DISK_BYTES);
    let file = export(&mut world);
    let mut damaged = file.clone();
    damaged[file.len() / 2] ^= 1;
    let mut newer = file.clone();
    newer[8] = 9;
    let twice = [&file[..10], &file[10..file.len() - 12], &file[10..]].concat();
    let cases: [(&[u8], StateFault); 6] = [
        (b"", StateFault::NotAStateFile),
        (b"#!/bin/sh\n# no state at all\n", StateFault::NotAStateFile),
        (&damaged, StateFault::Damaged),
        (&file[..file.len() - 1], StateFault::Damaged),
        (&newer, StateFault::Version(9)),
        (&twice, StateFault::Damaged),
    ];
    let mut other = World::with_disk(DISK_BYTES);
    for (file, fault) in cases {
        assert_eq!(import(&mut other, file, false), Response::Refused(Refusal::StateFile(fault)));
        assert_eq!((names(&mut other).len(), other.resets), (0, 0));
    }
    let too_long = Request::StateImport { bytes: 1 << 40, force: false };
    let session = other.client();
    assert_eq!(other.refused(session, 1, too_long), Refusal::StateFile(StateFault::Impossible));
    assert!(matches!(import(&mut other, &file, false), Response::StateImported { .. }));
}

#[test]
fn one_state_file_is_on_its_way_at_a_time_and_one_that_is_given_up_leaves_nothing() {
    let (mut world, _) = given_a_past(DISK_BYTES);
    let file = export(&mut world);
    let [slow, other] = [world.client(), world.client()];
    world.stalled.insert(slow, 0);
    world.send(slow, 1, Request::StateExport);
    assert_eq!(world.refused(other, 1, Request::StateExport), Refusal::Full(Table::StateFiles));
    world.send(slow, 1, Request::Cancel);
    world.send(other, 2, Request::StateExport);
    world.run();

    let mut world = World::with_disk(DISK_BYTES);
    let [first, second] = [world.client(), world.client()];
    let request = || Request::StateImport { bytes: file.len() as u64, force: false };
    assert_eq!(world.ask(first, 1, request()), Response::StateWanted);
    assert_eq!(world.refused(second, 1, request()), Refusal::Full(Table::StateFiles));
    let chunk = || Request::StateChunk(Blob::try_from(&file[..1000]).unwrap());
    world.send(first, 1, chunk());
    world.disconnect(first);
    assert_eq!(world.ask(second, 2, request()), Response::StateWanted);
    world.send(second, 2, Request::Cancel);
    // More than was announced, and then what was still on its way.
    assert_eq!(
        world.ask(second, 3, Request::StateImport { bytes: 999, force: false }),
        Response::StateWanted
    );
    world.send(second, 3, chunk());
    assert_eq!(world.next(second, 3), Response::Refused(Refusal::UnexpectedChunk));
    world.send(second, 3, chunk());
    assert!(world.nothing_for(second));
    assert_eq!(names(&mut world), Vec::<String>::new());
}

#[test]
fn an_import_that_cannot_be_kept_leaves_what_there_was() {
    let (mut past, _) = given_a_past(DISK_BYTES);
    let file = export(&mut past);
    let (mut world, digest) = given_a_disk();
    let session = world.client();
    world.create(session, 1, networked("before", digest, &["net0"]));
    world.host.end(world.instance(0), ExitStatus::Code(0));
    world.run();
    world.disk.as_mut().unwrap().writes_left = Some(1);
    let unwritable = Response::Refused(Refusal::ReadOnly(ReadOnly::Unwritable));
    assert_eq!(import(&mut world, &file, true), unwritable);
    assert_eq!(names(&mut world), ["before"]);
    world.disk.as_mut().unwrap().writes_left = None;
    world.restart();
    world.run();
    assert_eq!(names(&mut world), ["before"]);

    // Nor one that is too much for the disk.
    let (mut small, _) = with_image(World::with_disk(128 << 10));
    assert_eq!(import(&mut small, &file, false), Response::Refused(Refusal::ReadOnly(ReadOnly::Full)));
    assert_eq!(names(&mut small), Vec::<String>::new());
}

#[test]
fn a_control_plane_that_can_keep_nothing_still_gives_away_what_it_knows() {
    let (mut world, _) = given_a_past(DISK_BYTES);
    let disk = world.disk.as_mut().unwrap();
    // The last but one batch.
    let last = disk.bytes[..DISK_BYTES / 2 - 512].iter().rposition(|&byte| byte != 0).unwrap();
    disk.bytes[last / 512 * 512 - 3000] ^= 1;
    world.restart();
    world.run();
    assert_eq!(journal(&mut world), Journal::ReadOnly(ReadOnly::Damaged));
    let file = export(&mut world);
    let mut other = World::with_disk(DISK_BYTES);
    assert!(matches!(import(&mut other, &file, false), Response::StateImported { .. }));
    assert_eq!(names(&mut other).len(), 40, "what the disk has lost, the shim still knew");
}

/// A create under way when the file was made is told of in it. It was refused when the link went down, and its monitor
/// is being ended when the file comes back: from then on it is somebody's.
#[test]
fn what_was_being_ended_is_not_if_the_state_that_is_taken_in_tells_of_it() {
    let (mut world, digest) = given_a_disk();
    let creator = world.client();
    world.send(creator, 1, create(networked("a", digest, &["net0"])));
    while world.host.running().is_empty() {
        assert!(world.step());
    }
    let file = export_while(&mut world, |_| {});
    world.link_down();
    assert_eq!(world.next(creator, 1), Response::Refused(Refusal::ShimAway));
    world.host.immortal = true;
    world.link_up();
    world.run();
    assert_eq!((names(&mut world), world.host.running().len()), (vec![], 1), "it takes its time to end");

    let importer = world.client();
    let request = Request::StateImport { bytes: file.len() as u64, force: false };
    assert_eq!(world.ask(importer, 1, request), Response::StateWanted);
    world.send(importer, 1, Request::StateChunk(Blob::try_from(file).unwrap()));
    world.expect(importer, 1, |response| matches!(response, Response::StateImported { .. }));
    world.host.immortal = false;
    world.link_up();
    world.run();
    assert_eq!(world.state("a"), State::Ended(ExitStatus::Signal(9)));
    assert_eq!(world.ask(importer, 2, destroy("a")), Response::Destroyed);
    assert_eq!(world.host.ledger.monitors.len(), 0);
}

/// Whole by its numbers, and yet nothing that a control plane would write: its first record stands there twice.
#[test]
fn a_forged_file_changes_nothing_and_the_log_says_what_gave_it_away() {
    const START: usize = 10;
    let (mut world, _) = given_a_past(DISK_BYTES);
    let file = export(&mut world);
    let (_, first) = frame::split(&file[START..]).unwrap().unwrap();
    let first = &file[START..START + first];
    let (records, end) = file[START..].split_at(file.len() - START - 12);
    let count = u32::from_le_bytes(end[4..8].try_into().unwrap()) + 1;
    let mut forged = [&file[..START], first, records, &end[..4], &count.to_le_bytes()].concat();
    forged.extend(crc32fast::hash(&forged).to_le_bytes());
    let mut other = World::with_disk(DISK_BYTES);
    let impossible = Response::Refused(Refusal::StateFile(StateFault::Impossible));
    assert_eq!(import(&mut other, &forged, true), impossible);
    assert!(is_logged(&other, Level::Warning, "state file: not taken in: it tells of a name twice"));
    assert_eq!((names(&mut other).len(), other.resets), (0, 0));
}
