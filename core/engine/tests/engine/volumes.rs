//! Volumes: what may be done with which, what it leaves behind, and what a control plane that comes back makes of it.

use petrel_engine::SessionId;
use petrel_wire::{
    Blob, Digest, ExitStatus, Name,
    limits::{CHUNK_BYTES_MAX, TRANSFERS_MAX, VOLUME_BYTES_MAX, VOLUMES_MAX},
    operator::{
        Create, Download, ReadOnly, Refusal, Request, Response, Table, Volume, VolumeRefusal, VolumeRequest,
        VolumeResponse, VolumeState,
    },
    shim::{Fault, Op, VolumeOp},
};

use crate::{
    create::with_disks,
    image::{self, BLOCK, Recipe},
    world::{World, create, destroy, name, plain},
};

pub const MIB: u64 = 1 << 20;

pub fn make(volume: &str, bytes: u64) -> Request {
    Request::Volume(VolumeRequest::Create { name: name(volume), bytes })
}

pub fn remove(volume: &str) -> Request {
    Request::Volume(VolumeRequest::Remove(name(volume)))
}

pub fn resize(volume: &str, bytes: u64) -> Request {
    Request::Volume(VolumeRequest::Resize { name: name(volume), bytes })
}

pub fn push(volume: &str, bytes: usize) -> Request {
    Request::Volume(VolumeRequest::Push { name: name(volume), bytes: bytes as u64 })
}

pub fn pull(volume: &str) -> Request {
    Request::Volume(VolumeRequest::Pull(name(volume)))
}

pub fn snapshot(volume: &str, new: &str) -> Request {
    Request::Volume(VolumeRequest::Snapshot { name: name(volume), new: name(new) })
}

pub fn chunk(offset: usize, data: &[u8]) -> Request {
    let data = Blob::try_from(data).unwrap();
    Request::Volume(VolumeRequest::Chunk { offset: offset as u64, data })
}

pub const PUSH_END: Request = Request::Volume(VolumeRequest::PushEnd);
pub const WANTED: Response = Response::Volume(VolumeResponse::Wanted);
const REMOVED: Response = Response::Volume(VolumeResponse::Removed);

pub fn refused(refusal: VolumeRefusal) -> Response {
    Response::Refused(refusal.into())
}

/// The volume that an answer shows.
pub fn shown(response: Response) -> Volume {
    match response {
        Response::Volume(VolumeResponse::Is(volume)) => volume,
        other => panic!("not a volume: {other:?}"),
    }
}

/// Bytes that are no hole anywhere, others for each even seed.
pub fn content(bytes: usize, seed: u8) -> Vec<u8> {
    (0..bytes).map(|i| (i % 251) as u8 ^ seed | 1).collect()
}

pub fn send_content(world: &mut World, session: SessionId, id: u32, content: &[u8]) {
    for (i, piece) in content.chunks(CHUNK_BYTES_MAX).enumerate() {
        world.send(session, id, chunk(i * CHUNK_BYTES_MAX, piece));
    }
    world.send(session, id, PUSH_END);
}

pub fn push_whole(world: &mut World, session: SessionId, id: u32, volume: &str, content: &[u8]) -> Response {
    match world.ask(session, id, push(volume, content.len())) {
        WANTED => {
            send_content(world, session, id, content);
            world.run();
            world.next(session, id)
        }
        other => other,
    }
}

/// What a pull has brought so far; how it ended, if it has.
pub fn take_pull(world: &mut World, session: SessionId, into: &mut Vec<u8>) -> Option<Result<bool, Refusal>> {
    let messages: Vec<_> = world.inboxes.get_mut(&session).unwrap().drain(..).collect();
    for message in messages {
        match message.response {
            Response::Download(Download::Begin { bytes }) => *into = vec![0; bytes as usize],
            Response::Download(Download::Data { offset, data }) => {
                into[offset as usize..][..data.len()].copy_from_slice(&data);
            }
            Response::Download(Download::End { consistent }) => return Some(Ok(consistent)),
            Response::Refused(refusal) => return Some(Err(refusal)),
            other => panic!("not a download: {other:?}"),
        }
    }
    None
}

pub fn pull_whole(
    world: &mut World,
    session: SessionId,
    id: u32,
    volume: &str,
) -> (Vec<u8>, Result<bool, Refusal>) {
    world.send(session, id, pull(volume));
    world.run();
    let mut content = Vec::new();
    let end = take_pull(world, session, &mut content).expect("it has ended");
    (content, end)
}

pub fn list(world: &mut World) -> Vec<Volume> {
    let session = world.client();
    world.send(session, 1, Request::Volume(VolumeRequest::List));
    world.run();
    let mut all = Vec::new();
    loop {
        match world.next(session, 1) {
            Response::Volume(VolumeResponse::Listed { page, more }) => {
                all.extend(page.into_vec());
                if !more {
                    world.disconnect(session);
                    return all;
                }
            }
            other => panic!("not a listing: {other:?}"),
        }
    }
}

pub fn states(world: &mut World) -> Vec<(String, VolumeState)> {
    list(world).into_iter().map(|volume| (volume.name.to_string(), volume.state)).collect()
}

fn disk_image(world: &mut World) -> Digest {
    world.host.store(image::build(&Recipe { devices: &[("disk0", BLOCK)], ..Recipe::default() }))
}

pub fn user_of(world: &mut World, unikernel: &str, volume: &str) -> Create {
    let digest = disk_image(world);
    with_disks(plain(unikernel, digest), &[("disk0", volume)])
}

/// A world whose folder of volumes is empty.
pub fn given_no_volumes() -> (World, SessionId) {
    let mut world = World::unlinked();
    world.host.lose_volume("data");
    world.host.lose_volume("more");
    world.link_up();
    world.run();
    let session = world.client();
    (world, session)
}

/// … or has one that a running unikernel has.
pub fn given_a_used_volume() -> (World, SessionId) {
    let (mut world, session) = given_no_volumes();
    world.ask(session, 90, make("acme:data", MIB));
    push_whole(&mut world, session, 91, "acme:data", &content(MIB as usize, 1));
    let unikernel = user_of(&mut world, "acme:web", "acme:data");
    world.create(session, 92, unikernel);
    (world, session)
}

#[test]
fn a_volume_is_created_shown_given_to_a_unikernel_and_removed() {
    let (mut world, session) = given_no_volumes();
    let made = shown(world.ask(session, 1, make("acme:web:data", MIB)));
    assert_eq!(
        (&*made.name, made.bytes, made.state, made.user),
        ("acme:web:data", MIB, VolumeState::Ready, None)
    );
    assert_eq!(world.host.volume_files(), ["acme:web:data"]);
    let unikernel = user_of(&mut world, "acme:web:blog", "acme:web:data");
    world.create(session, 2, unikernel);
    assert_eq!(&*world.host.spawned[0].blocks[0].volume, "acme:web:data");
    let listed = list(&mut world);
    assert_eq!((listed.len(), &listed[0].user), (1, &Some(name("acme:web:blog"))));
    world.ask(session, 3, destroy("acme:web:blog"));
    assert_eq!(world.ask(session, 4, remove("acme:web:data")), REMOVED);
    assert_eq!(world.host.volume_files(), Vec::<&str>::new());
    assert_eq!(list(&mut world), []);
}

#[test]
fn a_volume_that_cannot_be_is_refused_with_the_reason() {
    let (mut world, session) = given_no_volumes();
    world.ask(session, 1, make("a", 512));
    assert_eq!(world.ask(session, 2, make("a", 512)), refused(VolumeRefusal::Taken(name("a"))));
    for asked in [0, 1, 513, VOLUME_BYTES_MAX + 512, u64::MAX] {
        let size = VolumeRefusal::Size { asked, multiple: 512, max: VOLUME_BYTES_MAX };
        assert_eq!(world.ask(session, 3, make("b", asked)), refused(size.clone()));
        assert_eq!(world.ask(session, 3, resize("a", asked)), refused(size));
    }
    let unknown = refused(VolumeRefusal::Unknown(name("b")));
    for request in [remove("b"), resize("b", 512), push("b", 1), pull("b"), snapshot("b", "c")] {
        assert_eq!(world.ask(session, 4, request), unknown);
    }
    assert_eq!(world.ask(session, 5, snapshot("a", "a")), refused(VolumeRefusal::Taken(name("a"))));
    let offered = refused(VolumeRefusal::TooSmall { bytes: 512, offered: 513 });
    assert_eq!(world.ask(session, 6, push("a", 513)), offered);
    assert_eq!(world.host.volume_files(), ["a"]);
}

#[test]
fn a_host_that_bounds_the_space_of_volumes_refuses_with_the_arithmetic() {
    let mut world = World::unlinked();
    world.host.facts.volumes_mib = Some(3);
    world.link_up();
    world.run();
    let session = world.client();
    let space = |asked, taken| refused(VolumeRefusal::Space { asked, taken, max: 3 * MIB });
    // Two volumes of 4 KiB were there before.
    assert_eq!(world.ask(session, 1, make("a", 3 * MIB)), space(3 * MIB, 8192));
    world.ask(session, 2, make("a", 2 * MIB));
    assert_eq!(world.ask(session, 3, resize("a", 3 * MIB)), space(MIB, 2 * MIB + 8192));
    assert_eq!(world.ask(session, 4, snapshot("a", "b")), space(2 * MIB, 2 * MIB + 8192));
    // New content is written beside the old.
    assert_eq!(world.ask(session, 5, push("a", 1)), space(2 * MIB, 2 * MIB + 8192));
    assert_eq!(shown(world.ask(session, 6, resize("a", MIB))).bytes, MIB);
    assert_eq!(world.ask(session, 7, push("a", 1)), WANTED);
    assert_eq!(world.ask(session, 8, make("c", MIB)), space(MIB, 2 * MIB + 8192));
    world.send(session, 7, Request::Cancel);
    world.run();
    shown(world.ask(session, 9, make("c", MIB)));
    let Response::Host(host) = world.ask(session, 10, Request::Host) else { panic!() };
    assert_eq!((host.volumes_mib, host.volumes_used_mib), (Some(3), 3));
}

#[test]
fn there_are_no_more_volumes_than_the_table_holds() {
    let (mut world, session) = given_no_volumes();
    let room = VOLUMES_MAX - TRANSFERS_MAX;
    for i in 0..room {
        shown(world.ask(session, 1, make(&format!("v{i}"), 512)));
    }
    assert_eq!(world.ask(session, 2, make("more", 512)), Response::Refused(Refusal::Full(Table::Volumes)));
    assert_eq!(list(&mut world).len(), room);
    // Content can still be changed, and a control plane that comes back finds them all.
    assert!(matches!(
        push_whole(&mut world, session, 3, "v7", b"new"),
        Response::Volume(VolumeResponse::Is(_))
    ));
    world.restart();
    world.run();
    assert_eq!(list(&mut world).len(), room);
}

/// Cuts a push at each point, in each of these ways: the volume has its old content or its new one, whole.
#[test]
fn a_full_disk_is_told_and_leaves_the_old_content() {
    let steps: [fn(&Op) -> bool; 4] = [
        |op| matches!(op, Op::Volume(VolumeOp::Create { .. })),
        |op| matches!(op, Op::Volume(VolumeOp::Write { .. })),
        |op| matches!(op, Op::Volume(VolumeOp::Write { offset: 65536, .. })),
        |op| matches!(op, Op::Volume(VolumeOp::Rename { .. })),
    ];
    let old = content(MIB as usize, 6);
    for step in steps {
        let (mut world, session) = given_no_volumes();
        world.ask(session, 1, make("a", MIB));
        push_whole(&mut world, session, 2, "a", &old);
        let fault = Fault::Os { errno: 28 };
        world.host.faults.push((step, fault));
        let answer = push_whole(&mut world, session, 3, "a", &content(MIB as usize, 8));
        assert_eq!(answer, Response::Refused(Refusal::Shim(fault)));
        assert_eq!(world.host.volume_files(), ["a"]);
        assert!(world.host.volume("a") == &old);
    }
    let (mut world, session) = given_no_volumes();
    for (op, request) in [
        (steps[0], make("a", 512)),
        (|op: &Op| matches!(op, Op::Volume(VolumeOp::Resize { .. })), resize("b", 1024)),
        (|op: &Op| matches!(op, Op::Volume(VolumeOp::Remove(_))), remove("b")),
    ] {
        world.ask(session, 1, make("b", 512));
        world.inboxes.values_mut().for_each(|inbox| inbox.clear());
        let fault = Fault::Os { errno: 28 };
        world.host.faults.push((op, fault));
        assert_eq!(world.ask(session, 2, request), Response::Refused(Refusal::Shim(fault)));
        let listed = list(&mut world);
        assert_eq!((listed.len(), listed[0].bytes, listed[0].state), (1, 512, VolumeState::Ready));
    }
}

/// What is left of one that was refused is no volume, however often it cannot be deleted.
#[test]
fn a_leftover_that_cannot_be_deleted_is_never_a_volume() {
    let (mut world, session) = given_no_volumes();
    let deleting = |op: &Op| matches!(op, Op::Volume(VolumeOp::Remove(_)));
    world.send(session, 1, make("a", MIB));
    world.step_host();
    let fail = |world: &mut World| world.host.faults.push((deleting, Fault::Os { errno: 5 }));
    fail(&mut world);
    world.restart_link();
    assert_eq!(world.next(session, 1), Response::Refused(Refusal::ShimAway));
    let removing = [("a".into(), VolumeState::Removing)];
    assert_eq!(states(&mut world), removing);
    assert_eq!(world.refused(session, 2, pull("a")), VolumeRefusal::Busy(name("a")).into());
    fail(&mut world);
    assert_eq!(world.refused(session, 3, remove("a")), Refusal::Shim(Fault::Os { errno: 5 }));
    assert_eq!(states(&mut world), removing);
    assert_eq!(world.ask(session, 4, remove("a")), REMOVED);
    assert_eq!(list(&mut world), []);
}

#[test]
fn a_volume_that_a_unikernel_has_can_be_read_and_grown_and_no_more() {
    let (mut world, session) = given_a_used_volume();
    let in_use = VolumeRefusal::InUse { volume: name("acme:data"), user: Some(name("acme:web")) };
    for request in [remove("acme:data"), push("acme:data", 1), resize("acme:data", 512)] {
        assert_eq!(world.ask(session, 1, request), refused(in_use.clone()));
    }
    assert_eq!(shown(world.ask(session, 2, resize("acme:data", 2 * MIB))).bytes, 2 * MIB);
    assert_eq!(pull_whole(&mut world, session, 3, "acme:data").0.len() as u64, 2 * MIB);
    // Once the unikernel has ended it is free.
    let instance = world.instance(0);
    world.host.end(instance, ExitStatus::Code(0));
    world.run();
    assert_eq!(shown(world.ask(session, 4, resize("acme:data", MIB))).bytes, MIB);
    shown(push_whole(&mut world, session, 5, "acme:data", b"new"));
    assert_eq!(world.ask(session, 6, remove("acme:data")), REMOVED);
}

/// A unikernel has the volume only for a moment while it is pulled: what is pulled cannot be trusted all the same.
#[test]
fn a_volume_that_is_being_changed_is_nobody_elses_meanwhile() {
    let (mut world, session) = given_no_volumes();
    world.ask(session, 1, make("a", MIB));
    assert_eq!(world.ask(session, 2, push("a", 10)), WANTED);
    let busy = Refusal::from(VolumeRefusal::Busy(name("a")));
    let unikernel = user_of(&mut world, "u", "a");
    for request in
        [remove("a"), resize("a", 512), push("a", 1), pull("a"), snapshot("a", "b"), create(unikernel)]
    {
        assert_eq!(world.refused(session, 3, request), busy);
    }
    send_content(&mut world, session, 2, b"done");
    world.run();
    shown(world.next(session, 2));
    assert_eq!(world.ask(session, 4, remove("a")), REMOVED);
}

// The link, and what is found on the host.

#[test]
fn without_the_shim_volumes_are_listed_from_memory_and_not_changed() {
    let (mut world, session) = given_a_used_volume();
    world.link_down();
    let listed = list(&mut world);
    assert_eq!(
        (listed.len(), listed[0].state, &listed[0].user),
        (1, VolumeState::Ready, &Some(name("acme:web")))
    );
    for request in [make("b", 512), remove("acme:data"), pull("acme:data"), push("acme:data", 1)] {
        assert_eq!(world.refused(session, 1, request), Refusal::ShimAway);
    }
    let mut fresh = World::unlinked();
    let session = fresh.client();
    assert_eq!(fresh.refused(session, 1, Request::Volume(VolumeRequest::List)), Refusal::ShimAway);
}

#[test]
fn a_control_plane_without_records_adopts_what_it_finds() {
    let (mut world, _) = given_a_used_volume();
    world.host.put_volume("by-hand", vec![0; 1000]);
    world.restart();
    world.run();
    let listed = list(&mut world);
    let all: Vec<_> = listed.iter().map(|volume| (&*volume.name, volume.bytes, volume.state)).collect();
    assert_eq!(all, [("acme:data", MIB, VolumeState::Ready), ("by-hand", 1000, VolumeState::Ready)]);
    assert_eq!(listed[0].user, Some(name("acme:web")));
}

/// A folder that cannot be read when the link opens is read some time later.
#[test]
fn volumes_that_could_not_be_listed_are_learned_later() {
    let mut world = World::unlinked();
    let fault = Fault::Os { errno: 5 };
    world.host.faults.push((|op| matches!(op, Op::Volume(VolumeOp::List { .. })), fault));
    world.link_up();
    world.run();
    let session = world.client();
    let unikernel = user_of(&mut world, "u", "data");
    assert_eq!(world.refused(session, 1, create(unikernel.clone())), Refusal::Shim(fault));
    assert_eq!(world.refused(session, 1, make("data", MIB)), Refusal::Shim(fault), "it may be there");
    world.wait_ms(1000);
    world.run();
    world.create(session, 2, unikernel);
    assert_eq!(states(&mut world).len(), 2);
}

#[test]
fn a_file_that_no_record_tells_of_is_left_alone_until_it_is_removed_by_name() {
    let (mut world, session) = given_no_volumes();
    world.host.put_volume("stray", vec![1; 1024]);
    assert_eq!(states(&mut world), [("stray".into(), VolumeState::Orphan)]);
    world.link_down();
    world.link_up();
    world.run();
    assert_eq!(world.host.volume_files(), ["stray"], "it is not deleted by itself");
    assert!(world.log.iter().any(|(_, line)| line.contains("stray") && line.contains("left alone")));
    let orphan = Refusal::from(VolumeRefusal::Orphan(name("stray")));
    let unikernel = user_of(&mut world, "u", "stray");
    for request in
        [resize("stray", 512), push("stray", 1), pull("stray"), snapshot("stray", "b"), create(unikernel)]
    {
        assert_eq!(world.refused(session, 1, request), orphan);
    }
    assert_eq!(world.refused(session, 2, make("stray", 512)), VolumeRefusal::Taken(name("stray")).into());
    assert_eq!(world.ask(session, 3, remove("stray")), REMOVED);
    assert_eq!(list(&mut world), []);
    assert_eq!(world.host.volume_files(), Vec::<&str>::new());
}

#[test]
fn a_volume_whose_file_is_missing_is_shown_as_such_and_can_be_removed() {
    let (mut world, session) = given_no_volumes();
    world.ask(session, 1, make("a", 512));
    world.host.lose_volume("a");
    assert_eq!(states(&mut world), [("a".into(), VolumeState::Missing)]);
    let missing = Refusal::from(VolumeRefusal::Missing(name("a")));
    let unikernel = user_of(&mut world, "u", "a");
    for request in [resize("a", 512), push("a", 1), pull("a"), snapshot("a", "b"), create(unikernel)] {
        assert_eq!(world.refused(session, 2, request), missing);
    }
    // Somebody puts it back.
    world.host.put_volume("a", vec![0; 1024]);
    let listed = list(&mut world);
    assert_eq!((listed[0].state, listed[0].bytes), (VolumeState::Ready, 1024));
    world.host.lose_volume("a");
    world.link_down();
    world.link_up();
    world.run();
    assert_eq!(states(&mut world), [("a".into(), VolumeState::Missing)]);
    assert_eq!(world.ask(session, 3, remove("a")), REMOVED);
    assert_eq!(list(&mut world), []);
}

/// Breaks the link at each point of each change: it is refused or done, what is shown afterwards is what there is, and it
/// can be done again.
#[test]
fn a_change_during_which_the_link_breaks_is_whole_or_nothing() {
    let changes: [fn() -> Request; 5] = [
        || make("b", MIB),
        || remove("a"),
        || resize("a", 2 * MIB),
        || resize("a", 512),
        || snapshot("a", "b"),
    ];
    for change in changes {
        for steps in 0..16 {
            let (mut world, session) = given_no_volumes();
            world.ask(session, 1, make("a", MIB));
            push_whole(&mut world, session, 2, "a", &content(MIB as usize, 1));
            world.send(session, 3, change());
            for _ in 0..steps {
                world.step();
            }
            world.link_down();
            let answer =
                world.inboxes.get_mut(&session).unwrap().pop_back().expect("it is answered").response;
            world.link_up();
            world.run();
            let listed = list(&mut world);
            let files = world.host.volume_files();
            let names: Vec<&str> = listed.iter().map(|volume| &*volume.name).collect();
            assert_eq!(names, files, "{:?} after {steps} steps", change());
            for volume in &listed {
                assert_eq!(volume.state, VolumeState::Ready);
                assert_eq!(volume.bytes, world.host.volume(&volume.name).len() as u64);
            }
            match answer {
                Response::Refused(refusal) => {
                    assert_eq!(refusal, Refusal::ShimAway);
                    assert!(!names.contains(&"b"), "what was refused is not left");
                }
                Response::Volume(VolumeResponse::Removed) => assert_eq!(names, Vec::<&str>::new()),
                Response::Volume(_) => {}
                other => panic!("{other:?}"),
            }
            let wanted: Name = name("c");
            shown(world.ask(session, 4, make(&wanted, 512)));
        }
    }
}

// What is remembered.

fn given_a_disk() -> (World, SessionId) {
    let mut world = World::with_disk(1 << 20);
    let session = world.client();
    world.ask(session, 1, make("a", MIB));
    push_whole(&mut world, session, 2, "a", b"kept");
    (world, session)
}

#[test]
fn a_control_plane_that_remembers_tells_its_volumes_from_files_that_are_nobodys() {
    let (mut world, session) = given_a_disk();
    world.ask(session, 3, make("b", 512));
    world.ask(session, 4, resize("b", 1024));
    world.ask(session, 5, remove("more"));
    world.host.put_volume("stray", vec![0; 512]);
    world.host.lose_volume("data");
    world.restart();
    world.run();
    let expected = [
        ("a".into(), VolumeState::Ready),
        ("b".into(), VolumeState::Ready),
        ("data".into(), VolumeState::Missing),
        ("stray".into(), VolumeState::Orphan),
    ];
    assert_eq!(states(&mut world), expected);
    assert_eq!(list(&mut world)[1].bytes, 1024);
    let session = world.client();
    let (pulled, end) = pull_whole(&mut world, session, 1, "a");
    assert!(end == Ok(true) && pulled.starts_with(b"kept"));
}

/// The control plane goes down at each point of each change: the next one completes it or takes it back.
#[test]
fn a_change_during_which_the_control_plane_goes_down_is_whole_or_nothing() {
    let changes: [fn() -> Request; 4] =
        [|| make("b", MIB), || remove("a"), || resize("a", 2 * MIB), || snapshot("a", "b")];
    for change in changes {
        for steps in 0..12 {
            let (mut world, session) = given_a_disk();
            world.send(session, 3, change());
            for _ in 0..steps {
                world.step();
            }
            let inbox = world.inboxes.get_mut(&session).unwrap();
            let acknowledged =
                inbox.pop_back().is_some_and(|message| matches!(message.response, Response::Volume(_)));
            world.restart();
            world.run();
            let listed = list(&mut world);
            let shown: Vec<String> = listed.iter().map(|volume| volume.name.to_string()).collect();
            assert_eq!(shown, world.host.volume_files(), "{:?} after {steps} steps", change());
            assert!(listed.iter().all(|volume| volume.state == VolumeState::Ready), "{listed:?}");
            if acknowledged {
                let there = |name: &str| shown.iter().any(|shown| shown == name);
                match change() {
                    Request::Volume(VolumeRequest::Remove(_)) => assert!(!there("a")),
                    Request::Volume(VolumeRequest::Resize { .. }) => assert_eq!(listed[0].bytes, 2 * MIB),
                    _ => assert!(there("b")),
                }
            }
        }
    }
}

#[test]
fn a_change_that_cannot_be_kept_is_not_made() {
    let changes: [fn() -> Request; 4] =
        [|| make("b", MIB), || remove("a"), || resize("a", 2 * MIB), || snapshot("a", "b")];
    for change in changes {
        let (mut world, session) = given_a_disk();
        world.disk.as_mut().unwrap().writes_left = Some(0);
        let before = world.host.volume_files().into_iter().map(String::from).collect::<Vec<_>>();
        let refusal = Refusal::ReadOnly(ReadOnly::Unwritable);
        assert_eq!(world.refused(session, 3, change()), refusal, "{:?}", change());
        assert_eq!(world.host.volume_files(), before);
        assert_eq!(world.host.volume("a").len() as u64, MIB);
        assert_eq!(world.refused(session, 4, change()), refusal);
        let listed = list(&mut world);
        assert_eq!((listed.len(), listed[0].bytes, listed[0].state), (3, MIB, VolumeState::Ready));
        // What is there can be read still.
        assert_eq!(pull_whole(&mut world, session, 5, "a").1, Ok(true));
        assert_eq!(world.refused(session, 6, push("a", 1)), refusal);
    }
}
