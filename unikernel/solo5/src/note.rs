//! The manifest note, as it has to lie in its section.

use hvt_abi::note::Mft1Note;

/// The note as words of 32 bits. ELF pads notes to 4 bytes, and takes a segment of greater alignment for a kind
/// with other padding; the note's type has the manifest's alignment, which is 8. (The section starts on a page,
/// so the manifest is aligned all the same.)
///
/// # Panics
/// When `WORDS` is not the note's size: a constant's evaluation ends the compilation.
pub const fn note_words<const ENTRIES: usize, const WORDS: usize>(note: Mft1Note<ENTRIES>) -> [u32; WORDS] {
    union Words<const ENTRIES: usize, const WORDS: usize> {
        note: Mft1Note<ENTRIES>,
        words: [u32; WORDS],
    }
    assert!(size_of::<Mft1Note<ENTRIES>>() == size_of::<[u32; WORDS]>());
    // SAFETY: same size, checked above; every byte of the note is a field's, as its type has no implicit padding.
    unsafe { Words { note }.words }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hvt_abi::manifest::Entry;

    #[test]
    fn a_manifest_note_keeps_its_bytes() {
        let words: [u32; 60] = note_words(Mft1Note::new([Entry::RESERVED_FIRST, Entry::net("service")]));
        let head = [
            6,
            220,
            u32::from_le_bytes(*b"MFT1"),
            u32::from_le_bytes(*b"Solo"),
            u32::from_le_bytes(*b"5\0\0\0"),
        ];
        assert_eq!(words[..5], head);
        assert_eq!(words[5..8], [0, 1, 2], "padding, version, entries");
        assert_eq!(words[8 + 17], 1 << 30, "the reserved entry's kind");
        assert_eq!(words[34..36], [u32::from_le_bytes(*b"serv"), u32::from_le_bytes(*b"ice\0")]);
        assert_eq!(words[34 + 17], 2, "a network device");
    }
}
