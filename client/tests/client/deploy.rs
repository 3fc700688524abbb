use petrel_wire::operator::{Create, Refusal, Request, Response, Table};
use petrel_wire::{Digest, ExitStatus};

use crate::peer::{Peer, config, serve};
use crate::session::{unikernel, watched};
use crate::site::{Site, failure, stderr, stdout};
use crate::solo5;

pub fn digest_of(bytes: &[u8]) -> Digest {
    Digest(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref().try_into().unwrap())
}

pub fn site_with(image: &[u8]) -> Site {
    let site = Site::new();
    std::fs::write(site.path("web.hvt"), image).unwrap();
    site
}

fn read_create(peer: &mut Peer) -> (u32, Create) {
    match peer.read() {
        (id, Request::Create(create)) => (id, *create),
        (_, other) => panic!("expected a creation, not {other:?}"),
    }
}

/// Takes the chunks of an upload.
pub fn read_image(peer: &mut Peer, upload: u32, bytes: u64) -> Vec<u8> {
    let mut image = Vec::new();
    while (image.len() as u64) < bytes {
        match peer.read() {
            (id, Request::ImageChunk(chunk)) if id == upload => image.extend_from_slice(&chunk),
            (_, other) => panic!("expected a chunk, not {other:?}"),
        }
    }
    image
}

#[test]
fn an_image_that_the_host_has_is_not_uploaded() {
    let image = solo5::image(&[("service", solo5::NET)], 0);
    let site = site_with(&image);
    let peer = serve(&site.listener, config(&site.seal()), move |peer| {
        peer.greet();
        let (id, create) = read_create(peer);
        assert_eq!((&*create.name, create.image, create.memory_mib), ("web", digest_of(&image), 64));
        assert_eq!((&*create.nets[0].device, &*create.nets[0].bridge), ("service", "br0"));
        assert_eq!((&*create.cpus, &*create.args[0]), (&[1][..], &b"--ipv4=10.0.0.9/24"[..]));
        peer.write(id, Response::Created(Box::new(unikernel("web", create.image))));
        assert_eq!(peer.try_read(), None);
    });
    let output = site
        .petrel(&["create", "web", "web.hvt", "--mem", "64", "--cpu", "1", "--net", "service=br0"])
        .arg("--arg=--ipv4=10.0.0.9/24")
        .output()
        .unwrap();
    assert_eq!(
        (stdout(&output).as_str(), output.status.code()),
        ("web running\n", Some(0)),
        "{}",
        stderr(&output)
    );
    peer.join().unwrap();
}

#[test]
fn an_image_that_the_host_has_not_got_is_uploaded_whole() {
    let image = solo5::image(&[], 1_000_001);
    let site = site_with(&image);
    let peer = serve(&site.listener, config(&site.seal()), move |peer| {
        peer.greet();
        let (id, create) = read_create(peer);
        peer.write(id, Response::Refused(Refusal::NoSuchImage));
        let (upload, request) = peer.read();
        let digest = digest_of(&image);
        assert_eq!(request, Request::ImagePush { digest, bytes: image.len() as u64 });
        peer.write(upload, Response::ImageWanted);
        assert!(read_image(peer, upload, image.len() as u64) == image);
        peer.write(upload, Response::ImageStored(digest));
        let (id, again) = read_create(peer);
        assert_eq!(again, create);
        peer.write(id, Response::Created(Box::new(unikernel("web", digest))));
    });
    let output = site.petrel(&["create", "web", "web.hvt", "--json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&told["name"], &told["state"]), (&"web".into(), &"running".into()));
    // No progress bar where nobody looks.
    assert_eq!(stderr(&output), "");
    peer.join().unwrap();
}

#[test]
fn an_upload_that_is_refused_on_its_way_stops_with_the_reason() {
    let image = solo5::image(&[], 8_000_000);
    let site = site_with(&image);
    let peer = serve(&site.listener, config(&site.seal()), |peer| {
        peer.greet();
        let (id, _) = read_create(peer);
        peer.write(id, Response::Refused(Refusal::NoSuchImage));
        let (upload, _) = peer.read();
        peer.write(upload, Response::ImageWanted);
        peer.read();
        peer.write(upload, Response::Refused(Refusal::Full(Table::Uploads)));
        while peer.try_read().is_some() {}
    });
    let (code, said) = failure(&mut site.petrel(&["create", "web", "web.hvt"]));
    assert!(code == 1 && said.contains("too many uploads are under way"), "{said}");
    peer.join().unwrap();
}

#[test]
fn a_connection_that_breaks_during_an_upload_is_told() {
    let image = solo5::image(&[], 8_000_000);
    let site = site_with(&image);
    let peer = serve(&site.listener, config(&site.seal()), |peer| {
        peer.greet();
        let (id, _) = read_create(peer);
        peer.write(id, Response::Refused(Refusal::NoSuchImage));
        let (upload, _) = peer.read();
        peer.write(upload, Response::ImageWanted);
        peer.read();
    });
    let (code, said) = failure(&mut site.petrel(&["create", "web", "web.hvt"]));
    assert!(code == 3 && said.contains("ended early"), "{said}");
    peer.join().unwrap();
}

#[test]
fn create_with_wait_prints_the_console_and_ends_as_the_unikernel_did() {
    let image = solo5::image(&[], 0);
    let site = site_with(&image);
    for (status, code) in [(ExitStatus::Code(7), 7), (ExitStatus::Signal(9), 137), (ExitStatus::Unknown, 1)] {
        let peer = serve(&site.listener, config(&site.seal()), move |peer| {
            peer.greet();
            let (id, create) = read_create(peer);
            peer.write(id, Response::Created(Box::new(unikernel("web", create.image))));
            let (id, request) = peer.read();
            assert_eq!(request, Request::Console(watched("web", true)));
            peer.write(id, Response::Console { wall_ms: 0, data: b"bye\n"[..].try_into().unwrap() });
            peer.write(id, Response::Ended(status));
            peer.write(id, Response::ConsoleEnd);
        });
        let output = site.petrel(&["create", "web", "web.hvt", "--wait"]).output().unwrap();
        assert_eq!((stdout(&output).as_str(), output.status.code()), ("bye\n", Some(code)));
        peer.join().unwrap();
    }
}

#[test]
fn an_image_named_by_digest_is_asked_for_and_never_uploaded() {
    let site = Site::new();
    let digest = "ab".repeat(32);
    let peer = serve(&site.listener, config(&site.seal()), |peer| {
        peer.greet();
        let (id, create) = read_create(peer);
        assert_eq!(create.image, Digest([0xab; 32]));
        peer.write(id, Response::Refused(Refusal::NoSuchImage));
        assert_eq!(peer.try_read(), None);
    });
    let (code, said) = failure(&mut site.petrel(&["create", "web", &format!("sha256:{digest}")]));
    assert!(code == 1 && said.contains(&format!("has not got sha256:{digest}")), "{said}");
    peer.join().unwrap();
}

#[test]
fn devices_that_do_not_fit_the_manifest_are_refused_without_a_host() {
    let image = solo5::image(&[("service", solo5::NET), ("data", solo5::BLOCK)], 0);
    let site = site_with(&image);
    let cases: [(&[&str], &str); 5] = [
        (&[], "declares the net device \"service\", which is not given"),
        (&["--net", "service=br0"], "declares the block device \"data\", which is not given"),
        (&["--net", "service=br0", "--net", "data=br0"], "declares no net device \"data\""),
        (&["--net", "service=br0", "--net", "service=br1"], "the device \"service\" is given twice"),
        (
            &["--net", "service=br0", "--block", "data=v", "--block", "more=v"],
            "declares no block device \"more\"",
        ),
    ];
    for (devices, expected) in cases {
        let (code, said) = failure(site.petrel(&["create", "web", "web.hvt"]).args(devices));
        assert_eq!(code, 4, "{said}");
        assert!(said.contains(expected), "{expected:?} is missing in {said}");
    }
}

#[test]
fn a_command_line_that_cannot_be_meant_exits_2_in_the_same_form() {
    let site = Site::new();
    for (arguments, expected) in [
        (&["create", "a/b", "web.hvt"][..], "'/' is not allowed"),
        (&["create", "..", "web.hvt"], "must not begin with '-' nor be '.' or '..'"),
        (&["create", "web", "sha256:12"], "64 hexadecimal digits"),
        (&["create", "web"], "<IMAGE>"),
        (&["fly"], "fly"),
    ] {
        let output = site.petrel(arguments).output().unwrap();
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.starts_with("petrel: ") && said.contains(expected), "{said}");
    }
}

#[test]
fn help_documents_the_exit_codes_and_completions_are_printed() {
    let help = stdout(&crate::site::petrel().arg("--help").output().unwrap());
    assert!(help.contains("Exit codes:\n  0  done\n"), "{help}");
    let script = stdout(&crate::site::petrel().args(["completions", "bash"]).output().unwrap());
    assert!(script.contains("_petrel()") && script.contains("destroy"), "{script}");
}
