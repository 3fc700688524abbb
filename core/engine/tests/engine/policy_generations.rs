//! Policies and scopes where unikernels are changed, tried out and taken back.

use petrel_engine::SessionId;
use petrel_wire::{
    Digest,
    operator::{Change, Create, Held, Policy, Refusal, Request, Resource, Response, Supervision},
};

use crate::{
    generations::{WINDOW_S, rollback, update},
    image::{self, Recipe},
    policy::{below, memory, path, policies, set, world},
    restart::{restart, start, stop},
    world::{World, create, destroy, info, name, plain},
};

fn of_memory(mib: u32) -> Change {
    Change { memory_mib: Some(mib), ..Change::default() }
}

/// A unikernel `acme:a` of 30 MiB where acme may have 40, and who made it.
fn site() -> (World, Digest, SessionId) {
    let (mut world, digest, root) = world();
    assert_eq!(world.ask(root, 1, set("acme", memory(40))), Response::PolicySet);
    world.create(root, 2, Create { memory_mib: 30, ..plain("acme:a", digest) });
    (world, digest, root)
}

fn used(world: &mut World, session: SessionId) -> u64 {
    let Held { unikernels, memory_mib, volume_mib } = policies(world, session, "acme")[0].held;
    assert_eq!((unikernels, volume_mib), (1, 0));
    memory_mib
}

/// Memory is asked for below acme, of which others have `used`.
fn over(limit: u64, used: u64, asked: u64) -> Refusal {
    Refusal::OverPolicy { path: path("acme"), resource: Resource::Memory, limit, used, asked }
}

/// An update and its window.
fn updated(world: &mut World, session: SessionId, id: u32, change: Change) {
    world.send(session, id, update("acme:a", change));
    world.sleep_ms(u64::from(WINDOW_S) * 1000 + 1000);
    let answer = world.next(session, id);
    assert!(matches!(answer, Response::Updated(_)), "{answer:?}");
}

#[test]
fn a_changed_unikernel_counts_as_what_it_is_instead_of_what_it_was() {
    let (mut world, digest, root) = site();
    assert_eq!(world.refused(root, 3, update("acme:a", of_memory(41))), over(40, 0, 41));
    assert_eq!(world.refused(root, 4, restart("acme:a", of_memory(41))), over(40, 0, 41));
    let forced = Create { memory_mib: 41, force: true, ..plain("acme:a", digest) };
    assert_eq!(world.refused(root, 5, create(forced)), over(40, 0, 41));
    assert_eq!(used(&mut world, root), 30);
    updated(&mut world, root, 6, of_memory(40));
    assert_eq!(used(&mut world, root), 40);
    assert!(matches!(world.ask(root, 7, restart("acme:a", of_memory(20))), Response::Started(_)));
    assert_eq!(used(&mut world, root), 20);
    assert!(matches!(world.ask(root, 8, rollback("acme:a", Some(1))), Response::Updated(_)));
    assert_eq!(used(&mut world, root), 30);
    // Whether it runs or not.
    assert!(matches!(world.ask(root, 9, stop("acme:a")), Response::Stopped(_)));
    assert_eq!(used(&mut world, root), 30);
    assert_eq!(world.ask(root, 10, destroy("acme:a")), Response::Destroyed);
    assert_eq!(policies(&mut world, root, "acme")[0].held, Held::default());
}

#[test]
fn what_may_come_back_from_a_trial_keeps_its_room_until_then() {
    let (mut world, digest, root) = site();
    world.send(root, 3, update("acme:a", of_memory(10)));
    world.run();
    let other = || create(Create { memory_mib: 20, ..plain("acme:b", digest) });
    assert_eq!(world.refused(root, 4, other()), over(40, 30, 20));
    world.sleep_ms(u64::from(WINDOW_S) * 1000 + 1000);
    assert!(matches!(world.next(root, 3), Response::Updated(_)));
    assert_eq!(used(&mut world, root), 10);
    assert!(matches!(world.ask(root, 5, other()), Response::Created(_)));
    // There is no room any more for what it was, so there is no way back.
    assert_eq!(world.refused(root, 6, rollback("acme:a", None)), over(40, 20, 30));
}

#[test]
fn a_generation_that_policies_allow_no_more_does_not_come_back() {
    let (mut world, _, root) = site();
    let on_one = Change { cpus: Some(vec![1].try_into().unwrap()), ..Change::default() };
    updated(&mut world, root, 3, on_one);
    let one = Policy { cpus: Some(vec![1].try_into().unwrap()), ..Policy::default() };
    assert_eq!(world.ask(root, 4, set("acme", one)), Response::PolicySet);
    let refused = world.refused(root, 5, rollback("acme:a", None));
    let allowed = vec![1].try_into().unwrap();
    assert_eq!(refused, Refusal::CpuPolicy { path: path("acme"), asked: Some(0), allowed });
}

#[test]
fn a_change_that_cannot_be_kept_uses_what_it_used_before() {
    let mut world = World::with_disk(1 << 20);
    let digest = world.host.store(image::build(&Recipe::default()));
    let root = world.client();
    world.create(root, 1, Create { memory_mib: 30, ..plain("acme:a", digest) });
    world.disk.as_mut().unwrap().writes_left = Some(0);
    assert!(matches!(world.refused(root, 2, restart("acme:a", of_memory(40))), Refusal::ReadOnly(_)));
    assert_eq!(used(&mut world, root), 30);
}

#[test]
fn what_is_changed_is_counted_as_such_after_a_crash() {
    let mut world = World::with_disk(1 << 20);
    let digest = world.host.store(image::build(&Recipe::default()));
    let root = world.client();
    world.create(root, 1, Create { memory_mib: 30, ..plain("acme:a", digest) });
    updated(&mut world, root, 2, of_memory(20));
    world.send(root, 3, update("acme:a", of_memory(10)));
    world.run();
    world.restart();
    world.run();
    let root = world.client();
    assert_eq!(used(&mut world, root), 20, "what may come back from the trial");
}

#[test]
fn whoever_has_a_scope_changes_what_is_in_it_under_its_relative_name() {
    let (mut world, _, _) = site();
    let acme = world.client_as(&below(&["acme"]));
    let zeta = world.client_as(&below(&["zeta"]));
    let requests = |of: &str| {
        let history = Request::History(name(of));
        [
            stop(of),
            start(of),
            restart(of, Change::default()),
            restart(of, of_memory(20)),
            rollback(of, Some(1)),
            history,
        ]
    };
    for (id, request) in (1..).zip(requests("a")) {
        match world.ask(acme, id, request) {
            Response::Started(brief) | Response::Stopped(brief) | Response::Updated(brief) => {
                assert_eq!(&*brief.name, "a");
            }
            answer => assert!(matches!(answer, Response::Generation { .. }), "{answer:?}"),
        }
    }
    for (id, request) in (1..).zip(requests("acme:a").into_iter().chain([update("a", of_memory(8))])) {
        assert_eq!(world.refused(zeta, id, request), Refusal::NoSuchUnikernel);
    }
}

#[test]
fn what_a_unikernel_is_started_after_is_in_its_scope_and_others_are_not_told() {
    let (mut world, digest, root) = site();
    let acme = world.client_as(&below(&["acme"]));
    let after = |names: &[&str], of: &str| {
        let all = names.iter().map(|of| name(of)).collect::<Vec<_>>();
        let supervision = Supervision { after: all.try_into().unwrap(), ..Supervision::default() };
        Create { memory_mib: 4, supervision, ..plain(of, digest) }
    };
    world.create(root, 3, plain("db", digest));
    assert_eq!(world.refused(acme, 1, create(after(&["db"], "b"))), Refusal::AfterUnknown(name("db")));
    world.create(acme, 2, after(&["a"], "b"));
    let cycle = Create { force: true, ..after(&["b"], "a") };
    assert_eq!(world.refused(acme, 3, create(cycle)), Refusal::AfterCycle(name("b")));
    // An operator of the root may have it wait for what only it sees.
    world.create(root, 4, after(&["db", "acme:a"], "acme:c"));
    let Response::Info(told) = world.ask(acme, 4, info("c")) else { panic!() };
    assert_eq!(*told.watching.supervision.after, [name("a")]);
    let Response::Generation { generation, .. } = world.ask(acme, 5, Request::History(name("c"))) else {
        panic!()
    };
    assert_eq!(*generation.supervision.after, [name("a")]);
    world.ask(acme, 6, stop("a"));
    world.ask(root, 5, stop("db"));
    world.ask(acme, 7, restart("c", Change::default()));
    let Response::Info(told) = world.ask(acme, 8, info("c")) else { panic!() };
    assert_eq!(*told.watching.waits_for, [name("a")]);
}
