//! Volumes and images of operators who do not see the whole host.

use petrel_wire::operator::{
    Held, ImageRequest, Policy, Refusal, Request, Resource, Response, Right, Rights, Volume, VolumeRefusal,
    VolumeRequest, VolumeResponse,
};

use crate::{
    chain::{self, Says, says},
    create::with_disks,
    generations::rollback,
    image::{self, BLOCK, Recipe},
    policy::{below, path, policies, set, world},
    restart::{start, stop},
    volumes::{MIB, make, pull, push, remove, resize, shown, snapshot, user_of},
    world::{World, info, name, plain},
};

fn space(mib: u64) -> Policy {
    Policy { volume_mib: Some(mib), ..Policy::default() }
}

fn list(world: &mut World, session: petrel_engine::SessionId) -> Vec<Volume> {
    match world.ask(session, 7002, Request::Volume(VolumeRequest::List)) {
        Response::Volume(VolumeResponse::Listed { page, more: false }) => page.into_vec(),
        other => panic!("no listing: {other:?}"),
    }
}

#[test]
fn below_a_ca_volumes_are_relative_to_its_label_and_no_others_are_seen() {
    let (mut world, _, root) = world();
    let disk = world.host.store(image::build(&Recipe { devices: &[("disk", BLOCK)], ..Recipe::default() }));
    world.ask(root, 1, make("acme-1:a", MIB));
    let session = world.client_as(&below(&["acme"]));
    assert_eq!(list(&mut world, session), []);
    assert_eq!(&*shown(world.ask(session, 1, make("a", MIB))).name, "a");
    assert_eq!(list(&mut world, root).iter().filter(|volume| &*volume.name == "acme:a").count(), 1);
    world.create(session, 2, with_disks(plain("web", disk), &[("disk", "a")]));
    let told = list(&mut world, session);
    assert_eq!((&*told[0].name, told[0].user.clone(), told.len()), ("a", Some(name("web")), 1));
    let in_use = VolumeRefusal::InUse { volume: name("a"), user: Some(name("web")) };
    assert_eq!(world.refused(session, 3, remove("a")), in_use.into());
    for (id, request) in (10..).zip([remove("acme-1:a"), pull("data"), push("data", 1), resize("data", MIB)])
    {
        let refused = world.refused(session, id, request);
        assert!(matches!(refused, Refusal::Volume(VolumeRefusal::Unknown(_))), "{refused:?}");
    }
    // One that was given to a unikernel by somebody who sees more.
    world.ask(session, 20, make("b", MIB));
    world.create(root, 2, with_disks(plain("other", disk), &[("disk", "acme:b")]));
    assert_eq!(list(&mut world, session)[1].user, None);
    let in_use = VolumeRefusal::InUse { volume: name("b"), user: None };
    assert_eq!(world.refused(session, 21, remove("b")), in_use.into());
}

#[test]
fn all_volumes_below_a_path_have_no_more_space_than_its_policy_allows() {
    let (mut world, _, root) = world();
    world.ask(root, 1, set("acme", space(10)));
    let session = world.client_as(&below(&["acme"]));
    let over = |used, asked| Refusal::OverPolicy {
        path: path("acme"),
        resource: Resource::VolumeSpace,
        limit: 10,
        used,
        asked,
    };
    assert_eq!(world.refused(session, 1, make("a", 11 * MIB)), over(0, 11));
    shown(world.ask(session, 2, make("a", 6 * MIB - 512)));
    assert_eq!(world.refused(session, 3, make("web:b", 5 * MIB)), over(6, 5));
    assert_eq!(world.refused(session, 4, snapshot("a", "c")), over(6, 6));
    assert_eq!(world.refused(session, 5, resize("a", 11 * MIB)), over(0, 11));
    shown(world.ask(session, 6, resize("a", 9 * MIB)));
    shown(world.ask(session, 7, make("web:b", MIB)));
    let held = Held { volume_mib: 10, ..Held::default() };
    assert_eq!(policies(&mut world, root, "acme")[0].held, held);
    // A limit below what there is: nothing may grow, all may shrink and go.
    world.ask(root, 2, set("acme", space(1)));
    shown(world.ask(session, 8, resize("a", 5 * MIB)));
    assert_eq!(world.ask(session, 9, remove("a")), Response::Volume(VolumeResponse::Removed));
    assert_eq!(policies(&mut world, root, "acme")[0].held.volume_mib, 1);
    // The control plane that comes back counts the same.
    world.link_down();
    world.link_up();
    world.run();
    assert_eq!(policies(&mut world, root, "acme")[0].held.volume_mib, 1);
}

#[test]
fn an_image_is_read_by_those_whose_unikernels_are_of_it_and_the_store_is_the_hosts() {
    let (mut world, _, root) = world();
    let image = image::build(&Recipe::default());
    let digest = image::digest(&image);
    world.push(root, 9, &image);
    let session = world.client_as(&below(&["acme"]));
    for request in [ImageRequest::List, ImageRequest::Collect, ImageRequest::Remove(digest)] {
        assert_eq!(world.refused(session, 1, Request::Image(request)), Refusal::OutsideScope);
    }
    let pull = Request::Image(ImageRequest::Pull(digest));
    world.create(root, 1, plain("a", digest));
    assert_eq!(world.refused(session, 2, pull.clone()), Refusal::NoSuchImage);
    world.create(session, 3, plain("a", digest));
    let begun = world.ask(session, 4, pull);
    assert!(matches!(begun, Response::Download(_)), "{begun:?}");
}

#[test]
fn volumes_take_the_right_to_read_or_to_operate() {
    let (mut world, digest, _) = world();
    let none = Rights { read: false, operate: false, delegate: false };
    let only = |rights| chain::chain(&[Says { rights: Some(rights), ..says("olga") }]);
    let readers = world.client_as(&only(Rights { read: true, ..none }));
    let operators = world.client_as(&only(Rights { operate: true, ..none }));
    let changes =
        [make("a", MIB), remove("data"), resize("data", MIB), push("data", 1), snapshot("data", "a")];
    for request in changes.into_iter().chain([Request::Image(ImageRequest::Remove(digest))]) {
        assert_eq!(world.refused(readers, 1, request), Refusal::RightMissing(Right::Operate));
    }
    for request in
        [Request::Volume(VolumeRequest::List), pull("data"), Request::Image(ImageRequest::Pull(digest))]
    {
        assert_eq!(world.refused(operators, 1, request), Refusal::RightMissing(Right::Read));
    }
}

/// Whoever sees the whole host may give a unikernel any of its volumes.
#[test]
fn a_unikernel_with_a_volume_that_is_not_seen_is_shown_without_it() {
    let (mut world, _, root) = world();
    shown(world.ask(root, 1, make("data", MIB)));
    let [own, other] = ["acme:web", "other"].map(|unikernel| user_of(&mut world, unikernel, "data"));
    world.create(root, 2, own);
    let session = world.client_as(&below(&["acme"]));
    let Response::Info(shown) = world.ask(session, 1, info("web")) else { panic!("it is not shown") };
    assert_eq!((&*shown.unikernel.name, shown.blocks.len()), ("web", 0));
    let history = world.ask(session, 2, Request::History(name("web")));
    assert!(matches!(history, Response::Generation { more: false, .. }), "{history:?}");
    // Nor is it named when it is what is in the way.
    world.ask(root, 3, stop("acme:web"));
    world.create(root, 4, other);
    assert_eq!(world.refused(session, 3, start("web")), Refusal::OutsideScope);
}

#[test]
fn a_volume_that_was_taken_back_does_not_come_back_with_an_earlier_generation() {
    let (mut world, _, root) = world();
    let disk = world.host.store(image::build(&Recipe { devices: &[("disk", BLOCK)], ..Recipe::default() }));
    world.ask(root, 1, make("vault", MIB));
    world.ask(root, 2, make("acme:own", MIB));
    let with = |volume| with_disks(plain("acme:db", disk), &[("disk", volume)]);
    world.create(root, 3, with("vault"));
    let own = Box::new(petrel_wire::operator::Create { force: true, ..with("acme:own") });
    world.ask(root, 4, Request::Create(own));
    let session = world.client_as(&below(&["acme"]));
    assert_eq!(world.refused(session, 5, rollback("db", None)), Refusal::OutsideScope);
    assert_eq!(&*world.info("acme:db").blocks[0].volume, "acme:own");
    assert!(matches!(world.ask(root, 6, rollback("acme:db", None)), Response::Updated(_)));
}
