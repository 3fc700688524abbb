use std::os::unix::fs::PermissionsExt;

use petrel_wire::limits::CHUNK_BYTES_MAX;
use petrel_wire::operator::{Journal, ReadOnly, Refusal, Request, Response, StateFault};

use crate::peer::{config, serve};
use crate::session::host_info;
use crate::site::{Site, failure, stderr, stdout, tree};

fn state_file() -> Vec<u8> {
    (0..=255).cycle().take(3 * CHUNK_BYTES_MAX + 17).collect()
}

#[test]
fn an_export_is_a_file_of_its_owners_alone() {
    let site = Site::new();
    let peer = serve(&site.listener, config(&site.seal()), |peer| {
        peer.greet();
        let (id, request) = peer.read();
        assert_eq!(request, Request::StateExport);
        for chunk in state_file().chunks(CHUNK_BYTES_MAX) {
            peer.write(id, Response::StateData(chunk.to_vec().try_into().unwrap()));
        }
        peer.write(id, Response::StateExported { records: 41 });
    });
    std::fs::write(site.path("backup"), "an older one").unwrap();
    let output = site.petrel(&["state", "export", "backup"]).output().unwrap();
    assert_eq!(stdout(&output), "41 records saved in backup\n", "{}", stderr(&output));
    assert!(std::fs::read(site.path("backup")).unwrap() == state_file());
    let mode = std::fs::metadata(site.path("backup")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    peer.join().unwrap();
}

#[test]
fn an_export_takes_the_place_of_a_file_only() {
    let site = Site::new();
    let place = site.path("pipe");
    std::os::unix::fs::symlink("/dev/null", &place).unwrap();
    let (code, said) = failure(&mut site.petrel(&["state", "export", "pipe"]));
    assert!(code == 4 && said.contains("not a regular file"), "{said}");
    assert!(place.symlink_metadata().unwrap().is_symlink());
}

#[test]
fn an_export_that_breaks_off_leaves_the_file_as_it_was() {
    let site = Site::new();
    let peer = serve(&site.listener, config(&site.seal()), |peer| {
        peer.greet();
        let (id, _) = peer.read();
        peer.write(id, Response::StateData(vec![1; 1000].try_into().unwrap()));
    });
    std::fs::write(site.path("backup"), "an older one").unwrap();
    let before = tree(site.folder.path());
    let (code, said) = failure(&mut site.petrel(&["state", "export", "backup"]));
    assert_eq!(code, 3, "{said}");
    assert_eq!(std::fs::read(site.path("backup")).unwrap(), b"an older one");
    assert_eq!(tree(site.folder.path()), before);
    peer.join().unwrap();
}

#[test]
fn an_import_sends_the_whole_file_and_says_what_became_of_it() {
    for force in [false, true] {
        let site = Site::new();
        let peer = serve(&site.listener, config(&site.seal()), move |peer| {
            peer.greet();
            let (id, request) = peer.read();
            let bytes = state_file().len() as u64;
            assert_eq!(request, Request::StateImport { bytes, force });
            peer.write(id, Response::StateWanted);
            let mut file = Vec::new();
            while (file.len() as u64) < bytes {
                match peer.read() {
                    (of, Request::StateChunk(chunk)) if of == id => file.extend_from_slice(&chunk),
                    (_, other) => panic!("expected a chunk, not {other:?}"),
                }
            }
            assert!(file == state_file());
            peer.write(id, Response::StateImported { records: 41 });
        });
        std::fs::write(site.path("backup"), state_file()).unwrap();
        let mut command = site.petrel(&["state", "import", "backup"]);
        let output = command.args(force.then_some("--force")).output().unwrap();
        assert_eq!(stdout(&output), "41 records are kept now\n", "{}", stderr(&output));
        peer.join().unwrap();
    }
}

#[test]
fn why_a_state_file_is_not_taken_is_said() {
    let cases = [
        (Refusal::StateInUse { unikernels: 7, running: 0 }, "keeps 7 unikernels", "--force"),
        (Refusal::StateInUse { unikernels: 7, running: 2 }, "2 unikernels of this host have not ended", "ps"),
        (Refusal::StateFile(StateFault::Damaged), "cut short or damaged", "another backup"),
        (Refusal::StateFile(StateFault::Version(7)), "of version 7", "release"),
        (Refusal::ReadOnly(ReadOnly::Damaged), "its journal is damaged", "docs/state.md"),
        (Refusal::ReadOnly(ReadOnly::TooSmall { bytes: 512, min: 131_072 }), "512 bytes", "state_mib"),
    ];
    for (refusal, what, advice) in cases {
        let site = Site::new();
        let peer = serve(&site.listener, config(&site.seal()), move |peer| {
            peer.greet();
            let (id, _) = peer.read();
            peer.write(id, Response::Refused(refusal));
        });
        std::fs::write(site.path("backup"), "x").unwrap();
        let (code, said) = failure(&mut site.petrel(&["state", "import", "backup"]));
        assert!(code == 1 && said.contains(what) && said.contains(advice), "{said}");
        peer.join().unwrap();
    }
}

#[test]
fn a_file_that_is_not_there_is_no_reason_to_ask_the_host() {
    let site = Site::new();
    let (code, said) = failure(&mut site.petrel(&["state", "import", "none"]));
    assert!(code == 4 && said.contains("none cannot be read"), "{said}");
}

#[test]
fn what_becomes_of_the_state_stands_with_the_host() {
    let cases = [
        (host_info().journal, "in a journal, epoch 3, 2.0 KiB of 8.0 MiB", "kept"),
        (Journal::InMemory, "in memory only", "in-memory"),
        (Journal::ReadOnly(ReadOnly::Damaged), "changes are refused: its journal is damaged", "read-only"),
    ];
    for (journal, text, word) in cases {
        for json in [false, true] {
            let site = Site::new();
            let peer = serve(&site.listener, config(&site.seal()), move |peer| {
                peer.greet();
                let (id, _) = peer.read();
                let host = petrel_wire::operator::HostInfo { journal, ..host_info() };
                peer.write(id, Response::Host(Box::new(host)));
            });
            let output = site.petrel(&["host"]).args(json.then_some("--json")).output().unwrap();
            let said = stdout(&output);
            if json {
                let told: serde_json::Value = serde_json::from_str(&said).unwrap();
                assert_eq!(told["journal"], word);
                assert_eq!(told["journal_epoch"].as_u64(), (word == "kept").then_some(3));
                assert_eq!(told["journal_fault"].is_string(), word == "read-only");
            } else {
                assert!(said.contains(text), "{said}");
            }
            peer.join().unwrap();
        }
    }
}
