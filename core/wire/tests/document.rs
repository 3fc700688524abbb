//! Holds docs/wire.md against the code.

use petrel_wire::limits::{
    JOURNAL_VERSION, OPERATOR_VERSION, SEAL_VERSION, SHIM_VERSION, STATE_FILE_VERSION,
};

const DOCUMENT: &str = include_str!("../../../docs/wire.md");

/// The last cell of the table row that begins with `subject`.
fn stated(subject: &str) -> Option<u16> {
    let row = DOCUMENT.lines().find(|line| line.starts_with(&format!("| {subject} |")))?;
    row.trim_end_matches('|').rsplit('|').next()?.trim().parse().ok()
}

#[test]
fn the_documents_versions_are_those_of_the_code() {
    assert_eq!(stated("operator"), Some(OPERATOR_VERSION));
    assert_eq!(stated("shim"), Some(SHIM_VERSION));
    assert_eq!(stated("seal"), Some(SEAL_VERSION));
    assert_eq!(stated("journal"), Some(JOURNAL_VERSION));
    assert_eq!(stated("state file"), Some(STATE_FILE_VERSION));
}

/// The names of the variants of the enumeration that begins with `head` in `source`.
fn variants<'a>(source: &'a str, head: &str) -> Vec<&'a str> {
    let body = source.split_once(head).unwrap().1.split_once("\n}").unwrap().0;
    let starts = body.lines().filter_map(|line| line.strip_prefix("    "));
    let starts = starts.filter(|line| line.starts_with(|c: char| c.is_ascii_uppercase()));
    starts.map(|line| line.split(|c: char| !c.is_alphanumeric()).next().unwrap()).collect()
}

#[test]
fn the_document_has_a_row_for_each_request_operation_and_event() {
    let operator = include_str!("../src/operator.rs");
    let shim = include_str!("../src/shim.rs");
    let images = include_str!("../src/operator/images.rs");
    let volumes = include_str!("../src/operator/volumes.rs");
    let volume_ops = include_str!("../src/shim/volumes.rs");
    // A message that only holds others has no row of its own, but each of those has.
    let all = [
        ("", variants(operator, "pub enum Request {")),
        ("Image(", variants(images, "pub enum ImageRequest {")),
        ("Volume(", variants(volumes, "pub enum VolumeRequest {")),
        ("", variants(shim, "pub enum Op {")),
        ("Volume(", variants(volume_ops, "pub enum VolumeOp {")),
        ("", variants(shim, "pub enum Event {")),
    ];
    let all = all.iter().flat_map(|(outer, names)| names.iter().map(move |name| format!("{outer}{name}")));
    let all: Vec<_> = all.filter(|name| !["Image", "Volume"].contains(&&**name)).collect();
    assert!(all.len() > 45, "{all:?}");
    for name in &all {
        let row = |line: &str| line.strip_prefix("| `").is_some_and(|rest| begins_with(rest, name));
        assert!(DOCUMENT.lines().any(row), "docs/wire.md has no row for {name}");
    }
}

fn begins_with(text: &str, name: &str) -> bool {
    text.strip_prefix(name).is_some_and(|rest| !rest.starts_with(char::is_alphanumeric))
}

#[test]
fn the_document_names_each_answer_and_reply_in_its_tables() {
    let operator = include_str!("../src/operator.rs");
    let shim = include_str!("../src/shim.rs");
    let images = include_str!("../src/operator/images.rs");
    let volumes = include_str!("../src/operator/volumes.rs");
    let all = [
        ("", variants(operator, "pub enum Response {")),
        ("Image(", variants(images, "pub enum ImageResponse {")),
        ("Volume(", variants(volumes, "pub enum VolumeResponse {")),
        ("Download(", variants(volumes, "pub enum Download {")),
        ("", variants(shim, "pub enum Reply {")),
    ];
    let all = all.iter().flat_map(|(outer, names)| names.iter().map(move |name| format!("{outer}{name}")));
    // What only holds others, and what is said of all requests at once.
    let all: Vec<_> =
        all.filter(|name| !["Image", "Volume", "Download", "Refused"].contains(&&**name)).collect();
    assert!(all.len() > 45, "{all:?}");
    let cells: Vec<_> = DOCUMENT.lines().filter(|line| line.starts_with('|')).collect();
    for name in &all {
        let named = cells.iter().any(|row| row.split('`').any(|code| begins_with(code, name)));
        assert!(named, "no table of docs/wire.md names {name}");
    }
}
