//! What is written to each block: a line with the seed and the block's place, over and over, so that a person who looks at
//! the bytes sees where they came from, and no two blocks are alike.

use alloc::format;

/// The bytes of a seed that still leave each line within the smallest block.
pub const SEED_BYTES_MAX: usize = 64;

/// Fills a block that is `offset` bytes from the start of its device.
pub fn fill(seed: &str, offset: u64, block: &mut [u8]) {
    let line = format!("{seed} {offset}\n");
    block.iter_mut().zip(line.bytes().cycle()).for_each(|(byte, pattern)| *byte = pattern);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_tells_its_seed_and_its_place() {
        let mut block = [0; 30];
        fill("ab", 1024, &mut block);
        assert_eq!(&block, b"ab 1024\nab 1024\nab 1024\nab 102");
    }
}
