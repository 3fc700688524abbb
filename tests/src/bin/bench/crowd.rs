//! The whole path with many unikernels beside it, against the empty host; and one image created many times.

use std::path::Path;
use std::time::Duration;

use petrel::{Image, Profile, Session};
use petrel_tests::out;
use petrel_wire::operator::{Net, Request, Response};

use crate::{
    ROUNDS, destroy, heading, large_image, long_running, mb, measure, memory_kib, monitor_pids, petrel,
    ratio, run, timed,
};

const CROWD: u8 = 100;
/// How often each is asked about: the first answers come while its monitor still starts.
const INFOS: usize = 10;
/// How often one image is created.
const CREATES: usize = 20;

pub fn crowd(folder: &Path, profile: &Profile) {
    let mut session = Session::connect(profile).expect("a session");
    let crash = stored(&mut session, "crash.hvt");
    heading("on one open connection, with nothing else there");
    let empty = operations(&mut session, &crash);

    let web = stored(&mut session, "web.hvt");
    (0..CROWD).for_each(|number| drop(session.request(web_server(&web, number)).expect("it is created")));
    heading(&format!("… with {CROWD} web servers that run"));
    let full = operations(&mut session, &crash);
    for (what, (full, empty)) in ["create", "info", "destroy"].into_iter().zip(full.iter().zip(empty)) {
        ratio(&format!("{what}: with {CROWD}, against the empty host"), *full, empty, "< 1.3x");
    }
    for (what, pid) in ["petrel-shim", "petrel.hvt and its tender"].into_iter().zip(monitor_pids(folder)) {
        println!("{:<52} {:>7.1} MB", format!("{what}: resident, with {CROWD}"), mb(memory_kib(pid).0));
    }
    for number in 0..CROWD {
        session.request(destroy(&called(number))).expect("it is destroyed");
    }
}

/// An image that the host has from here on.
fn stored(session: &mut Session, file: &str) -> Image {
    let image = Image::read(&out(file)).expect("an image");
    session.push(&image.bytes, image.digest(), |_| ()).expect("it is stored");
    image
}

fn called(number: u8) -> String {
    format!("crowd:web-{number}")
}

fn web_server(image: &Image, number: u8) -> Request {
    let Request::Create(mut create) = long_running(image, &called(number)) else { unreachable!("it is one") };
    let (device, bridge) = ("service".parse(), "service".parse());
    let net = Net { device: device.expect("a device"), bridge: bridge.expect("a bridge") };
    let ipv4 = format!("--ipv4=10.99.0.{}/24", 100 + number).into_bytes();
    create.nets = vec![net].try_into().expect("one");
    create.args = vec![ipv4.try_into().expect("it is short")].try_into().expect("one");
    create.memory_mib = 16;
    Request::Create(create)
}

/// The medians of create, info and destroy.
fn operations(session: &mut Session, image: &Image) -> [Duration; 3] {
    let mut ask = |request| timed(|| drop(session.request(request).expect("it is done")));
    let name = "one".parse::<petrel_wire::Name>().expect("a name");
    let mut times = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        times[0].push(ask(long_running(image, &name)));
        times[1].extend((0..INFOS).map(|_| ask(Request::Info(name.clone()))));
        times[2].push(ask(destroy(&name)));
    }
    let [creates, infos, destroys] = times;
    [("create", creates), ("info", infos), ("destroy", destroys)]
        .map(|(what, times)| measure(what, times.len(), "", |round| times[round]))
}

pub fn one_image_many_times(folder: &Path, profile: &Profile) {
    let path = large_image(folder, usize::MAX).display().to_string();
    let [_, control_plane] = monitor_pids(folder);
    let images = images_stored(profile);
    heading("one image of 4.2 MB, created again and again");
    let mut resident = Vec::new();
    let mut create = |round: usize| {
        let time = timed(|| run(&mut petrel(&["create", &format!("same{round}"), &path])));
        resident.push(memory_kib(control_plane).0);
        time
    };
    measure("petrel create, the first", 1, "", |_| create(0));
    measure("petrel create, the others", CREATES - 1, "", |round| create(1 + round));
    println!("{:<52} {:>10}   1", "images that the host got", images_stored(profile) - images);
    let grown = resident[CREATES - 1].saturating_sub(resident[0]);
    println!("{:<52} {grown:>6} KiB   0", "the control plane has grown since the first by");
    (0..CREATES).for_each(|round| run(&mut petrel(&["destroy", &format!("same{round}")])));
    std::fs::remove_file(path).expect("it was there");
}

/// How many images the host has got so far.
fn images_stored(profile: &Profile) -> usize {
    use petrel_wire::operator::{EventsAsked, What};
    let mut session = Session::connect(profile).expect("a session");
    let id = session.send(Request::Events(EventsAsked::default().into())).expect("it is sent");
    let mut stored = 0;
    while let Response::Events(events) = session.receive(id).expect("an answer") {
        stored += events.iter().filter(|event| matches!(event.what, What::ImageStored { .. })).count();
    }
    stored
}
