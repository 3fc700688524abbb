//! Uploads: streaming, checking, and what becomes of one that does not come to its end.

use petrel_wire::{
    Blob,
    limits::{CHUNK_BYTES_MAX, IMAGE_BYTES_MAX, UPLOADS_MAX},
    operator::{ImageFault, Refusal, Request, Response, Table},
    shim::{Fault, Op},
};

use crate::{
    host::Applies,
    image::{self, Recipe, digest},
    world::{World, create, plain, push},
};

fn hello_image() -> Vec<u8> {
    image::build(&Recipe { padding: 3 * CHUNK_BYTES_MAX, ..Recipe::default() })
}

fn chunk(bytes: &[u8]) -> Request {
    Request::ImageChunk(Blob::try_from(bytes).unwrap())
}

fn nothing_is_left(world: &World) -> bool {
    world.host.images.is_empty() && world.host.ledger.uploads.is_empty()
}

#[test]
fn an_image_streams_through_and_is_offered_only_once() {
    let mut world = World::new();
    let session = world.client();
    let image = hello_image();
    assert_eq!(world.push(session, 1, &image), Response::ImageStored(digest(&image)));
    assert_eq!(world.host.images[&digest(&image)], image);
    assert_eq!(world.push(session, 2, &image), Response::ImageStored(digest(&image)));
    // A control plane without memory learns from the host that it is there.
    world.restart();
    world.run();
    let session = world.client();
    assert_eq!(world.push(session, 1, &image), Response::ImageStored(digest(&image)));
}

#[test]
fn chunks_go_to_the_host_before_the_next_ones_come() {
    let mut world = World::new();
    let session = world.client();
    let image = hello_image();
    world.ask(session, 1, push(digest(&image), image.len()));
    assert!(world.engine.uploading(session));
    world.send(session, 1, chunk(&image[..CHUNK_BYTES_MAX]));
    world.run();
    let left = (image.len() - CHUNK_BYTES_MAX) as u64;
    assert_eq!(world.host.ledger.uploads[&digest(&image)], left);
    world.send_chunks(session, 1, &image[CHUNK_BYTES_MAX..]);
    world.run();
    assert_eq!(world.next(session, 1), Response::ImageStored(digest(&image)));
    assert!(!world.engine.uploading(session));
}

#[test]
fn an_empty_image_and_one_that_is_too_large_are_refused() {
    let mut world = World::new();
    let session = world.client();
    for (id, bytes) in [(1, 0), (2, IMAGE_BYTES_MAX + 1), (3, u64::MAX)] {
        let request = Request::ImagePush { digest: digest(b""), bytes };
        assert_eq!(world.refused(session, id, request), Refusal::ImageSize { max: IMAGE_BYTES_MAX });
    }
}

#[test]
fn bytes_that_are_not_what_the_digest_names_are_refused_and_dropped() {
    let mut world = World::new();
    let session = world.client();
    let image = hello_image();
    world.ask(session, 1, push(digest(b"another"), image.len()));
    world.send_chunks(session, 1, &image);
    world.run();
    let received = digest(&image);
    assert_eq!(world.next(session, 1), Response::Refused(Refusal::DigestMismatch { received }));
    assert!(nothing_is_left(&world));
}

#[test]
fn more_bytes_than_announced_are_refused_and_the_rest_is_ignored() {
    let mut world = World::new();
    let session = world.client();
    let image = hello_image();
    world.ask(session, 1, push(digest(&image), CHUNK_BYTES_MAX + 5));
    world.send_chunks(session, 1, &image);
    world.run();
    assert_eq!(world.next(session, 1), Response::Refused(Refusal::UnexpectedChunk));
    assert!(world.nothing_for(session), "chunks that were on their way are not answered");
    assert!(nothing_is_left(&world));
    // The number may be used again, and then stands for the new request only.
    assert_eq!(world.push(session, 1, &image), Response::ImageStored(digest(&image)));
    world.send(session, 1, chunk(b"?"));
    assert_eq!(world.next(session, 1), Response::Refused(Refusal::UnexpectedChunk));
}

#[test]
fn a_chunk_after_the_last_one_takes_the_image_back() {
    let mut world = World::new();
    let session = world.client();
    let image = hello_image();
    world.ask(session, 1, push(digest(&image), image.len()));
    world.send_chunks(session, 1, &image);
    world.send(session, 1, chunk(b"more"));
    world.run();
    assert_eq!(world.next(session, 1), Response::Refused(Refusal::UnexpectedChunk));
    assert!(nothing_is_left(&world));
}

#[test]
fn a_chunk_before_it_is_wanted_is_refused() {
    let mut world = World::new();
    let session = world.client();
    let image = hello_image();
    world.send(session, 1, push(digest(&image), image.len()));
    world.send(session, 1, chunk(&image[..9]));
    world.run();
    assert_eq!(world.next(session, 1), Response::Refused(Refusal::UnexpectedChunk));
    assert!(nothing_is_left(&world));
}

#[test]
fn a_chunk_of_no_upload_is_refused_and_the_session_goes_on() {
    let mut world = World::new();
    let session = world.client();
    world.send(session, 1, chunk(b"?"));
    assert_eq!(world.next(session, 1), Response::Refused(Refusal::UnexpectedChunk));
    assert!(matches!(world.ask(session, 1, Request::Host), Response::Host(_)));
}

/// Cuts an upload at each point, in each of these ways: nothing is left, and nobody else is hurt.
#[test]
fn an_upload_that_is_cut_leaves_nothing() {
    let image = hello_image();
    let chunks = image.len().div_ceil(CHUNK_BYTES_MAX);
    for cancel in [false, true] {
        for steps in 0..30 {
            let mut world = World::new();
            let session = world.client();
            world.send(session, 1, push(digest(&image), image.len()));
            let mut sent = 0;
            for _ in 0..steps {
                let wanted = world.inboxes[&session].iter().any(|m| m.response == Response::ImageWanted);
                if wanted && sent < chunks {
                    let end = image.len().min((sent + 1) * CHUNK_BYTES_MAX);
                    world.send(session, 1, chunk(&image[sent * CHUNK_BYTES_MAX..end]));
                    sent += 1;
                }
                world.step();
            }
            let stored = world.unanswered.is_empty();
            if cancel {
                world.send(session, 1, Request::Cancel);
            } else {
                world.disconnect(session);
            }
            world.run();
            assert!(stored || nothing_is_left(&world), "cut after {steps} steps");
            assert_eq!(stored, world.host.images.contains_key(&digest(&image)));
            let other = world.client();
            assert_eq!(world.push(other, 1, &image), Response::ImageStored(digest(&image)));
            assert_eq!(world.host.images[&digest(&image)], image);
        }
    }
}

/// The control plane has lost its memory and looks into the image again; meanwhile the client gives up, or the host
/// fails. Nobody who was told that the image is there has to push it again.
#[test]
fn an_image_that_was_there_before_is_not_removed_when_it_is_offered_again_in_vain() {
    let image = hello_image();
    for cancel in [false, true] {
        let mut world = World::new();
        let session = world.client();
        world.push(session, 1, &image);
        world.restart();
        world.run();
        let session = world.client();
        world.send(session, 1, push(digest(&image), image.len()));
        world.step();
        world.step();
        if cancel {
            world.send(session, 1, Request::Cancel);
        } else {
            let reads: Applies = |op| matches!(op, Op::ImageRead { .. });
            world.host.faults.push((reads, Fault::Os { errno: 5 }));
        }
        world.run();
        assert_eq!(world.nothing_for(session), cancel);
        assert!(world.host.images.contains_key(&digest(&image)));
    }
}

/// Breaks the link at each point of an upload: it is refused, nothing is left, and it can be done again.
#[test]
fn an_upload_during_which_the_link_breaks_is_refused() {
    let image = hello_image();
    for steps in 0..14 {
        let mut world = World::new();
        let (session, other) = (world.client(), world.client());
        world.send(session, 1, push(digest(&image), image.len()));
        world.send(other, 1, push(digest(&image), image.len()));
        for step in 0..steps {
            if step == 3 {
                world.send_chunks(session, 1, &image);
            }
            world.step();
        }
        world.link_down();
        assert!(world.unanswered.is_empty(), "after {steps} steps");
        let last = |world: &mut World, session| world.inboxes.get_mut(&session).unwrap().pop_back();
        let answers = [session, other].map(|session| last(&mut world, session).unwrap().response);
        let stored = Response::ImageStored(digest(&image));
        let away = Response::Refused(Refusal::ShimAway);
        assert!(answers == [stored.clone(), stored] || answers == [away.clone(), away], "{answers:?}");
        world.inboxes.values_mut().for_each(|inbox| inbox.clear());
        assert!(world.host.ledger.uploads.is_empty());
        world.link_up();
        world.run();
        assert_eq!(world.push(session, 2, &image), Response::ImageStored(digest(&image)));
    }
}

#[test]
fn who_offers_an_image_that_is_on_its_way_waits_and_is_told_when_it_is_there() {
    let mut world = World::new();
    let (first, second) = (world.client(), world.client());
    let image = hello_image();
    world.ask(first, 1, push(digest(&image), image.len()));
    world.send(second, 1, push(digest(&image), image.len()));
    world.run();
    assert!(world.nothing_for(second));
    world.send_chunks(first, 1, &image);
    world.run();
    for session in [first, second] {
        assert_eq!(world.next(session, 1), Response::ImageStored(digest(&image)));
    }
}

#[test]
fn who_waits_takes_over_when_the_upload_is_cut() {
    let mut world = World::new();
    let image = hello_image();
    let sessions = [world.client(), world.client(), world.client()];
    world.ask(sessions[0], 1, push(digest(&image), image.len()));
    for session in &sessions[1..] {
        world.send(*session, 1, push(digest(&image), image.len()));
    }
    world.send(sessions[0], 1, chunk(&image[..100]));
    world.disconnect(sessions[0]);
    world.run();
    assert_eq!(world.next(sessions[1], 1), Response::ImageWanted);
    assert!(world.nothing_for(sessions[2]));
    world.send_chunks(sessions[1], 1, &image);
    world.run();
    for session in &sessions[1..] {
        assert_eq!(world.next(*session, 1), Response::ImageStored(digest(&image)));
    }
}

#[test]
fn who_waits_and_cancels_or_sends_bytes_does_not_disturb_the_upload() {
    let mut world = World::new();
    let image = hello_image();
    let [owner, cancels, sends] = [world.client(), world.client(), world.client()];
    world.ask(owner, 1, push(digest(&image), image.len()));
    world.send(cancels, 1, push(digest(&image), image.len()));
    world.send(sends, 1, push(digest(&image), image.len()));
    world.send(cancels, 1, Request::Cancel);
    world.send(sends, 1, chunk(b"not asked for"));
    assert_eq!(world.next(sends, 1), Response::Refused(Refusal::UnexpectedChunk));
    world.send_chunks(owner, 1, &image);
    world.run();
    assert_eq!(world.next(owner, 1), Response::ImageStored(digest(&image)));
    assert!(world.nothing_for(cancels) && world.nothing_for(sends));
}

#[test]
fn who_waited_and_is_gone_does_not_take_over() {
    for cancels in [false, true] {
        let mut world = World::new();
        let image = hello_image();
        let (owner, waits) = (world.client(), world.client());
        world.ask(owner, 1, push(digest(&image), image.len()));
        world.send(waits, 1, push(digest(&image), image.len()));
        if cancels {
            world.send(waits, 1, Request::Cancel);
        } else {
            world.disconnect(waits);
        }
        world.disconnect(owner);
        world.run();
        assert!(nothing_is_left(&world));
    }
}

#[test]
fn one_upload_too_many_is_refused() {
    let mut world = World::new();
    let session = world.client();
    let other = world.client();
    for i in 0..UPLOADS_MAX as u32 {
        world.ask(session, i, push(digest(&i.to_le_bytes()), 100));
    }
    let request = push(digest(b"one more"), 100);
    assert_eq!(world.refused(other, 1, request.clone()), Refusal::Full(Table::Uploads));
    world.send(session, 0, Request::Cancel);
    world.run();
    assert_eq!(world.ask(other, 1, request), Response::ImageWanted);
}

#[test]
fn what_is_no_image_is_refused_with_the_reason_and_removed() {
    let whole = image::build(&Recipe::default());
    let mut no_abi = whole.clone();
    no_abi[512 + 8] ^= 1;
    let mut bad_manifest = whole.clone();
    bad_manifest[512 + 36 + 24] = 9;
    let mut bad_entry = whole.clone();
    bad_entry[24] = 0xff;
    bad_entry[27] = 0xff;
    let cases = [
        (b"#!/bin/sh\n".to_vec(), ImageFault::NotElf),
        (whole[..100].to_vec(), ImageFault::BadElf),
        (no_abi, ImageFault::NoAbi),
        (bad_manifest, ImageFault::BadManifest),
        (bad_entry, ImageFault::BadElf),
    ];
    let mut world = World::new();
    let session = world.client();
    for (image, fault) in cases {
        let answer = world.push(session, 1, &image);
        assert_eq!(answer, Response::Refused(Refusal::NotAnImage(fault)));
        assert!(nothing_is_left(&world));
    }
}

#[test]
fn an_image_that_no_monitor_here_runs_is_refused_and_removed() {
    let mut world = World::new();
    let session = world.client();
    for (target, version) in [(image::SPT, 1), (image::HVT, 3), (99, 1)] {
        let image = image::build(&Recipe { target, version, ..Recipe::default() });
        let answer = world.push(session, 1, &image);
        assert_eq!(answer, Response::Refused(Refusal::NoMonitor { target, version }));
        assert!(nothing_is_left(&world));
    }
}

/// What an upload left that was cut by a crash, and a create has looked into.
#[test]
fn an_image_that_is_there_and_runs_nowhere_is_not_said_to_be_stored() {
    let mut world = World::new();
    let session = world.client();
    let image = image::build(&Recipe { target: image::SPT, ..Recipe::default() });
    let digest = world.host.store(image.clone());
    let refusal = Refusal::NoMonitor { target: image::SPT, version: 2 };
    assert_eq!(world.refused(session, 1, create(plain("a", digest))), refusal);
    assert_eq!(world.refused(session, 2, push(digest, image.len())), refusal);
}

/// An upload is given up while its last answers are under way, and a create looks into the image in between. The link
/// may break over it.
#[test]
fn an_image_that_is_about_to_be_removed_is_not_said_to_be_stored() {
    for (steps, breaks) in (0..12).flat_map(|steps| [(steps, false), (steps, true)]) {
        let mut world = World::new();
        let [owner, creates, offers] = [world.client(), world.client(), world.client()];
        let image = image::build(&Recipe::default());
        world.ask(owner, 1, push(digest(&image), image.len()));
        world.send_chunks(owner, 1, &image);
        world.send(creates, 1, create(plain("a", digest(&image))));
        world.send(owner, 1, Request::Cancel);
        for _ in 0..steps {
            world.step();
        }
        if breaks {
            world.link_down();
            world.link_up();
            world.run();
        }
        let answer = world.push(offers, 1, &image);
        assert_eq!(answer, Response::ImageStored(digest(&image)), "after {steps} steps");
        assert!(world.host.images.contains_key(&digest(&image)), "after {steps} steps");
    }
}

#[test]
fn who_waits_for_an_image_that_turns_out_to_be_none_is_told_too() {
    let mut world = World::new();
    let (first, second) = (world.client(), world.client());
    let image = b"not an image".to_vec();
    world.ask(first, 1, push(digest(&image), image.len()));
    world.send(second, 1, push(digest(&image), image.len()));
    world.send_chunks(first, 1, &image);
    world.run();
    let refused = Response::Refused(Refusal::NotAnImage(ImageFault::NotElf));
    assert_eq!((world.next(first, 1), world.next(second, 1)), (refused.clone(), refused));
}

#[test]
fn notes_far_from_the_start_of_the_file_are_read_too() {
    let mut world = World::new();
    let session = world.client();
    let recipe = Recipe { notes_at: 100_000, devices: &[("net0", image::NET)], ..Recipe::default() };
    let image = image::build(&recipe);
    assert_eq!(world.push(session, 1, &image), Response::ImageStored(digest(&image)));
}

#[test]
fn a_full_disk_is_told_to_the_client() {
    let steps: [Applies; 3] = [
        |op| matches!(op, Op::ImageBegin { .. }),
        |op| matches!(op, Op::ImageCommit(_)),
        |op| matches!(op, Op::ImageRead { .. }),
    ];
    for step in steps {
        let mut world = World::new();
        let session = world.client();
        let image = hello_image();
        let fault = Fault::Os { errno: 28 };
        world.host.faults.push((step, fault));
        assert_eq!(world.push(session, 1, &image), Response::Refused(Refusal::Shim(fault)));
        assert!(nothing_is_left(&world));
        assert_eq!(world.push(session, 1, &image), Response::ImageStored(digest(&image)));
    }
}

#[test]
fn an_upload_without_a_shim_is_refused_at_once() {
    let mut world = World::new();
    world.link_down();
    let session = world.client();
    let image = hello_image();
    world.send(session, 1, push(digest(&image), image.len()));
    assert_eq!(world.next(session, 1), Response::Refused(Refusal::ShimAway));
}

#[test]
fn a_unikernel_can_be_made_of_an_image_whose_upload_was_just_confirmed() {
    let mut world = World::new();
    let session = world.client();
    let image = hello_image();
    world.push(session, 1, &image);
    let reads = world.requests.len();
    world.create(session, 2, plain("a", digest(&image)));
    assert_eq!(reads, 0);
}

/// It was looked into for both.
#[test]
fn an_upload_that_is_given_up_does_not_take_the_image_from_a_create_that_waited_for_it() {
    let mut world = World::new();
    let (uploader, creator) = (world.client(), world.client());
    let image = hello_image();
    let digest = crate::image::digest(&image);
    assert_eq!(world.ask(uploader, 1, push(digest, image.len())), Response::ImageWanted);
    world.send_chunks(uploader, 1, &image);
    while !matches!(world.requests.front(), Some(petrel_wire::shim::Request { op: Op::ImageRead { .. }, .. }))
    {
        assert!(world.step_link() || world.step_host());
    }
    world.send(creator, 1, create(plain("a", digest)));
    world.send(uploader, 1, Request::Cancel);
    world.run();
    world.expect(creator, 1, |response| matches!(response, Response::Created(_)));
    assert!(world.host.images.contains_key(&digest));
}

/// Its upload was given up before the image was there whole; the create looks into it meanwhile.
#[test]
fn a_create_is_refused_whose_image_is_about_to_be_deleted() {
    let mut world = World::new();
    let (uploader, creator) = (world.client(), world.client());
    let other = world.host.store(image::build(&Recipe { padding: 1, ..Recipe::default() }));
    world.create(creator, 1, crate::probes::ready("tcp:10.0.0.1:1", plain("db", other)));
    let image = hello_image();
    let digest = crate::image::digest(&image);
    assert_eq!(world.ask(uploader, 1, push(digest, image.len())), Response::ImageWanted);
    world.send_chunks(uploader, 1, &image);
    world.send(creator, 1, create(crate::order::after(&["db"], plain("a", digest))));
    world.send(uploader, 1, Request::Cancel);
    world.run();
    assert_eq!(world.next(creator, 1), Response::Refused(Refusal::NoSuchImage));
    assert!(!world.host.images.contains_key(&digest));
}
