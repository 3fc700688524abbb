//! Who may do what: rights, scopes, policies, revocation, expiry.

use petrel_engine::SessionId;
use petrel_wire::operator::{
    CertificateFault, Change, Held, Policy, PolicyEntry, Refusal, Request, Resource, Response, Revocable,
    Revocation, Right, Rights, Table,
};
use petrel_wire::{
    Digest, List, Path,
    limits::{LABELS_MAX, POLICIES_MAX, SESSIONS_MAX, TRANSFERS_MAX, UPLOADS_MAX},
};

use crate::{
    chain::{self, Says, says},
    generations::{rollback, update},
    image::{self, NET, Recipe},
    restart::{restart, start, stop},
    volumes::{WANTED, given_no_volumes, make, push as push_content, snapshot},
    world::{World, console, create, destroy, info, name, networked, plain, push},
};

pub fn path(text: &str) -> Path {
    text.parse().unwrap()
}

pub fn set(at: &str, policy: Policy) -> Request {
    Request::PolicySet { path: path(at), policy: policy.into() }
}

fn remove(at: &str) -> Request {
    Request::PolicyRemove(path(at))
}

pub fn memory(mib: u64) -> Policy {
    Policy { memory_mib: Some(mib), ..Policy::default() }
}

/// A policy as a certificate has it, with every limit, and much of everything.
pub fn ample() -> Policy {
    Policy {
        unikernels: Some(1000),
        memory_mib: Some(100_000),
        cpus: Some(vec![0, 1].try_into().unwrap()),
        volume_mib: Some(100_000),
        bridges: Some(vec!["service".parse().unwrap(), "lan".parse().unwrap()].try_into().unwrap()),
    }
}

/// An operator below the CAs with these labels.
pub fn below(labels: &[&str]) -> Vec<Vec<u8>> {
    let cas = labels.iter().map(|label| says(label));
    chain::chain(&cas.chain([says("olga")]).collect::<Vec<_>>())
}

pub fn world() -> (World, Digest, SessionId) {
    let (mut world, root) = given_no_volumes();
    let digest = world.host.store(image::build(&Recipe::default()));
    (world, digest, root)
}

/// All pages of the policies within a path.
pub fn policies(world: &mut World, session: SessionId, within: &str) -> Vec<PolicyEntry> {
    world.send(session, 7000, Request::PolicyList(path(within)));
    let mut all = Vec::new();
    loop {
        let Response::Policies { page, more } = world.next(session, 7000) else { panic!("no policies") };
        all.extend(page.into_vec());
        if !more {
            return all;
        }
    }
}

fn names(world: &mut World, session: SessionId) -> Vec<String> {
    world.send(session, 7001, Request::List);
    let mut all = Vec::new();
    loop {
        let Response::Listed { page, more } = world.next(session, 7001) else { panic!("no listing") };
        all.extend(page.iter().map(|unikernel| unikernel.name.to_string()));
        if !more {
            return all;
        }
    }
}

#[test]
fn a_right_that_the_certificates_do_not_give_is_named() {
    let (mut world, digest, root) = world();
    world.create(root, 1, plain("a", digest));
    let only = |rights| chain::chain(&[Says { rights: Some(rights), ..says("olga") }]);
    let none = Rights { read: false, operate: false, delegate: false };
    let readers = world.client_as(&only(Rights { read: true, ..none }));
    let operators = world.client_as(&only(Rights { operate: true, ..none }));
    let delegators = world.client_as(&only(Rights { delegate: true, ..none }));
    let revoke = || Request::CertRevoke { path: Path::ROOT, what: Revocable::Key(Digest([1; 32])) };
    for (session, right, requests) in [
        (operators, Right::Read, vec![Request::Host, Request::List, info("a"), console("a", false)]),
        (operators, Right::Read, vec![Request::PolicyList(Path::ROOT), Request::CertRevocations]),
        (operators, Right::Read, vec![Request::History(name("a"))]),
        (readers, Right::Operate, vec![create(plain("b", digest)), destroy("a")]),
        (readers, Right::Operate, vec![start("a"), stop("a"), restart("a", Change::default())]),
        (readers, Right::Operate, vec![update("a", Change::default()), rollback("a", None)]),
        (delegators, Right::Operate, vec![crate::world::push(digest, 9)]),
        (readers, Right::Delegate, vec![set("a", memory(1)), remove("a"), revoke()]),
        (operators, Right::Delegate, vec![set("a", memory(1)), remove("a"), revoke()]),
    ] {
        for (id, request) in (100..).zip(requests) {
            assert_eq!(world.refused(session, id, request), Refusal::RightMissing(right));
        }
    }
    assert!(matches!(world.ask(readers, 1, info("a")), Response::Info(_)));
    assert_eq!(world.ask(operators, 1, destroy("a")), Response::Destroyed);
    assert_eq!(world.ask(delegators, 1, set("a", memory(1))), Response::PolicySet);
}

#[test]
fn a_right_that_a_ca_has_not_got_its_operators_have_not_got_either() {
    let (mut world, digest, _) = world();
    let read = Rights { read: true, operate: false, delegate: false };
    let ca = Says { rights: Some(read), ..says("acme") };
    let session = world.client_as(&chain::chain(&[ca, Says { rights: Some(Rights::ALL), ..says("olga") }]));
    let refused = world.refused(session, 1, create(plain("a", digest)));
    assert_eq!(refused, Refusal::RightMissing(Right::Operate));
}

#[test]
fn below_a_ca_all_names_are_relative_to_its_label_and_nothing_else_is_seen() {
    let (mut world, digest, root) = world();
    // Neighbours in the order of names on both sides, and one of the scope's own name.
    for (id, other) in (1..).zip(["acme", "acme-1", "acme.x:b", "acme2:b", "a", "z"]) {
        world.create(root, id, plain(other, digest));
    }
    let session = world.client_as(&below(&["acme"]));
    assert_eq!(names(&mut world, session), [""; 0]);
    assert_eq!(&*world.create(session, 1, plain("b:c", digest)).name, "b:c");
    assert_eq!(&*world.create(session, 2, plain(".x", digest)).name, ".x");
    assert_eq!(names(&mut world, session), [".x", "b:c"]);
    let Response::Info(told) = world.ask(session, 3, info("b:c")) else { panic!() };
    assert_eq!(&*told.unikernel.name, "b:c");
    for (id, other) in (10..).zip(["a", "acme", "acme:b:c", "z"]) {
        assert_eq!(world.refused(session, id, destroy(other)), Refusal::NoSuchUnikernel);
    }
    let all = names(&mut world, root);
    assert!(all.contains(&"acme:b:c".into()) && all.contains(&"acme:.x".into()), "{all:?}");
    assert_eq!(world.ask(session, 4, destroy("b:c")), Response::Destroyed);
    assert!(!names(&mut world, root).contains(&"acme:b:c".into()));
}

#[test]
fn a_name_that_its_scope_makes_too_deep_is_refused() {
    let (mut world, digest, _) = world();
    let session = world.client_as(&below(&["a", "b", "c"]));
    let deep = |labels: usize| vec!["x"; labels].join(":");
    let refused = world.refused(session, 1, create(plain(&deep(LABELS_MAX - 2), digest)));
    assert_eq!(refused, Refusal::ScopedName);
    world.create(session, 2, plain(&deep(LABELS_MAX - 3), digest));
}

#[test]
fn siblings_cannot_have_more_together_than_their_parent() {
    let (mut world, digest, root) = world();
    let acme = Says { policy: Some(Policy { memory_mib: Some(100), ..ample() }), ..says("acme") };
    let team = |label| Says { policy: Some(Policy { memory_mib: Some(80), ..ample() }), ..says(label) };
    let red = world.client_as(&chain::chain(&[acme.clone(), team("red"), says("olga")]));
    let blue = world.client_as(&chain::chain(&[acme, team("blue"), says("olaf")]));
    let wanted = |mib| petrel_wire::operator::Create { memory_mib: mib, ..plain("a", digest) };
    world.create(red, 1, wanted(80));
    let over = |limit, used, asked, at: &str| Refusal::OverPolicy {
        path: path(at),
        resource: Resource::Memory,
        limit,
        used,
        asked,
    };
    assert_eq!(world.refused(blue, 1, create(wanted(81))), over(100, 80, 81, "acme"));
    assert_eq!(world.refused(blue, 2, create(wanted(30))), over(100, 80, 30, "acme"));
    world.create(blue, 3, wanted(20));
    let more = petrel_wire::operator::Create { memory_mib: 4, ..plain("b", digest) };
    assert_eq!(world.refused(red, 2, create(more)), over(100, 100, 4, "acme"));
    // An operator of the root is bound by no certificate of acme's.
    world.create(root, 9, plain("acme:c", digest));
}

#[test]
fn an_older_certificate_does_not_widen_what_an_operator_has_narrowed() {
    let (mut world, digest, root) = world();
    let older = Says { policy: Some(Policy { memory_mib: Some(1000), ..ample() }), ..says("acme") };
    assert_eq!(world.ask(root, 1, set("acme", memory(40))), Response::PolicySet);
    let session = world.client_as(&chain::chain(&[older, says("olga")]));
    world.create(session, 1, plain("a", digest));
    let refused = world.refused(session, 2, create(plain("b", digest)));
    let expected = Refusal::OverPolicy {
        path: path("acme"),
        resource: Resource::Memory,
        limit: 40,
        used: 32,
        asked: 32,
    };
    assert_eq!(refused, expected);
    // Nor by its own hand.
    assert_eq!(world.refused(session, 3, set(":", memory(1000))), Refusal::OutsideScope);
    assert_eq!(world.refused(session, 4, remove(":")), Refusal::OutsideScope);
    assert_eq!(world.ask(session, 5, set("team", memory(1000))), Response::PolicySet);
    assert_eq!(world.refused(session, 6, create(plain("team:b", digest))), expected);
    assert_eq!(world.ask(root, 2, remove("acme")), Response::PolicyRemoved);
    world.create(session, 7, plain("team:b", digest));
    assert_eq!(world.refused(root, 3, remove("acme")), Refusal::NoSuchPolicy);
}

#[test]
fn a_limit_below_what_there_is_stops_what_is_new() {
    let (mut world, digest, root) = world();
    world.create(root, 1, plain("a", digest));
    world.create(root, 2, plain("b", digest));
    let one = Policy { unikernels: Some(1), ..Policy::default() };
    assert_eq!(world.ask(root, 3, set(":", one)), Response::PolicySet);
    let over =
        Refusal::OverPolicy { path: Path::ROOT, resource: Resource::Unikernels, limit: 1, used: 2, asked: 1 };
    assert_eq!(world.refused(root, 4, create(plain("c", digest))), over);
    for (id, gone) in [(5, "a"), (6, "b")] {
        assert_eq!(world.ask(root, id, destroy(gone)), Response::Destroyed);
    }
    world.create(root, 7, plain("c", digest));
}

#[test]
fn a_create_that_comes_to_nothing_uses_nothing() {
    let (mut world, digest, root) = world();
    world.host.faults.push((
        |op| matches!(op, petrel_wire::shim::Op::Spawn(_)),
        petrel_wire::shim::Fault::Os { errno: 12 },
    ));
    world.refused(root, 1, create(plain("a:b", digest)));
    assert_eq!(policies(&mut world, root, ":")[0].held, Held::default());
}

#[test]
fn cpus_are_those_of_all_policies_and_given_when_none_are_asked_for() {
    let (mut world, digest, root) = world();
    let cpus = |cpus: &[u16]| Policy { cpus: Some(cpus.to_vec().try_into().unwrap()), ..Policy::default() };
    world.ask(root, 1, set(":", cpus(&[0, 1, 5])));
    world.ask(root, 2, set("acme", cpus(&[5, 1])));
    world.create(root, 3, plain("acme:a", digest));
    assert_eq!(&*world.host.spawned[0].cpus, [1], "those that are allowed and that the host has");
    let with = |cpus: &[u16]| {
        create(petrel_wire::operator::Create {
            cpus: cpus.to_vec().try_into().unwrap(),
            ..plain("acme:b", digest)
        })
    };
    let refused = world.refused(root, 4, with(&[1, 0]));
    let allowed = List::try_from(vec![1, 5]).unwrap();
    assert_eq!(refused, Refusal::CpuPolicy { path: path("acme"), asked: Some(0), allowed });
    world.ask(root, 5, set("acme", cpus(&[5])));
    let allowed = List::try_from(vec![5]).unwrap();
    let refused = world.refused(root, 6, with(&[]));
    assert_eq!(refused, Refusal::CpuPolicy { path: path("acme"), asked: None, allowed });
}

#[test]
fn a_bridge_must_be_on_the_list_of_every_policy() {
    let mut world = World::new();
    let digest = world.host.store(image::build(&Recipe { devices: &[("net0", NET)], ..Recipe::default() }));
    let allowed: petrel_wire::operator::Bridges = vec!["lan".parse().unwrap()].try_into().unwrap();
    let ca = Says { policy: Some(Policy { bridges: Some(allowed.clone()), ..ample() }), ..says("acme") };
    let session = world.client_as(&chain::chain(&[ca, says("olga")]));
    let refused = world.refused(session, 1, create(networked("a", digest, &["net0"])));
    let asked = "service".parse().unwrap();
    assert_eq!(refused, Refusal::BridgePolicy { path: path("acme"), asked, allowed });
    assert!(world.host.spawned.is_empty());
}

#[test]
fn an_image_is_not_asked_for_when_a_policy_is_in_the_way() {
    let (mut world, _, root) = world();
    world.ask(root, 1, set(":", memory(8)));
    let refused = world.refused(root, 2, create(plain("a", Digest([9; 32]))));
    assert!(matches!(refused, Refusal::OverPolicy { .. }), "{refused:?}");
}

#[test]
fn policies_are_listed_with_what_is_used_and_what_certificates_say() {
    let (mut world, digest, root) = world();
    world.create(root, 1, plain("acme:web:a", digest));
    world.ask(root, 2, set("acme", memory(100)));
    world.ask(root, 3, set("acme-2", memory(100)));
    world.ask(root, 4, set("zeta", memory(1)));
    let held = Held { unikernels: 1, memory_mib: 32, volume_mib: 0 };
    let entry = |at: &str, set: Option<Policy>, certificate: Option<Policy>, held| PolicyEntry {
        path: path(at),
        set,
        certificate,
        held,
    };
    let none = Held::default();
    assert_eq!(
        policies(&mut world, root, ":"),
        [
            entry(":", None, None, held),
            entry("acme", Some(memory(100)), None, held),
            entry("acme-2", Some(memory(100)), None, none),
            entry("acme:web", None, None, held),
            entry("zeta", Some(memory(1)), None, none),
        ]
    );
    let ca = Says { policy: Some(ample()), ..says("acme") };
    let session = world.client_as(&chain::chain(&[ca, says("olga")]));
    assert_eq!(
        policies(&mut world, session, ":"),
        [entry(":", Some(memory(100)), Some(ample()), held), entry("web", None, None, held)]
    );
    assert_eq!(policies(&mut world, session, "web:x"), [entry("web:x", None, None, none)]);
}

#[test]
fn a_long_listing_of_policies_comes_in_pages() {
    let (mut world, _, root) = world();
    let paths: Vec<_> = (0..30).map(|i| format!("p{i:02}")).collect();
    for (id, at) in (1..).zip(&paths) {
        world.ask(root, id, set(at, memory(1)));
    }
    let listed = policies(&mut world, root, ":");
    let listed: Vec<_> = listed.iter().skip(1).map(|entry| entry.path.to_string()).collect();
    assert_eq!(listed, paths);
}

#[test]
fn operators_with_a_scope_leave_room_for_those_without() {
    let (mut world, _, root) = world();
    let session = world.client_as(&below(&["acme"]));
    for i in 0..POLICIES_MAX as u32 / 2 {
        assert_eq!(world.ask(session, i, set(&format!("p{i}"), memory(1))), Response::PolicySet);
    }
    assert_eq!(world.refused(session, 9999, set("more", memory(1))), Refusal::Full(Table::Policies));
    assert_eq!(world.ask(session, 9998, set("p0", memory(2))), Response::PolicySet, "in place of another");
    for i in POLICIES_MAX as u32 / 2..POLICIES_MAX as u32 {
        assert_eq!(world.ask(root, i, set(&format!("r{i}"), memory(1))), Response::PolicySet);
    }
    assert_eq!(world.refused(root, 9999, set("more", memory(1))), Refusal::Full(Table::Policies));
}

#[test]
fn sessions_and_uploads_with_a_scope_leave_room_for_those_without() {
    let (mut world, _, root) = world();
    let acme = world.client_as(&below(&["acme"]));
    let image = |number: usize| Digest([u8::try_from(number).unwrap(); 32]);
    for i in 0..UPLOADS_MAX / 2 {
        assert_eq!(world.ask(acme, i as u32, push(image(i), 1)), Response::ImageWanted);
    }
    assert_eq!(world.refused(acme, 100, push(image(100), 1)), Refusal::Full(Table::Uploads));
    assert_eq!(world.ask(root, 1, push(image(100), 1)), Response::ImageWanted);

    let acme = world.client_as(&below(&["acme"]));
    for i in 0..TRANSFERS_MAX as u32 / 2 {
        world.ask(root, 10 + i, make(&format!("acme:v{i}"), 512));
        assert_eq!(world.ask(acme, i, push_content(&format!("v{i}"), 512)), WANTED);
    }
    world.ask(root, 2, make("v", 512));
    assert_eq!(world.refused(acme, 100, snapshot("v0", "new")), Refusal::Full(Table::Transfers));
    assert_eq!(world.ask(root, 3, push_content("v", 512)), WANTED);
    // Three are open.
    for _ in 3..SESSIONS_MAX / 2 {
        world.client_as(&below(&["acme"]));
    }
    let extra = world.connect_as(&below(&["acme"]));
    assert_eq!(world.next(extra, 0), Response::Refused(Refusal::Full(Table::Sessions)));
    assert!(world.closed.contains(&extra));
    world.client();
}

fn turned_away(world: &mut World, chain: &[Vec<u8>]) -> Option<(u8, CertificateFault)> {
    let session = world.connect_as(chain);
    if world.nothing_for(session) {
        world.disconnect(session);
        return None;
    }
    assert!(world.closed.contains(&session));
    match world.next(session, 0) {
        Response::Refused(Refusal::Certificate { index, fault }) => Some((index, fault)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn certificates_that_open_no_session_are_told_why() {
    let (mut world, ..) = world();
    assert_eq!(turned_away(&mut world, &below(&["Acme Inc."])), Some((1, CertificateFault::Label)));
    assert_eq!(turned_away(&mut world, &[]), Some((0, CertificateFault::Malformed)));
    assert_eq!(turned_away(&mut world, &[vec![1, 2, 3]]), Some((0, CertificateFault::Malformed)));
    let expired = chain::chain(&[Says { until: Some(2023), ..says("olga") }]);
    assert_eq!(turned_away(&mut world, &expired), Some((0, CertificateFault::Expired)));
    assert_eq!(turned_away(&mut world, &below(&["acme"])), None);
}

fn serial(number: u8) -> Revocable {
    Revocable::Serial(vec![number].try_into().unwrap())
}

fn revoke(within: &str, what: Revocable) -> Request {
    Request::CertRevoke { path: path(within), what }
}

/// Operators of acme, of acme's team, and of zeta, each with the serial numbers of its chain.
fn acme(numbers: [u64; 2]) -> Vec<Vec<u8>> {
    chain::chain(&[Says { serial: numbers[0], ..says("acme") }, Says { serial: numbers[1], ..says("olga") }])
}

#[test]
fn a_revoked_certificate_ends_its_sessions_and_opens_none() {
    let (mut world, digest, root) = world();
    let (one, two, other) = (acme([1, 10]), acme([1, 11]), acme([2, 12]));
    let sessions = [&one, &one, &two, &other].map(|chain| world.client_as(chain));
    world.create(sessions[0], 1, plain("a", digest));
    world.send(sessions[1], 1, console("a", true));
    assert_eq!(world.ask(root, 1, revoke(":", serial(10))), Response::CertRevoked { sessions: 2 });
    let fault = |index| Response::Refused(Refusal::Certificate { index, fault: CertificateFault::Revoked });
    assert_eq!(world.next(sessions[0], 0), fault(0));
    assert_eq!(world.next(sessions[1], 0), fault(0), "it followed a console");
    assert!(world.closed.contains(&sessions[0]) && world.closed.contains(&sessions[1]));
    assert_eq!(turned_away(&mut world, &one), Some((0, CertificateFault::Revoked)));
    assert_eq!(turned_away(&mut world, &two), None);
    // A CA takes all with it that it certified.
    assert_eq!(world.ask(root, 2, revoke(":", serial(1))), Response::CertRevoked { sessions: 1 });
    assert_eq!(world.next(sessions[2], 0), fault(1));
    assert_eq!(turned_away(&mut world, &two), Some((1, CertificateFault::Revoked)));
    assert_eq!(turned_away(&mut world, &other), None);
    assert!(matches!(world.ask(sessions[3], 2, Request::List), Response::Listed { .. }));
    let Response::Revocations { page, more: false } = world.ask(root, 3, Request::CertRevocations) else {
        panic!()
    };
    let at_ms = page[0].at_ms;
    let revoked = |number| Revocation { path: Path::ROOT, what: serial(number), at_ms };
    assert_eq!(*page, [revoked(1), revoked(10)]);
}

#[test]
fn a_revoked_key_is_revoked_under_whatever_number() {
    let (mut world, _, root) = world();
    let stolen = rcgen::KeyPair::generate().unwrap();
    let renewed: Vec<_> = (1..3)
        .map(|serial| vec![chain::certificate_for(&stolen, &Says { serial, ..says("olga") }, false)])
        .collect();
    let key = petrel_certificate::Certificate::read(&renewed[0][0]).unwrap().key;
    let session = world.client_as(&renewed[0]);
    assert_eq!(world.ask(root, 1, revoke(":", Revocable::Key(key))), Response::CertRevoked { sessions: 1 });
    assert!(world.closed.contains(&session));
    for chain in renewed {
        assert_eq!(turned_away(&mut world, &chain), Some((0, CertificateFault::Revoked)));
    }
}

#[test]
fn who_has_a_scope_revokes_within_it_only() {
    let (mut world, _, root) = world();
    let by = world.client_as(&acme([1, 10]));
    let zeta = chain::chain(&[Says { serial: 1, ..says("zeta") }, Says { serial: 10, ..says("olga") }]);
    let team = |leaf: u64| {
        chain::chain(&[
            Says { serial: 1, ..says("acme") },
            Says { serial: 5, ..says("team") },
            Says { serial: leaf, ..says("ted") },
        ])
    };
    // Neither its own CA, which the root has certified, nor others' operators.
    assert_eq!(world.ask(by, 1, revoke(":", serial(1))), Response::CertRevoked { sessions: 0 });
    assert_eq!(turned_away(&mut world, &acme([1, 11])), None);
    // What acme has certified, and what those have.
    assert_eq!(world.ask(by, 2, revoke("team", serial(20))), Response::CertRevoked { sessions: 0 });
    assert_eq!(turned_away(&mut world, &team(20)), Some((0, CertificateFault::Revoked)));
    assert_eq!(turned_away(&mut world, &acme([1, 20])), None, "not of the team");
    assert_eq!(world.ask(by, 3, revoke(":", serial(5))), Response::CertRevoked { sessions: 0 });
    assert_eq!(turned_away(&mut world, &team(21)), Some((1, CertificateFault::Revoked)));
    // Its own number: it is told, then ended; zeta's operator with the same number goes on.
    assert_eq!(world.ask(by, 4, revoke(":", serial(10))), Response::CertRevoked { sessions: 1 });
    assert!(world.closed.contains(&by));
    assert_eq!(turned_away(&mut world, &zeta), None);
    let by = world.client_as(&acme([1, 12]));
    let Response::Revocations { page, .. } = world.ask(by, 1, Request::CertRevocations) else { panic!() };
    let paths: Vec<_> = page.iter().map(|revocation| revocation.path.to_string()).collect();
    assert_eq!(paths, [":", ":", ":", "team"], "as they are called within acme");
    assert!(
        matches!(world.ask(root, 1, Request::CertRevocations), Response::Revocations { page, .. } if page.len() == 4)
    );
}

#[test]
fn a_create_that_waits_while_its_certificate_is_revoked_is_not_carried_out() {
    let mut world = World::new();
    let digest = world.host.store(image::build(&Recipe::default()));
    let (root, session) = (world.client(), world.client_as(&acme([1, 10])));
    world.send(session, 1, create(plain("a", digest)));
    assert_eq!(world.ask(root, 1, revoke(":", serial(1))), Response::CertRevoked { sessions: 1 });
    world.run();
    assert!(world.host.spawned.is_empty());
}

#[test]
fn policies_and_revocations_are_there_after_a_crash_and_count_what_there_is() {
    let mut world = World::with_disk(1 << 20);
    let digest = world.host.store(image::build(&Recipe::default()));
    let root = world.client();
    world.create(root, 1, plain("acme:a", digest));
    world.ask(root, 2, set("acme", memory(40)));
    world.ask(root, 3, set("zeta", memory(1)));
    world.ask(root, 4, remove("zeta"));
    world.ask(root, 5, revoke("acme", serial(10)));
    world.restart();
    world.run();
    let root = world.client();
    let told: Vec<_> = policies(&mut world, root, ":")
        .into_iter()
        .map(|entry| (entry.path.to_string(), entry.set.is_some(), entry.held.memory_mib))
        .collect();
    assert_eq!(told, [(":".into(), false, 32), ("acme".into(), true, 32)]);
    let refused = world.refused(root, 1, create(plain("acme:b", digest)));
    assert!(matches!(refused, Refusal::OverPolicy { limit: 40, used: 32, asked: 32, .. }), "{refused:?}");
    assert_eq!(turned_away(&mut world, &acme([1, 10])), Some((0, CertificateFault::Revoked)));
    assert_eq!(turned_away(&mut world, &acme([1, 11])), None);
}

#[test]
fn a_policy_that_cannot_be_kept_is_refused_and_the_one_before_holds() {
    let (mut world, root) = given_a_disk_that_fails_after(memory(40));
    let refused = world.refused(root, 2, set("acme", memory(50)));
    assert!(matches!(refused, Refusal::ReadOnly(_)), "{refused:?}");
    assert_eq!(policies(&mut world, root, "acme")[0].set, Some(memory(40)));
    let (mut world, root) = given_a_disk_that_fails_after(memory(40));
    assert!(matches!(world.refused(root, 2, remove("acme")), Refusal::ReadOnly(_)));
    assert_eq!(policies(&mut world, root, "acme")[0].set, Some(memory(40)));
}

#[test]
fn a_revocation_that_cannot_be_kept_is_told_so_and_holds_as_long_as_it_can() {
    let (mut world, root) = given_a_disk_that_fails_after(memory(40));
    let session = world.client_as(&acme([1, 10]));
    assert!(matches!(world.refused(root, 2, revoke(":", serial(10))), Refusal::ReadOnly(_)));
    assert!(world.closed.contains(&session));
    assert_eq!(turned_away(&mut world, &acme([1, 10])), Some((0, CertificateFault::Revoked)));
}

fn given_a_disk_that_fails_after(policy: Policy) -> (World, SessionId) {
    let mut world = World::with_disk(1 << 20);
    let root = world.client();
    assert_eq!(world.ask(root, 1, set("acme", policy)), Response::PolicySet);
    world.disk.as_mut().unwrap().writes_left = Some(0);
    (world, root)
}

#[test]
fn the_state_of_the_host_is_for_those_who_have_all_of_it() {
    let (mut world, _, root) = world();
    let session = world.client_as(&below(&["acme"]));
    let import = || Request::StateImport { bytes: 9, force: true };
    assert_eq!(world.refused(session, 1, Request::StateExport), Refusal::OutsideScope);
    assert_eq!(world.refused(session, 2, import()), Refusal::OutsideScope);
    let operate = Rights { read: true, operate: true, delegate: false };
    let operator = world.client_as(&chain::chain(&[Says { rights: Some(operate), ..says("olga") }]));
    assert_eq!(world.refused(operator, 1, import()), Refusal::RightMissing(Right::Delegate));
    world.send(root, 1, Request::StateExport);
    assert!(matches!(world.next(root, 1), Response::StateData(_)));
}

/// 2024-01-01, the end of certificates that are valid until that year.
const NEW_YEAR_MS: u64 = 1_704_067_200_000;

#[test]
fn a_session_ends_with_the_first_of_its_certificates() {
    let (mut world, ..) = world();
    let short = Says { until: Some(2024), ..says("acme") };
    let session = world.client_as(&chain::chain(&[short, says("olga")]));
    world.now.wall_ms = NEW_YEAR_MS - 30_000;
    world.wait_ms(0);
    assert!(matches!(world.ask(session, 1, Request::Host), Response::Host(_)));
    assert_eq!(world.engine.poll_at(), Some(world.now.monotonic_ns + 31_000_000_000));
    world.wait_ms(30_999);
    assert!(!world.closed.contains(&session), "valid through its last second");
    world.wait_ms(1);
    assert!(world.closed.contains(&session));
    let expired = Refusal::Certificate { index: 0, fault: CertificateFault::Expired };
    assert_eq!(world.next(session, 0), Response::Refused(expired));
}

#[test]
fn a_session_ends_when_the_clock_jumps_over_its_end_though_nobody_says_anything() {
    let (mut world, ..) = world();
    let session = world.client_as(&chain::chain(&[Says { until: Some(2024), ..says("olga") }]));
    world.now.wall_ms = NEW_YEAR_MS + 1000;
    world.wait_ms(60_000);
    assert!(world.closed.contains(&session));
    // And a request that comes at that moment is not answered any more.
    let (mut world, _, root) = self::world();
    let session = world.client_as(&chain::chain(&[Says { until: Some(2024), ..says("olga") }]));
    world.now.wall_ms = NEW_YEAR_MS + 1000;
    world.send_unchecked(session, 1, set("a", memory(1)));
    assert!(world.closed.contains(&session));
    assert_eq!(policies(&mut world, root, "a")[0].set, None);
    assert_eq!(names(&mut world, root), [""; 0]);
}

#[test]
fn who_expires_at_the_moment_in_which_the_link_ends_leaves_nothing_that_the_shim_is_asked() {
    let (mut world, ..) = world();
    let session = world.client_as(&chain::chain(&[Says { until: Some(2024), ..says("olga") }]));
    world.now.wall_ms = NEW_YEAR_MS - 30_000;
    assert_eq!(world.ask(session, 1, push(Digest([1; 32]), 1000)), Response::ImageWanted);
    world.now.wall_ms = NEW_YEAR_MS + 1000;
    world.link_down();
    assert!(world.closed.contains(&session));
}
