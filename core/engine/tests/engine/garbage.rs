//! Bytes that mean nothing, from either side, in any number: never a panic.

use petrel_engine::Input;
use petrel_wire::{
    Digest,
    limits::OPERATOR_VERSION,
    operator::{ClientMessage, Hello, ImageRequest, Request, Response, VolumeRequest},
    shim::{FromShim, Reply, VolumeFile},
};

use crate::{
    image::{self, NET, Recipe},
    volumes,
    walk::Random,
    world::{World, console, create, destroy, encoded, info, networked, push},
};

fn samples(digest: Digest) -> Vec<Vec<u8>> {
    let requests = [
        Request::Hello(Hello { oldest: OPERATOR_VERSION, newest: OPERATOR_VERSION }),
        Request::Host,
        push(digest, 5000),
        Request::ImageChunk(vec![7; 100].try_into().unwrap()),
        create(networked("a", digest, &["net0"])),
        Request::List,
        info("a"),
        console("a", true),
        destroy("a"),
        Request::Cancel,
        volumes::make("a:b", 4096),
        volumes::push("data", 100),
        volumes::chunk(10, &[7; 90]),
        volumes::PUSH_END,
        volumes::pull("data"),
        volumes::snapshot("data", "copy"),
        volumes::resize("data", 512),
        volumes::remove("more"),
        Request::Volume(VolumeRequest::List),
        Request::Image(ImageRequest::List),
        Request::Image(ImageRequest::Pull(digest)),
        Request::Image(ImageRequest::Collect),
    ];
    (0..).zip(requests).map(|(id, request)| encoded(&ClientMessage { id, request })).collect()
}

/// Random bytes, or a well-formed message with some of its bytes changed, cut or repeated.
fn spoil(random: &mut Random, samples: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = match random.below(4) {
        0 => (0..random.below(64)).map(|_| random.byte()).collect(),
        _ => samples[random.below(samples.len())].clone(),
    };
    for _ in 0..random.below(4) {
        if bytes.is_empty() {
            break;
        }
        let at = random.below(bytes.len());
        match random.below(4) {
            0 => bytes[at] = random.byte(),
            1 => bytes[at] ^= 1 << random.below(8),
            2 => bytes.truncate(at),
            _ => bytes.extend_from_within(at..),
        }
    }
    bytes
}

#[test]
fn no_bytes_of_a_client_hurt_anybody() {
    for seed in 0..40 {
        let random = &mut Random::new(seed);
        let mut world = World::new();
        let recipe = Recipe { devices: &[("net0", NET)], ..Recipe::default() };
        let digest = world.host.store(image::build(&recipe));
        let samples = samples(digest);
        let honest = world.client();
        for _ in 0..300 {
            let session = world.client();
            for _ in 0..random.below(8) {
                let payload = spoil(random, &samples);
                // What it asks for by accident is answered by accident: only the honest client's answers count.
                world.unanswered.clear();
                world.lenient = true;
                world.input(Input::SessionFrame { session, payload: &payload });
                world.run();
            }
            world.disconnect(session);
            world.run();
        }
        world.unanswered.clear();
        assert!(matches!(world.ask(honest, 1, Request::Host), Response::Host(_)));
        assert_eq!(world.host.free_taps(), 0);
        assert!(world.host.ledger.uploads.is_empty());
    }
}

#[test]
fn no_bytes_of_a_shim_hurt_anybody() {
    for seed in 0..40 {
        let random = &mut Random::new(seed);
        let mut world = World::new();
        let recipe = Recipe { devices: &[("net0", NET)], ..Recipe::default() };
        let digest = world.host.store(image::build(&recipe));
        let session = world.client();
        for round in 0..200 {
            if !world.linked {
                world.link_up();
                world.run();
            }
            world.send(session, 5 * round, create(networked(&format!("u{round}"), digest, &["net0"])));
            world.send(session, 5 * round + 1, volumes::snapshot("data", &format!("v{round}")));
            world.send(session, 5 * round + 2, volumes::pull("more"));
            world.send(session, 5 * round + 3, Request::Image(ImageRequest::Pull(digest)));
            world.send(session, 5 * round + 4, Request::Volume(VolumeRequest::List));
            let id = world.requests.front().map_or(0, |request| request.id);
            let mut samples: Vec<Vec<u8>> = world.host.sent.iter().map(encoded).collect();
            let file =
                |volume: &str| VolumeFile { volume: volume.parse().unwrap(), bytes: 512, disk_bytes: 0 };
            let volumes = vec![file("data"), file("stray"), file("~1")].try_into().unwrap();
            for reply in [
                Reply::Done,
                Reply::Stored { bytes: 7 },
                Reply::Spawned { pid: 3 },
                Reply::Extent { offset: 3, data: vec![7; 100].try_into().unwrap() },
                Reply::Volumes { page: volumes, more: random.below(2) == 0 },
                Reply::Images { page: vec![(digest, 7)].try_into().unwrap(), more: false },
            ] {
                samples.push(encoded(&FromShim::Reply { id, result: Ok(reply) }));
            }
            for _ in 0..random.below(3) {
                let payload = spoil(random, &samples);
                world.input(Input::LinkFrame { payload: &payload });
            }
            // A lie that was believed may make honest requests impossible: the next link starts afresh.
            if world.linked {
                world.link_down();
            }
        }
        assert!(world.unanswered.is_empty());
        world.inboxes.values_mut().for_each(|inbox| inbox.clear());
        world.link_up();
        world.run();
        assert!(matches!(world.ask(session, 9999, Request::Host), Response::Host(_)));
    }
}
