//! Volumes and images: what is sent and what is written where, and that half a transfer leaves nothing.

use petrel_wire::Blob;
use petrel_wire::Digest;
use petrel_wire::limits::CHUNK_BYTES_MAX;
use petrel_wire::operator::{
    Download, ImageRequest, ImageResponse, Refusal, Request, Response, StoredImage, Volume, VolumeRefusal,
    VolumeRequest, VolumeResponse, VolumeState,
};

use crate::peer::{Peer, config, serve};
use crate::site::{Site, failure, stderr, stdout};

pub fn volume(name: &str, bytes: u64) -> Volume {
    let (disk_bytes, state) = (Some(4096), VolumeState::Ready);
    Volume { name: name.parse().unwrap(), bytes, disk_bytes, state, user: None }
}

pub fn read_volume(peer: &mut Peer) -> (u32, VolumeRequest) {
    match peer.read() {
        (id, Request::Volume(request)) => (id, request),
        (_, other) => panic!("expected something about volumes, not {other:?}"),
    }
}

fn piece(offset: u64, data: &[u8]) -> Response {
    Response::Download(Download::Data { offset, data: Blob::try_from(data).unwrap() })
}

fn files(site: &Site) -> Vec<String> {
    let names = std::fs::read_dir(site.folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
    names.retain(|name| !["site", "petrel.hvt", "petrel-tender"].contains(&name.as_str()));
    names.sort();
    names
}

#[test]
fn a_volume_is_created_with_a_size_in_binary_units_and_shown() {
    let site = Site::new();
    let peer = serve(&site.listener, config(&site.seal()), |peer| {
        peer.greet();
        let (id, request) = read_volume(peer);
        let name = "acme:data".parse().unwrap();
        assert_eq!(request, VolumeRequest::Create { name, bytes: 3 << 30 });
        peer.write(id, Response::Volume(VolumeResponse::Is(volume("acme:data", 3 << 30))));
    });
    let output = site.petrel(&["volume", "create", "acme:data", "3G"]).output().unwrap();
    assert_eq!(stdout(&output), "acme:data ready, 3.0 GiB\n", "{}", stderr(&output));
    peer.join().unwrap();
}

#[test]
fn volumes_are_listed_as_json() {
    let site = Site::new();
    let peer = serve(&site.listener, config(&site.seal()), |peer| {
        peer.greet();
        let (id, request) = read_volume(peer);
        assert_eq!(request, VolumeRequest::List);
        for (name, more) in [("a", true), ("b", false)] {
            let page = vec![volume(name, 512)].try_into().unwrap();
            peer.write(id, Response::Volume(VolumeResponse::Listed { page, more }));
        }
    });
    let output = site.petrel(&["volume", "ls", "--json"]).output().unwrap();
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let expected = |name: &str| serde_json::json!({ "name": name, "bytes": 512, "disk_bytes": 4096, "state": "ready", "user": null });
    assert_eq!(told, serde_json::json!([expected("a"), expected("b")]));
    peer.join().unwrap();
}

#[test]
fn a_push_sends_what_is_not_zeros_and_then_the_end() {
    let site = Site::new();
    let mut content = vec![0; 3 * CHUNK_BYTES_MAX + 100];
    content[CHUNK_BYTES_MAX] = 7;
    content[3 * CHUNK_BYTES_MAX + 99] = 8;
    std::fs::write(site.path("data.img"), &content).unwrap();
    let bytes = content.len() as u64;
    let peer = serve(&site.listener, config(&site.seal()), move |peer| {
        peer.greet();
        let (id, request) = read_volume(peer);
        assert_eq!(request, VolumeRequest::Push { name: "a".parse().unwrap(), bytes });
        peer.write(id, Response::Volume(VolumeResponse::Wanted));
        for start in [CHUNK_BYTES_MAX, 3 * CHUNK_BYTES_MAX] {
            let end = content.len().min(start + CHUNK_BYTES_MAX);
            let data = Blob::try_from(&content[start..end]).unwrap();
            assert_eq!(read_volume(peer), (id, VolumeRequest::Chunk { offset: start as u64, data }));
        }
        assert_eq!(read_volume(peer), (id, VolumeRequest::PushEnd));
        peer.write(id, Response::Volume(VolumeResponse::Is(volume("a", 1 << 20))));
    });
    let output = site.petrel(&["volume", "push", "a", "data.img"]).output().unwrap();
    assert_eq!(stdout(&output), "a ready, 1.0 MiB\n", "{}", stderr(&output));
    peer.join().unwrap();
}

#[test]
fn a_push_that_is_refused_on_its_way_stops_with_the_reason() {
    let site = Site::new();
    std::fs::write(site.path("data.img"), vec![1; 8_000_000]).unwrap();
    let peer = serve(&site.listener, config(&site.seal()), |peer| {
        peer.greet();
        let (id, _) = read_volume(peer);
        peer.write(id, Response::Volume(VolumeResponse::Wanted));
        read_volume(peer);
        let refusal = Refusal::Shim(petrel_wire::shim::Fault::Os { errno: 28 });
        peer.write(id, Response::Refused(refusal));
        while peer.try_read().is_some() {}
    });
    let (code, said) = failure(&mut site.petrel(&["volume", "push", "a", "data.img"]));
    assert!(code == 1 && said.contains("No space left"), "{said}");
    peer.join().unwrap();
}

#[test]
fn a_pull_writes_a_file_with_holes_and_warns_of_a_mixture() {
    for consistent in [true, false] {
        let site = Site::new();
        std::fs::write(site.path("data.img"), "old").unwrap();
        let peer = serve(&site.listener, config(&site.seal()), move |peer| {
            peer.greet();
            let (id, request) = read_volume(peer);
            assert_eq!(request, VolumeRequest::Pull("a".parse().unwrap()));
            peer.write(id, Response::Download(Download::Begin { bytes: 1 << 20 }));
            peer.write(id, piece(4096, b"here"));
            peer.write(id, piece((1 << 20) - 3, b"end"));
            peer.write(id, Response::Download(Download::End { consistent }));
        });
        let output = site.petrel(&["volume", "pull", "a", "data.img", "--json"]).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((&told["bytes"], &told["consistent"]), (&(1 << 20).into(), &consistent.into()));
        assert_eq!(stderr(&output).contains("\"a\" is not consistent"), !consistent);
        let mut expected = vec![0; 1 << 20];
        expected[4096..4100].copy_from_slice(b"here");
        expected[(1 << 20) - 3..].copy_from_slice(b"end");
        assert!(std::fs::read(site.path("data.img")).unwrap() == expected);
        assert_eq!(files(&site), ["data.img"]);
        peer.join().unwrap();
    }
}

/// Whatever ends a pull early, or makes nonsense of it: the file that was there is untouched.
#[test]
fn a_pull_that_does_not_come_to_its_end_leaves_the_old_file() {
    let changed = || Response::Refused(VolumeRefusal::Changed("a".parse().unwrap()).into());
    let begin = || Response::Download(Download::Begin { bytes: 100 });
    let cases: [(Vec<Response>, i32, &str); 6] = [
        (vec![begin(), piece(0, b"new")], 3, "ended early"),
        (vec![begin(), piece(0, b"new"), changed()], 1, "changed or removed"),
        (vec![begin(), piece(98, b"new")], 3, "does not belong there"),
        (vec![begin(), piece(10, b"new"), piece(5, b"new")], 3, "does not belong there"),
        (vec![piece(0, b"new")], 3, "another question"),
        (vec![begin(), piece(u64::MAX, b"new")], 3, "does not belong there"),
    ];
    for (answers, code, words) in cases {
        let site = Site::new();
        std::fs::write(site.path("data.img"), "old").unwrap();
        let peer = serve(&site.listener, config(&site.seal()), move |peer| {
            peer.greet();
            let (id, _) = read_volume(peer);
            answers.into_iter().for_each(|answer| peer.write(id, answer));
        });
        let (exit, said) = failure(&mut site.petrel(&["volume", "pull", "a", "data.img"]));
        assert!(exit == code && said.contains(words), "{said}");
        assert_eq!(std::fs::read(site.path("data.img")).unwrap(), b"old");
        assert_eq!(files(&site), ["data.img"]);
        peer.join().unwrap();
    }
}

fn get_site(sent: &'static [u8]) -> (Site, std::thread::JoinHandle<()>, Digest) {
    let site = Site::new();
    let digest = ring::digest::digest(&ring::digest::SHA256, b"the image");
    let digest = Digest(digest.as_ref().try_into().unwrap());
    let peer = serve(&site.listener, config(&site.seal()), move |peer| {
        peer.greet();
        let (id, request) = peer.read();
        assert_eq!(request, Request::Image(ImageRequest::Pull(digest)));
        peer.write(id, Response::Download(Download::Begin { bytes: sent.len() as u64 }));
        peer.write(id, piece(0, sent));
        peer.write(id, Response::Download(Download::End { consistent: true }));
    });
    (site, peer, digest)
}

#[test]
fn an_image_is_downloaded_and_its_digest_checked() {
    let (site, peer, digest) = get_site(b"the image");
    let output = site.petrel(&["get", &format!("{digest:?}"), "-o", "got.hvt"]).output().unwrap();
    assert_eq!(stdout(&output), "got.hvt 9 B\n", "{}", stderr(&output));
    assert_eq!(std::fs::read(site.path("got.hvt")).unwrap(), b"the image");
    peer.join().unwrap();

    let (site, peer, digest) = get_site(b"another's");
    let (code, said) = failure(&mut site.petrel(&["get", &format!("{digest:?}")]));
    assert!(code == 1 && said.contains("has the digest"), "{said}");
    assert_eq!(files(&site), Vec::<String>::new());
    peer.join().unwrap();
}

#[test]
fn images_are_listed_removed_and_collected() {
    let site = Site::new();
    let digest = Digest([0xab; 32]);
    let answers: [(&[&str], ImageRequest, Response, &str); 2] = [
        (
            &["image", "ls"],
            ImageRequest::List,
            Response::Image(ImageResponse::Listed {
                page: vec![StoredImage {
                    digest,
                    bytes: 2048,
                    users: 1,
                    names: vec!["web".parse().unwrap()].try_into().unwrap(),
                }]
                .try_into()
                .unwrap(),
                more: false,
            }),
            "2.0 KiB  web",
        ),
        (
            &["image", "gc"],
            ImageRequest::Collect,
            Response::Image(ImageResponse::Collected { images: 3, bytes: 2048 }),
            "3 images deleted, 2.0 KiB",
        ),
    ];
    for (arguments, expected, answer, words) in answers {
        let peer = serve(&site.listener, config(&site.seal()), move |peer| {
            peer.greet();
            let (id, request) = peer.read();
            assert_eq!(request, Request::Image(expected));
            peer.write(id, answer);
        });
        let output = site.petrel(arguments).output().unwrap();
        assert!(stdout(&output).contains(words), "{} {}", stdout(&output), stderr(&output));
        peer.join().unwrap();
    }
    let peer = serve(&site.listener, config(&site.seal()), move |peer| {
        peer.greet();
        let (id, request) = peer.read();
        assert_eq!(request, Request::Image(ImageRequest::Remove(digest)));
        let names = vec!["web".parse().unwrap(), "acme:b".parse().unwrap()].try_into().unwrap();
        peer.write(id, Response::Refused(Refusal::ImageInUse(names)));
    });
    let (code, said) = failure(&mut site.petrel(&["image", "rm", &digest.to_string()]));
    assert!(code == 1 && said.contains("\"web\", \"acme:b\""), "{said}");
    peer.join().unwrap();
}

#[test]
fn command_lines_about_storage_that_cannot_be_meant_exit_2() {
    let site = Site::new();
    for (arguments, expected) in [
        (&["volume", "create", "a", "1.5G"][..], "expected bytes, or a number with K, M, G or T"),
        (&["volume", "create", "a/b", "1G"], "'/' is not allowed"),
        (&["image", "rm", "web"], "64 hexadecimal digits"),
        (&["get", "sha256:12"], "64 hexadecimal digits"),
    ] {
        let output = site.petrel(arguments).output().unwrap();
        let said = stderr(&output);
        assert!(output.status.code() == Some(2) && said.contains(expected), "{said}");
    }
    let (code, said) = failure(&mut site.petrel(&["volume", "push", "a", "none"]));
    assert!(code == 4 && said.contains("none failed"), "{said}");
}
