//! What a unikernel wrote, on its way to a terminal.
//!
//! The first byte says in how large pieces it comes.

use petrel::console::{Escaper, Stamper};

pub fn feed(bytes: &[u8]) {
    let Some((size, written)) = bytes.split_first() else { return };
    let shown = escaped(written, usize::from(*size).max(1));
    assert!(
        !shown.contains(|c: char| c.is_control() && c != '\n' && c != '\t'),
        "a terminal would obey this: {shown:?}"
    );
    assert_eq!(shown, escaped(written, written.len().max(1)), "it matters in which pieces it comes");
    let stamped = Stamper::default().push(shown.as_bytes(), "now");
    let lines = shown.split_inclusive('\n').count();
    assert_eq!(stamped.len(), shown.len() + lines * "now  ".len());
}

fn escaped(written: &[u8], size: usize) -> String {
    let mut escaper = Escaper::default();
    let mut shown: Vec<u8> = written.chunks(size).flat_map(|piece| escaper.push(piece)).collect();
    shown.extend(escaper.finish());
    String::from_utf8(shown).expect("what is shown is text")
}

pub fn seeds() -> Vec<Vec<u8>> {
    let all = [
        &b"\x03one\ttwo\n"[..],
        b"\x01\x1b]0;owned\x07\r\x7f\n",
        b"\x02\x9b31m\xc2\x9b",
        "\x01ä € 🐦\n".as_bytes(),
    ];
    all.map(<[u8]>::to_vec).into()
}
