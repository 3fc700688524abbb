//! What is in volumes on its way: pushes, pulls and snapshots, whole or not at all, and in bounded memory.

use petrel_engine::SessionId;
use petrel_wire::{
    limits::{CHUNK_BYTES_MAX, TRANSFERS_MAX},
    operator::{Refusal, Request, Response, Table, VolumeRefusal, VolumeResponse, VolumeState},
    shim::{Fault, Op, VolumeOp},
};

use crate::{
    volumes::{
        MIB, PUSH_END, WANTED, chunk, content, given_a_used_volume, given_no_volumes, list, make, pull,
        pull_whole, push, push_whole, refused, remove, resize, send_content, shown, snapshot, states,
        take_pull, user_of,
    },
    world::{World, destroy, name},
};

#[test]
fn what_is_pushed_is_what_is_pulled() {
    let (mut world, session) = given_no_volumes();
    world.ask(session, 1, make("a", MIB));
    let bytes = content(300_001, 2);
    let volume = shown(push_whole(&mut world, session, 2, "a", &bytes));
    assert_eq!((volume.bytes, world.host.volume_files()), (MIB, vec!["a"]));
    let (pulled, end) = pull_whole(&mut world, session, 3, "a");
    assert_eq!(end, Ok(true));
    assert!(pulled[..300_001] == bytes && pulled[300_001..].iter().all(|byte| *byte == 0));
    assert_eq!(pulled.len() as u64, MIB);
    // What is pushed next takes nothing over from what was there.
    push_whole(&mut world, session, 4, "a", b"short");
    let (pulled, end) = pull_whole(&mut world, session, 5, "a");
    assert!(end == Ok(true) && pulled.starts_with(b"short\0") && pulled[5..].iter().all(|byte| *byte == 0));
}

#[test]
fn a_file_that_is_shorter_than_was_known_is_pulled_to_its_end() {
    for bytes in [512, CHUNK_BYTES_MAX, 0] {
        let (mut world, session) = given_no_volumes();
        world.ask(session, 1, make("a", MIB));
        *world.host.volume("a") = vec![1; bytes];
        let (pulled, end) = pull_whole(&mut world, session, 2, "a");
        assert_eq!((end, world.resets, pulled.len() as u64), (Ok(true), 0, MIB));
        assert!(
            pulled[..bytes].iter().all(|byte| *byte == 1) && pulled[bytes..].iter().all(|byte| *byte == 0)
        );
    }
}

#[test]
fn holes_are_neither_pushed_nor_pulled() {
    let (mut world, session) = given_no_volumes();
    world.ask(session, 1, make("a", 8 * MIB));
    world.ask(session, 2, push("a", 8 * MIB as usize));
    let end = 8 * MIB as usize - 4096;
    world.send(session, 2, chunk(4096, &[1; 10]));
    world.send(session, 2, chunk(end, &[2; 4096]));
    world.send(session, 2, PUSH_END);
    world.run();
    shown(world.next(session, 2));
    assert_eq!(list(&mut world)[0].disk_bytes, Some(8192));
    let (pulled, end_of_pull) = pull_whole(&mut world, session, 3, "a");
    assert_eq!(end_of_pull, Ok(true));
    assert!(pulled[4096..4106] == [1; 10] && pulled[end..] == [2; 4096]);
    assert_eq!(pulled.iter().filter(|byte| **byte != 0).count(), 10 + 4096);
}

#[test]
fn a_pull_waits_for_its_client_and_costs_little_meanwhile() {
    let (mut world, session) = given_no_volumes();
    world.ask(session, 1, make("a", 8 * MIB));
    let bytes = content(8 * MIB as usize, 3);
    push_whole(&mut world, session, 2, "a", &bytes);
    world.stalled.insert(session, 0);
    world.send(session, 3, pull("a"));
    world.run();
    assert!(world.stalled[&session] < 200_000, "{}", world.stalled[&session]);
    world.unstall(session);
    world.run();
    let mut pulled = Vec::new();
    assert_eq!(take_pull(&mut world, session, &mut pulled), Some(Ok(true)));
    assert!(pulled == bytes);
}

#[test]
fn a_pull_that_is_cancelled_or_whose_session_ends_is_over() {
    for cancel in [true, false] {
        let (mut world, session) = given_a_used_volume();
        world.host.shares_blocks = true;
        world.stalled.insert(session, 0);
        world.send(session, 1, pull("acme:data"));
        world.run();
        assert_eq!(world.host.volume_files(), ["acme:data", "~2"], "it is read from a draft");
        if cancel {
            world.send(session, 1, Request::Cancel);
        } else {
            world.disconnect(session);
        }
        world.run();
        assert_eq!(world.host.volume_files(), ["acme:data"]);
    }
}

#[test]
fn a_push_that_is_cut_leaves_the_old_content_whole() {
    const CUT: u64 = 300 * 1024;
    let (old, new) = (content(CUT as usize, 4), content(CUT as usize, 8));
    let cuts: [fn(&mut World, SessionId); 4] = [
        |world, session| world.disconnect(session),
        |world, session| world.send(session, 2, Request::Cancel),
        |world, _| {
            world.link_down();
            world.link_up();
        },
        |world, _| world.restart(),
    ];
    let mut seen = [false; 2];
    for cut in cuts {
        for steps in 0..50 {
            let (mut world, session) = given_no_volumes();
            world.ask(session, 1, make("a", CUT));
            push_whole(&mut world, session, 1, "a", &old);
            world.send(session, 2, push("a", new.len()));
            for step in 0..steps {
                if step == 6 {
                    send_content(&mut world, session, 2, &new);
                }
                world.step();
            }
            cut(&mut world, session);
            world.run();
            world.inboxes.values_mut().for_each(|inbox| inbox.clear());
            assert_eq!(world.host.volume_files(), ["a"], "after {steps} steps");
            let is_new = world.host.volume("a") == &new;
            assert!(is_new || world.host.volume("a") == &old, "after {steps} steps");
            seen[usize::from(is_new)] = true;
            let session = world.client();
            shown(push_whole(&mut world, session, 3, "a", &new));
            assert!(world.host.volume("a") == &new);
        }
    }
    assert_eq!(seen, [true, true], "the cuts fall before and after the end");
}

#[test]
fn a_push_whose_chunks_cannot_be_meant_is_refused_and_leaves_nothing() {
    let wrong: [&[Request]; 5] = [
        &[chunk(0, &[1; 100]), chunk(50, &[1; 100])],
        &[chunk(0, &[1; 2000])],
        &[chunk(usize::MAX, &[1])],
        &[PUSH_END, PUSH_END],
        &[PUSH_END, chunk(0, &[1])],
    ];
    for chunks in wrong {
        let (mut world, session) = given_no_volumes();
        world.ask(session, 1, make("a", 1024));
        assert_eq!(world.ask(session, 2, push("a", 1024)), WANTED);
        chunks.iter().for_each(|chunk| world.send(session, 2, chunk.clone()));
        world.run();
        assert_eq!(world.next(session, 2), Response::Refused(Refusal::UnexpectedChunk));
        assert_eq!(world.host.volume_files(), ["a"]);
        // Chunks that were on their way are dropped; under the number of another request they end the session.
        world.send(session, 2, chunk(0, &[1]));
        assert!(world.nothing_for(session));
    }
    let (mut world, session) = given_no_volumes();
    world.send(session, 2, chunk(0, &[1]));
    assert_eq!(world.next(session, 2), Response::Refused(Refusal::UnexpectedChunk));
}

#[test]
fn who_pushes_faster_than_the_disk_writes_is_not_read() {
    let (mut world, session) = given_no_volumes();
    world.ask(session, 1, make("a", 8 * MIB));
    assert_eq!(world.ask(session, 2, push("a", 8 * MIB as usize)), WANTED);
    let mut sent = 0;
    while !world.engine.overtaken(session) {
        world.send(session, 2, chunk(sent, &[1; 1000]));
        sent += 1000;
        assert!(sent < MIB as usize, "it goes on without end");
    }
    let other = world.client();
    assert!(!world.engine.overtaken(other), "others are read");
    world.step_host();
    world.step_link();
    assert!(!world.engine.overtaken(session));
}

#[test]
fn a_pull_of_a_used_volume_says_whether_it_is_consistent() {
    for shares_blocks in [true, false] {
        let (mut world, session) = given_a_used_volume();
        world.host.shares_blocks = shares_blocks;
        world.stalled.insert(session, 0);
        world.send(session, 1, pull("acme:data"));
        world.run();
        // The unikernel goes on writing while the client is slow.
        world.host.volume("acme:data").fill(0xff);
        world.unstall(session);
        world.run();
        let mut pulled = Vec::new();
        assert_eq!(take_pull(&mut world, session, &mut pulled), Some(Ok(shares_blocks)));
        assert_eq!(pulled == content(MIB as usize, 1), shares_blocks);
        assert_eq!(world.host.volume_files(), ["acme:data"], "no draft is left");
    }
}

#[test]
fn a_pull_during_which_a_unikernel_came_and_went_is_not_consistent() {
    let (mut world, session) = given_no_volumes();
    world.ask(session, 1, make("a", 2 * MIB));
    push_whole(&mut world, session, 2, "a", &content(2 * MIB as usize, 1));
    let other = world.client();
    world.stalled.insert(session, 0);
    world.send(session, 3, pull("a"));
    world.run();
    let unikernel = user_of(&mut world, "u", "a");
    world.create(other, 1, unikernel);
    world.ask(other, 2, destroy("u"));
    world.unstall(session);
    world.run();
    assert_eq!(take_pull(&mut world, session, &mut Vec::new()), Some(Ok(false)));
}

#[test]
fn a_pull_ends_when_the_volume_is_changed_under_it() {
    for change in [push("a", 3), resize("a", 4 * MIB), remove("a")] {
        let (mut world, session) = given_no_volumes();
        world.ask(session, 1, make("a", 2 * MIB));
        push_whole(&mut world, session, 2, "a", &content(2 * MIB as usize, 1));
        let other = world.client();
        world.stalled.insert(session, 0);
        world.send(session, 3, pull("a"));
        world.run();
        match world.ask(other, 1, change) {
            WANTED => {
                send_content(&mut world, other, 1, b"new");
                world.run();
            }
            Response::Volume(_) => {}
            refused => panic!("{refused:?}"),
        }
        world.unstall(session);
        world.run();
        let changed = VolumeRefusal::Changed(name("a")).into();
        assert_eq!(take_pull(&mut world, session, &mut Vec::new()), Some(Err(changed)));
    }
}

#[test]
fn a_snapshot_is_the_same_and_one_by_shared_blocks_is_so_while_a_unikernel_writes() {
    for shares_blocks in [true, false] {
        let (mut world, session) = given_a_used_volume();
        world.host.shares_blocks = shares_blocks;
        let Response::Volume(VolumeResponse::Copied { volume, consistent }) =
            world.ask(session, 1, snapshot("acme:data", "acme:old"))
        else {
            panic!()
        };
        assert_eq!((&*volume.name, volume.bytes, consistent), ("acme:old", MIB, shares_blocks));
        assert!(world.host.volume("acme:old") == &content(MIB as usize, 1));
        world.ask(session, 2, destroy("acme:web"));
        let again = world.ask(session, 3, snapshot("acme:data", "acme:older"));
        let consistent = matches!(again, Response::Volume(VolumeResponse::Copied { consistent: true, .. }));
        assert!(consistent, "{again:?}");
    }
}

#[test]
fn a_snapshot_is_copied_in_steps_and_others_are_served_between_them() {
    let (mut world, session) = given_no_volumes();
    let bytes = content(40 * CHUNK_BYTES_MAX, 2);
    world.ask(session, 1, make("a", bytes.len() as u64));
    *world.host.volume("a") = bytes.clone();
    let other = world.client();
    world.send(session, 2, snapshot("a", "b"));
    let mut served = 0;
    while world.nothing_for(session) {
        world.send(other, 1, make(&format!("other{served}"), 512));
        while world.nothing_for(other) {
            assert!(world.step());
        }
        shown(world.next(other, 1));
        served += 1;
    }
    assert!(served > 10, "{served}");
    assert!(world.host.volume("b") == &bytes);
}

#[test]
fn a_snapshot_that_fails_or_whose_source_changes_leaves_nothing() {
    let read = |op: &Op| matches!(op, Op::Volume(VolumeOp::Read { .. }));
    let write = |op: &Op| matches!(op, Op::Volume(VolumeOp::Write { .. }));
    let rename = |op: &Op| matches!(op, Op::Volume(VolumeOp::Rename { .. }));
    for step in [read as fn(&Op) -> bool, write, rename] {
        let (mut world, session) = given_no_volumes();
        world.ask(session, 1, make("a", MIB));
        push_whole(&mut world, session, 2, "a", &content(MIB as usize, 1));
        let fault = Fault::Os { errno: 28 };
        world.host.faults.push((step, fault));
        assert_eq!(world.ask(session, 3, snapshot("a", "b")), Response::Refused(Refusal::Shim(fault)));
        assert_eq!(states(&mut world), [("a".into(), VolumeState::Ready)]);
        assert_eq!(world.host.volume_files(), ["a"]);
    }
    let (mut world, session) = given_no_volumes();
    world.ask(session, 1, make("a", MIB));
    push_whole(&mut world, session, 2, "a", &content(MIB as usize, 1));
    world.send(session, 3, snapshot("a", "b"));
    for _ in 0..5 {
        world.step();
    }
    world.send(session, 4, resize("a", 2 * MIB));
    world.run();
    let answers: Vec<_> = world.inboxes[&session].iter().map(|message| message.response.clone()).collect();
    assert!(answers.contains(&refused(VolumeRefusal::Changed(name("a")))), "{answers:?}");
    assert_eq!(world.host.volume_files(), ["a"]);
}

#[test]
fn one_transfer_too_many_is_refused() {
    let (mut world, session) = given_no_volumes();
    let other = world.client();
    for i in 0..=TRANSFERS_MAX as u32 {
        world.ask(other, 1, make(&format!("v{i}"), 512));
    }
    for i in 0..TRANSFERS_MAX as u32 {
        assert_eq!(world.ask(session, i, push(&format!("v{i}"), 1)), WANTED);
    }
    let full = Refusal::Full(Table::Transfers);
    let last = format!("v{TRANSFERS_MAX}");
    for request in [push(&last, 1), pull(&last), snapshot(&last, "new")] {
        assert_eq!(world.refused(other, 1, request), full);
    }
    world.send(session, 3, Request::Cancel);
    world.run();
    assert_eq!(world.ask(other, 1, push(&last, 1)), WANTED);
}

#[test]
fn a_draft_that_cannot_be_removed_is_in_nobodys_way() {
    let mut world = World::unlinked();
    world.host.lose_volume("data");
    world.host.lose_volume("more");
    world.host.put_volume("~1", vec![0; 512]);
    world.host.faults.push((|op| matches!(op, Op::Volume(VolumeOp::Remove(_))), Fault::Os { errno: 5 }));
    world.link_up();
    world.run();
    let session = world.client();
    world.ask(session, 1, make("a", MIB));
    shown(push_whole(&mut world, session, 2, "a", b"new"));
    assert_eq!(world.host.volume_files(), ["a", "~1"]);
    world.restart_link();
    assert_eq!(world.host.volume_files(), ["a"]);
}
