use petrel_wire::operator::{
    Change, GenerationInfo, Refusal, Request, Response, Setback, State, Supervision, Unikernel,
    UnikernelInfo, Volume, VolumeRequest, VolumeResponse, VolumeState, Watching, Wish,
};
use petrel_wire::shim::Backend;
use petrel_wire::{Digest, ExitStatus, List, Name};

use crate::deploy::{digest_of, read_image, site_with};
use crate::peer::{Peer, config, serve};
use crate::session::unikernel;
use crate::site::{Site, failure, stderr, stdout};
use crate::solo5;
use crate::storage::{read_volume, volume};

fn web() -> Name {
    "web".parse().unwrap()
}

#[test]
fn start_and_stop_ask_and_show_what_came_of_it() {
    let site = Site::new();
    for (verb, state) in [("start", State::Running), ("stop", State::Stopped)] {
        let peer = serve(&site.listener, config(&site.seal()), move |peer| {
            peer.greet();
            let (id, request) = peer.read();
            let shown = Box::new(Unikernel { state, ..unikernel("web", Digest([1; 32])) });
            match request {
                Request::Start(name) if name == web() => peer.write(id, Response::Started(shown)),
                Request::Stop(name) if name == web() => peer.write(id, Response::Stopped(shown)),
                other => panic!("{other:?}"),
            }
        });
        let output = site.petrel(&[verb, "web"]).output().unwrap();
        let expected = if state == State::Stopped { "web stopped\n" } else { "web running\n" };
        assert_eq!((stdout(&output).as_str(), stderr(&output).as_str()), (expected, ""));
        peer.join().unwrap();
    }
}

#[test]
fn a_restart_sends_what_is_changed_and_nothing_else() {
    let site = Site::new();
    let no_args = Change { args: Some(List::new()), cpus: Some(List::new()), ..Change::default() };
    let more = Change { memory_mib: Some(64), cpus: Some(vec![1].try_into().unwrap()), ..Change::default() };
    let cases: [(&[&str], Change); 3] = [
        (&[], Change::default()),
        (&["--no-args", "--any-cpu"], no_args),
        (&["--mem", "64", "--cpu", "1"], more),
    ];
    for (options, change) in cases {
        let peer = serve(&site.listener, config(&site.seal()), move |peer| {
            peer.greet();
            let (id, request) = peer.read();
            assert_eq!(request, Request::Restart { name: web(), change: change.into() });
            peer.write(id, Response::Started(Box::new(unikernel("web", Digest([1; 32])))));
        });
        let output = site.petrel(&["restart", "web"]).args(options).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        peer.join().unwrap();
    }
}

#[test]
fn an_update_uploads_its_image_and_tells_that_it_went_back() {
    let image = solo5::image(&[], 100_000);
    let site = site_with(&image);
    let peer = serve(&site.listener, config(&site.seal()), move |peer| {
        peer.greet();
        let change = Change { image: Some(digest_of(&image)), ..Change::default() };
        let wanted = Request::Update { name: web(), change: change.into(), window_s: 7 };
        let (id, request) = peer.read();
        assert_eq!(request, wanted);
        peer.write(id, Response::Refused(Refusal::NoSuchImage));
        let (upload, _) = peer.read();
        peer.write(upload, Response::ImageWanted);
        read_image(peer, upload, image.len() as u64);
        peer.write(upload, Response::ImageStored(digest_of(&image)));
        let (id, request) = peer.read();
        assert_eq!(request, wanted);
        let why = Setback::Ended(ExitStatus::Code(255));
        peer.write(id, Response::Refused(Refusal::RolledBack { failed: 2, generation: 1, why }));
    });
    let (code, said) = failure(&mut site.petrel(&["update", "web", "web.hvt", "--window", "7"]));
    assert_eq!(code, 1);
    assert!(said.contains("generation 2 of \"web\" ended (exit 255), so it is generation 1 again"), "{said}");
    peer.join().unwrap();
}

#[test]
fn a_history_is_shown_whole() {
    let site = Site::new();
    for json in [false, true] {
        let peer = serve(&site.listener, config(&site.seal()), |peer| {
            peer.greet();
            let (id, request) = peer.read();
            assert_eq!(request, Request::History(web()));
            for number in 1..4 {
                let generation = GenerationInfo {
                    number,
                    current: number == 2,
                    faulty: number == 3,
                    made_ms: 1,
                    image: Digest([0xab; 32]),
                    memory_mib: 32,
                    cpus: List::new(),
                    nets: List::new(),
                    blocks: List::new(),
                    args: List::new(),
                    supervision: Supervision::default(),
                };
                peer.write(id, Response::Generation { generation: generation.into(), more: number < 3 });
            }
        });
        let mut command = site.petrel(&["history", "web"]);
        let output = if json { command.arg("--json") } else { &mut command }.output().unwrap();
        let said = stdout(&output);
        if json {
            let told: serde_json::Value = serde_json::from_str(&said).unwrap();
            assert_eq!((&told[1]["current"], &told[2]["faulty"]), (&true.into(), &true.into()));
        } else {
            let states: Vec<_> = said.lines().skip(1).map(|line| line[5..13].trim()).collect();
            assert_eq!(states, ["-", "current", "given up"], "{said}");
        }
        peer.join().unwrap();
    }
}

/// What a host says of a unikernel that was created with these values.
fn told(name: &str, memory_mib: u32, wish: Wish) -> UnikernelInfo {
    UnikernelInfo {
        unikernel: Unikernel { memory_mib, wish, ..unikernel(name, Digest([0xab; 32])) },
        cpus: vec![0, 1].try_into().unwrap(),
        nets: List::new(),
        blocks: List::new(),
        args: List::new(),
        monitor: "petrel-tender".parse().unwrap(),
        backend: Some(Backend::Kvm),
        pid: 7,
        watching: Watching {
            supervision: Supervision::default(),
            waits_for: List::new(),
            retry_ms: None,
            failure: None,
            trial_from: None,
        },
    }
}

#[test]
fn a_manifest_is_held_against_what_is_there_in_the_order_of_starting() {
    let site = Site::new();
    let image = format!("image = \"sha256:{}\"\n", "ab".repeat(32));
    let same = format!("{image}cpu = [1, 0, 1]\n");
    let manifest = format!(
        "[unikernel.a]\n{same}after = [\"c\"]\n[unikernel.b]\n{same}[unikernel.c]\n{same}mem = 64\n[unikernel.d]\n{same}"
    );
    std::fs::write(site.path("all.toml"), manifest).unwrap();
    let peer = serve(&site.listener, config(&site.seal()), |peer| {
        peer.greet();
        for name in ["b", "c", "a", "d"] {
            let (id, request) = peer.read();
            assert_eq!(request, Request::Info(name.parse().unwrap()));
            let answer = match name {
                "a" => Response::Refused(Refusal::NoSuchUnikernel),
                "d" => Response::Info(Box::new(told(name, 32, Wish::Stopped))),
                _ => Response::Info(Box::new(told(name, 32, Wish::Running))),
            };
            peer.write(id, answer);
        }
        assert_eq!(peer.try_read(), None, "nothing is asked for but what there is");
    });
    let output = site.petrel(&["diff", "all.toml"]).output().unwrap();
    let expected = "~ c: replace\n    mem: 32 -> 64\n+ a: create\n~ d: start\n1 unchanged\n";
    assert_eq!((stdout(&output).as_str(), stderr(&output).as_str()), (expected, ""));
    peer.join().unwrap();
}

/// A manifest of one unikernel, which has nothing but its image.
fn write_manifest_of(site: &Site, name: &str) {
    let manifest = format!("[unikernel.{name}]\nimage = \"sha256:{}\"\n", "ab".repeat(32));
    std::fs::write(site.path("all.toml"), manifest).unwrap();
}

#[test]
fn what_policies_have_given_is_no_difference_where_no_cpus_are_named() {
    let site = Site::new();
    write_manifest_of(&site, "a");
    let peer = serve(&site.listener, config(&site.seal()), |peer| {
        peer.greet();
        let (id, _) = peer.read();
        peer.write(id, Response::Info(Box::new(told("a", 32, Wish::Running))));
    });
    let output = site.petrel(&["diff", "all.toml"]).output().unwrap();
    assert_eq!(stdout(&output), "1 unchanged\n", "{}", stderr(&output));
    peer.join().unwrap();
}

#[test]
fn what_is_pruned_goes_first_and_all_is_done_though_nobody_reads_it() {
    let site = Site::new();
    write_manifest_of(&site, "new");
    let peer = serve(&site.listener, config(&site.seal()), |peer| {
        peer.greet();
        let (id, request) = peer.read();
        assert_eq!(request, Request::List);
        let page = vec![unikernel("old", Digest([0xab; 32]))].try_into().unwrap();
        peer.write(id, Response::Listed { page, more: false });
        let (id, _) = peer.read();
        peer.write(id, Response::Refused(Refusal::NoSuchUnikernel));
        let (id, request) = peer.read();
        assert_eq!(request, Request::Destroy("old".parse().unwrap()));
        peer.write(id, Response::Destroyed);
        let (id, request) = peer.read();
        assert!(matches!(request, Request::Create(_)), "{request:?}");
        peer.write(id, Response::Created(Box::new(unikernel("new", Digest([0xab; 32])))));
    });
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = site.petrel(&["apply", "--prune", "all.toml"]).stdout(writer).output().unwrap();
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""));
    peer.join().unwrap();
}

/// Answers that the host has these volumes.
fn list(peer: &mut Peer, volumes: Vec<Volume>) {
    let (id, request) = read_volume(peer);
    assert_eq!(request, VolumeRequest::List);
    let page = volumes.try_into().unwrap();
    peer.write(id, Response::Volume(VolumeResponse::Listed { page, more: false }));
}

/// A manifest of a unikernel and the volumes that it names and does not name.
fn with_volumes(site: &Site, volumes: &[(&str, &str)]) {
    let image = format!("image = \"sha256:{}\"\n", "ab".repeat(32));
    let mut manifest = format!("[unikernel.data]\n{image}block = [\"storage=data\"]\n");
    for (name, size) in volumes {
        manifest += &format!("[volume.{name}]\nsize = \"{size}\"\n");
    }
    std::fs::write(site.path("all.toml"), manifest).unwrap();
}

#[test]
fn volumes_are_made_and_grown_before_the_unikernels_that_store_on_them() {
    let site = Site::new();
    with_volumes(&site, &[("data", "1M"), ("log", "3M"), ("same", "512")]);
    let peer = serve(&site.listener, config(&site.seal()), |peer| {
        peer.greet();
        list(peer, vec![volume("log", 1 << 20), volume("other", 512), volume("same", 512)]);
        let (id, request) = peer.read();
        assert_eq!(request, Request::Info("data".parse().unwrap()));
        peer.write(id, Response::Refused(Refusal::NoSuchUnikernel));

        let (data, log) = ("data".parse().unwrap(), "log".parse().unwrap());
        for (name, bytes, expected) in [
            ("data", 1 << 20, VolumeRequest::Create { name: data, bytes: 1 << 20 }),
            ("log", 3 << 20, VolumeRequest::Resize { name: log, bytes: 3 << 20 }),
        ] {
            let (id, request) = read_volume(peer);
            assert_eq!(request, expected);
            peer.write(id, Response::Volume(VolumeResponse::Is(volume(name, bytes))));
        }
        let (id, request) = peer.read();
        assert!(matches!(request, Request::Create(_)), "{request:?}");
        peer.write(id, Response::Created(Box::new(unikernel("data", Digest([0xab; 32])))));
        assert_eq!(peer.try_read(), None, "what the manifest does not name is left alone");
    });
    let output = site.petrel(&["apply", "all.toml"]).output().unwrap();
    let expected =
        "+ volume data: create\n~ volume log: grow\n    size: 1M -> 3M\n+ data: create\n1 unchanged\n";
    assert_eq!((stdout(&output).as_str(), stderr(&output).as_str()), (expected, ""));
    peer.join().unwrap();
}

#[test]
fn a_volume_that_is_to_shrink_is_shown_and_nothing_is_done() {
    let site = Site::new();
    with_volumes(&site, &[("data", "512K"), ("new", "1M")]);
    for verb in ["diff", "apply"] {
        let peer = serve(&site.listener, config(&site.seal()), |peer| {
            peer.greet();
            list(peer, vec![volume("data", 1 << 20)]);
            let (id, _) = peer.read();
            peer.write(id, Response::Refused(Refusal::NoSuchUnikernel));
            assert_eq!(peer.try_read(), None, "nothing is asked for but what there is");
        });
        let mut command = site.petrel(&[verb, "all.toml"]);
        if verb == "diff" {
            let output = command.output().unwrap();
            let expected = "! volume data: shrink, which apply refuses\n    size: 1M -> 512K\n+ volume new: create\n\
                            + data: create\n0 unchanged\n";
            assert_eq!((stdout(&output).as_str(), stderr(&output).as_str()), (expected, ""));
        } else {
            let (code, said) = failure(&mut command);
            assert_eq!(code, 1, "{said}");
            assert!(said.contains("\"data\" has 1M, and the manifest says 512K"), "{said}");
            assert!(said.contains("`petrel volume resize data 512K`"), "{said}");
        }
        peer.join().unwrap();
    }
}

#[test]
fn a_volume_that_cannot_be_used_is_an_error_before_anything_is_done() {
    let missing = Volume { state: VolumeState::Missing, ..volume("data", 1 << 20) };
    let orphan = Volume { state: VolumeState::Orphan, ..volume("data", 1 << 20) };
    let site = Site::new();
    for (volumes, there, exit, expected) in [
        (&[("log", "1M")][..], volume("other", 512), 4, "neither in the manifest nor on the host"),
        (&[("data", "1M")], missing, 1, "the file of the volume \"data\" is missing"),
        (&[("data", "1M")], orphan, 1, "no record of such a volume"),
    ] {
        with_volumes(&site, volumes);
        let peer = serve(&site.listener, config(&site.seal()), move |peer| {
            peer.greet();
            list(peer, vec![there]);
            assert_eq!(peer.try_read(), None, "nothing else is asked for");
        });
        let (code, said) = failure(&mut site.petrel(&["apply", "all.toml"]));
        assert_eq!(code, exit, "{said}");
        assert!(said.contains(expected), "{expected:?} is missing in {said}");
        peer.join().unwrap();
    }
}
