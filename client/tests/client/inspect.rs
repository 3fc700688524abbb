use std::process::Command;

use serde_json::json;

use crate::site::{failure, petrel, stdout};
use crate::solo5;

/// A file with these bytes, gone when dropped, and the command that inspects it.
fn inspected(bytes: &[u8], more: &[&str]) -> (tempfile::TempPath, Command) {
    let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
    std::fs::write(&path, bytes).unwrap();
    let mut command = petrel();
    command.arg("inspect").arg(&path).args(more);
    (path, command)
}

#[test]
fn an_image_is_shown_with_its_devices_and_segments() {
    let image = solo5::image(&[("service", solo5::NET), ("storage", solo5::BLOCK)], 0);
    let (_file, mut command) = inspected(&image, &[]);
    let people = stdout(&command.output().unwrap());
    for expected in ["target    hvt, ABI version 2", "net service", "block storage", "r-x", "12.0 KiB"] {
        assert!(people.contains(expected), "{expected:?} is missing in {people}");
    }
    let (_file, mut command) = inspected(&image, &["--json"]);
    let output = command.output().unwrap();
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        told["devices"],
        json!([{"name": "service", "kind": "net"}, {"name": "storage", "kind": "block"}])
    );
    assert_eq!(
        (&told["target"], &told["abi_version"], &told["bytes"]),
        (&json!("hvt"), &json!(2), &json!(12288))
    );
    let digest = ring::digest::digest(&ring::digest::SHA256, &image);
    let digest: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(told["digest"], json!(digest));
}

#[test]
fn an_image_for_another_target_is_shown_as_such() {
    let (_file, mut command) = inspected(&solo5::image_for(2, &[], 0), &[]);
    let output = command.output().unwrap();
    for expected in ["target    spt, ABI version 2", "runs      confined in ring 3"] {
        assert!(stdout(&output).contains(expected), "{}", stdout(&output));
    }
    let (_file, mut command) = inspected(&solo5::image_for(3, &[], 0), &[]);
    let output = command.output().unwrap();
    for expected in ["target    virtio, ABI version 2", "runs      not on petrel-tender", "virtio (3)"] {
        assert!(stdout(&output).contains(expected), "{}", stdout(&output));
    }
}

/// What `inspect --json` tells of an image.
fn told(bytes: &[u8]) -> serde_json::Value {
    let (_file, mut command) = inspected(bytes, &["--json"]);
    serde_json::from_slice(&command.output().unwrap().stdout).unwrap()
}

#[test]
fn hypercalls_that_can_be_made_fast_are_counted() {
    let mut image = solo5::image(&[], 0);
    assert_eq!((&told(&image)["hypercall_sites"], &told(&image)["runs"]["kvm"]), (&json!(0), &json!(true)));
    // Its only segment is its code: puts and poll, and a port that is no hypercall.
    image[8192..8198].copy_from_slice(&[0xba, 0x02, 0x05, 0, 0, 0xef]);
    image[8300..8306].copy_from_slice(&[0xba, 0x03, 0x05, 0, 0, 0xef]);
    image[8400..8406].copy_from_slice(&[0xba, 0x77, 0x05, 0, 0, 0xef]);
    assert_eq!(told(&image)["hypercall_sites"], json!(2));
    let spt = told(&solo5::image_for(2, &[], 0));
    assert_eq!((&spt["hypercall_sites"], &spt["runs"]["kvm"]), (&json!(null), &json!(false)));
    let virtio = told(&solo5::image_for(3, &[], 0));
    assert_eq!(virtio["runs"]["ring3"], json!(false));
    assert!(virtio["runs"]["reason"].as_str().unwrap().contains("virtio"));
}

#[test]
fn a_build_id_is_shown() {
    let mut image = solo5::image(&[], 0);
    assert_eq!(told(&image)["build_id"], json!(null));
    // One section header, of notes; another note comes first.
    let notes_at = image.len() as u64;
    let note = |kind: u32, name: &[u8; 4], id: &[u8]| {
        let id_len = u32::try_from(id.len()).unwrap();
        [&[4, id_len, kind].map(u32::to_le_bytes).concat()[..], name, id].concat()
    };
    let notes = [note(1, b"Xen\0", &[1, 2, 3, 4]), note(3, b"GNU\0", &[0xab, 0xcd, 0xef, 1])].concat();
    image.extend(&notes);
    let table_at = image.len() as u64;
    image.extend([0u32, 7].map(u32::to_le_bytes).concat());
    image.extend([0, 0, notes_at, notes.len() as u64, 0, 4, 0].map(u64::to_le_bytes).concat());
    image[40..48].copy_from_slice(&table_at.to_le_bytes());
    image[58..62].copy_from_slice(&[64, 0, 1, 0]);
    assert_eq!(told(&image)["build_id"], json!("abcdef01"));
}

#[test]
fn what_is_no_image_is_refused_with_the_reason() {
    let good = solo5::image(&[("service", solo5::NET)], 0);
    let mut no_abi = good.clone();
    no_abi[64 + 3 * 56 + 8] = b'X';
    let mut bad_name = good.clone();
    let name_at = good.windows(7).position(|window| window == b"service").unwrap();
    bad_name[name_at] = b'/';
    let mut writable_code = good.clone();
    writable_code[64 + 2 * 56 + 4] = 7;
    let cases: [(&[u8], &str); 7] = [
        (b"", "is empty or too large"),
        (b"#!/bin/sh\n", "is not an executable for x86_64"),
        (&good[..100], "is a damaged or unsuitable executable"),
        (&good[..8192], "is a damaged or unsuitable executable"),
        (&no_abi, "says nowhere which Solo5 target it is for"),
        (&bad_name, "has no valid Solo5 manifest"),
        (&writable_code, "WRITE and EXEC"),
    ];
    for (bytes, expected) in cases {
        let (_file, mut command) = inspected(bytes, &[]);
        let (code, said) = failure(&mut command);
        assert_eq!(code, 4, "{said}");
        assert!(said.contains(expected), "{expected:?} is missing in {said}");
    }
}

#[test]
fn what_is_no_file_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let (code, said) = failure(petrel().arg("inspect").arg(folder.path()));
    assert!(code == 4 && said.contains("is not a regular file"), "{said}");
    let (code, said) = failure(petrel().arg("inspect").arg(folder.path().join("none")));
    assert!(code == 4 && said.contains("there is no file"), "{said}");
}
