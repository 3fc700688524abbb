//! The images that a host has: listed with who uses them, downloaded, deleted by hand and by itself.

use petrel_engine::SessionId;
use petrel_wire::{
    Digest, ExitStatus,
    limits::{IMAGE_USERS_MAX, IMAGES_MAX},
    operator::{Download, ImageRequest, ImageResponse, Refusal, Request, Response, StoredImage},
    shim::{Fault, Op},
};

use crate::{
    image::{self, NET, Recipe, digest},
    world::{World, create, destroy, name, networked, plain, push},
};

fn image(padding: usize) -> Vec<u8> {
    image::build(&Recipe { padding, ..Recipe::default() })
}

fn list(world: &mut World) -> Vec<StoredImage> {
    let session = world.client();
    world.send(session, 1, Request::Image(ImageRequest::List));
    let mut all = Vec::new();
    loop {
        match world.next(session, 1) {
            Response::Image(ImageResponse::Listed { page, more }) => {
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

pub fn digests(world: &mut World) -> Vec<Digest> {
    list(world).into_iter().map(|image| image.digest).collect()
}

fn remove(digest: Digest) -> Request {
    Request::Image(ImageRequest::Remove(digest))
}

const COLLECT: Request = Request::Image(ImageRequest::Collect);

fn in_use(names: &[&str]) -> Refusal {
    let names: Vec<_> = names.iter().map(|text| name(text)).collect();
    Refusal::ImageInUse(names.try_into().unwrap())
}

/// A world that has so many images, of which none is used, the oldest first.
fn given_images(count: usize) -> (World, SessionId, Vec<Digest>) {
    let mut world = World::new();
    let session = world.client();
    let digests = (1..=count)
        .map(|i| {
            let image = image(i);
            assert_eq!(world.push(session, 1, &image), Response::ImageStored(digest(&image)));
            digest(&image)
        })
        .collect();
    (world, session, digests)
}

#[test]
fn images_are_listed_with_their_sizes_and_their_users() {
    let (mut world, session, images) = given_images(2);
    for unikernel in ["b", "a"] {
        world.create(session, 2, plain(unikernel, images[0]));
    }
    let listed = list(&mut world);
    assert_eq!(listed.len(), 2);
    let used = listed.iter().find(|image| image.digest == images[0]).unwrap();
    assert_eq!((used.bytes, used.users), (image(1).len() as u64, 2));
    assert_eq!(&*used.names, [name("a"), name("b")]);
    let spare = listed.iter().find(|image| image.digest == images[1]).unwrap();
    assert_eq!((spare.users, spare.names.len()), (0, 0));
}

#[test]
fn an_image_of_many_users_names_the_first_and_counts_all() {
    let (mut world, session, images) = given_images(1);
    let users = IMAGE_USERS_MAX + 2;
    for i in 0..users {
        world.create(session, 2, plain(&format!("u{i:02}"), images[0]));
    }
    let listed = list(&mut world);
    assert_eq!((listed[0].users as usize, listed[0].names.len()), (users, IMAGE_USERS_MAX));
    assert_eq!(listed[0].names[0], name("u00"));
}

#[test]
fn a_control_plane_that_comes_back_knows_the_images_and_finds_what_is_missing() {
    let (mut world, _, images) = given_images(100);
    world.restart();
    world.run();
    assert_eq!(digests(&mut world).len(), 100);
    world.host.images.remove(&images[5]);
    world.host.ledger.images.remove(&images[5]);
    world.link_down();
    world.link_up();
    world.run();
    let left = digests(&mut world);
    assert!(left.len() == 99 && !left.contains(&images[5]) && left.is_sorted());
}

#[test]
fn an_image_is_downloaded_as_it_was_uploaded() {
    let mut world = World::new();
    let session = world.client();
    let bytes = image(500_000);
    world.push(session, 1, &bytes);
    world.send(session, 2, Request::Image(ImageRequest::Pull(digest(&bytes))));
    world.run();
    let mut got = Vec::new();
    let mut size = None;
    loop {
        match world.next(session, 2) {
            Response::Download(Download::Begin { bytes }) => size = Some(bytes),
            Response::Download(Download::Data { offset, data }) => {
                assert_eq!(offset, got.len() as u64);
                got.extend_from_slice(&data);
            }
            Response::Download(Download::End { consistent: true }) => break,
            other => panic!("{other:?}"),
        }
    }
    assert!(size == Some(bytes.len() as u64) && got == bytes);
    let unknown = Request::Image(ImageRequest::Pull(digest(b"none")));
    assert_eq!(world.refused(session, 3, unknown), Refusal::NoSuchImage);
}

/// It is offered with a wrong size, and the host has it without the control plane's knowing.
#[test]
fn an_image_is_as_large_as_the_host_says_that_it_is() {
    let mut world = World::new();
    let session = world.client();
    let bytes = image(5_000);
    let digest = world.host.store(bytes.clone());
    assert_eq!(world.ask(session, 1, push(digest, 7)), Response::ImageStored(digest));
    assert_eq!(list(&mut world)[0].bytes, bytes.len() as u64);
}

#[test]
fn an_image_that_is_removed_while_it_is_downloaded_ends_the_download() {
    let mut world = World::new();
    let session = world.client();
    let bytes = image(500_000);
    world.push(session, 1, &bytes);
    let other = world.client();
    world.stalled.insert(session, 0);
    world.send(session, 2, Request::Image(ImageRequest::Pull(digest(&bytes))));
    world.run();
    assert_eq!(world.ask(other, 1, remove(digest(&bytes))), Response::Image(ImageResponse::Removed));
    world.unstall(session);
    world.run();
    let last = world.inboxes.get_mut(&session).unwrap().pop_back().unwrap();
    assert_eq!(last.response, Response::Refused(Refusal::NoSuchImage));
}

#[test]
fn an_image_is_removed_unless_a_unikernel_is_made_of_it() {
    let (mut world, session, images) = given_images(1);
    world.create(session, 2, plain("a", images[0]));
    assert_eq!(world.refused(session, 3, remove(images[0])), in_use(&["a"]));
    // One that has ended can be looked at still, and may be started again.
    let instance = world.instance(0);
    world.host.end(instance, ExitStatus::Code(0));
    world.run();
    assert_eq!(world.refused(session, 4, remove(images[0])), in_use(&["a"]));
    world.ask(session, 5, destroy("a"));
    assert_eq!(world.ask(session, 6, remove(images[0])), Response::Image(ImageResponse::Removed));
    assert!(world.host.images.is_empty() && list(&mut world).is_empty());
    assert_eq!(world.refused(session, 7, remove(images[0])), Refusal::NoSuchImage);
    assert_eq!(world.refused(session, 8, create(plain("a", images[0]))), Refusal::NoSuchImage);
}

#[test]
fn an_image_that_is_being_uploaded_or_looked_into_is_not_removed() {
    let mut world = World::new();
    let stored = world.host.store(image(1));
    world.link_down();
    world.link_up();
    world.run();
    let session = world.client();
    world.send(session, 1, create(plain("a", stored)));
    world.send(session, 2, remove(stored));
    world.send(session, 3, COLLECT);
    assert_eq!(world.next(session, 2), Response::Refused(in_use(&[])));
    assert_eq!(world.next(session, 3), Response::Image(ImageResponse::Collected { images: 0, bytes: 0 }));
    world.run();
    world.expect(session, 1, |response| matches!(response, Response::Created(_)));
}

#[test]
fn collecting_deletes_what_nobody_uses_and_tells_how_much() {
    let (mut world, session, images) = given_images(5);
    world.create(session, 2, plain("a", images[3]));
    let sizes: usize = [1, 2, 3, 5].map(|i| image(i).len()).iter().sum();
    let collected = ImageResponse::Collected { images: 4, bytes: sizes as u64 };
    assert_eq!(world.ask(session, 3, COLLECT), Response::Image(collected));
    assert_eq!(digests(&mut world), [images[3]]);
    assert_eq!(world.host.images.len(), 1);
}

#[test]
fn an_image_that_could_not_be_deleted_is_still_there() {
    let (mut world, session, images) = given_images(2);
    let fault = Fault::Os { errno: 5 };
    world.host.faults.push((|op| matches!(op, Op::ImageRemove(_)), fault));
    assert_eq!(world.refused(session, 1, remove(images[0])), Refusal::Shim(fault));
    world.host.faults.push((|op| matches!(op, Op::ImageRemove(_)), fault));
    let collected = ImageResponse::Collected { images: 1, bytes: image(2).len() as u64 };
    assert_eq!(world.ask(session, 2, COLLECT), Response::Image(collected));
    assert_eq!(digests(&mut world), [images[0]]);
    world.create(session, 3, plain("a", images[0]));
}

#[test]
fn an_image_that_is_removed_can_be_uploaded_again_at_once() {
    let (mut world, session, images) = given_images(1);
    world.send(session, 1, remove(images[0]));
    let bytes = image(1);
    world.send(session, 2, push(images[0], bytes.len()));
    world.run();
    assert_eq!(world.next(session, 1), Response::Image(ImageResponse::Removed));
    assert_eq!(world.next(session, 2), Response::ImageWanted);
    world.send_chunks(session, 2, &bytes);
    world.run();
    assert_eq!(world.next(session, 2), Response::ImageStored(images[0]));
    assert_eq!(digests(&mut world), images);
}

/// A store that is full of images that nobody uses takes one more: the one that was of use longest ago goes.
#[test]
fn a_full_store_makes_room_for_an_upload() {
    let (mut world, session, images) = given_images(IMAGES_MAX);
    world.create(session, 1, plain("a", images[0]));
    let new = image(IMAGES_MAX + 1);
    assert_eq!(world.push(session, 2, &new), Response::ImageStored(digest(&new)));
    let left = digests(&mut world);
    assert_eq!(left.len(), IMAGES_MAX);
    assert!(left.contains(&images[0]) && !left.contains(&images[1]) && left.contains(&images[2]));
}

/// A create that comes to nothing after its upload leaves its image, but not without end.
#[test]
fn images_of_refused_creates_do_not_pile_up() {
    let mut world = World::new();
    let session = world.client();
    for i in 1..100 {
        let recipe = Recipe { padding: i, devices: &[("net0", NET)], ..Recipe::default() };
        let image = image::build(&recipe);
        world.push(session, 1, &image);
        world.host.faults.push((|op| matches!(op, Op::Spawn(_)), Fault::Os { errno: 12 }));
        world.refused(session, 2, create(networked("a", digest(&image), &["net0"])));
    }
    assert!(world.host.images.len() < 70, "{}", world.host.images.len());
}

#[test]
fn without_the_shim_images_are_listed_and_not_touched() {
    let (mut world, session, images) = given_images(1);
    world.send(session, 1, remove(images[0]));
    world.send(session, 2, COLLECT);
    world.link_down();
    assert_eq!(world.next(session, 2), Response::Image(ImageResponse::Collected { images: 0, bytes: 0 }));
    assert_eq!(world.next(session, 1), Response::Refused(Refusal::ShimAway));
    for request in [remove(images[0]), COLLECT] {
        assert_eq!(world.refused(session, 3, request), Refusal::ShimAway);
    }
    world.link_up();
    world.run();
    // The removal was on its way when the link broke: it is known what came of it.
    assert_eq!(digests(&mut world).len(), world.host.images.len());
}
