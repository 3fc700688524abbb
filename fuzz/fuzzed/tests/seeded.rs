//! Feeds each target with what chance makes of real inputs: a little, and always the same. `make fuzz` goes on from there.

use petrel_fuzzed::TARGETS;

/// The inputs that are made for each target, and the bytes that are read of all together at most.
const INPUTS: usize = 50_000;
const BYTES: usize = 1 << 30;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % bound.max(1) as u64).expect("below a usize")
    }

    /// One of several.
    fn of<'a, T>(&mut self, several: &'a [T]) -> &'a T {
        &several[self.below(several.len())]
    }

    fn byte(&mut self) -> u8 {
        // Those that lengths, tags and text are made of come more often.
        let any = u8::try_from(self.below(256)).expect("a byte");
        *self.of(&[any, any, any & 7, 0, 1, 0x7f, 0x80, 0xff, b'"', b'\n'])
    }
}

/// Changes an input in one of the ways that find something.
fn change(input: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    // Near the beginning more often: that is where most of the meaning is.
    let reach = if random.below(2) == 0 { input.len().min(64) } else { input.len() };
    let at = random.below(reach + 1).min(input.len().saturating_sub(1));
    match random.below(7) {
        _ if input.is_empty() => input.push(random.byte()),
        0 => input[at] = random.byte(),
        1 => input[at] ^= 1 << random.below(8),
        2 => input.insert(at, random.byte()),
        3 => drop(input.remove(at)),
        4 => input.truncate(at),
        5 => {
            let piece = &other[random.below(other.len())..];
            let piece = piece[..random.below(piece.len()).min(256)].to_vec();
            drop(input.splice(at..at, piece));
        }
        _ => {
            let end = (at + random.below(64)).min(input.len());
            input[at..end].fill(random.byte());
        }
    }
}

#[test]
fn targets_bear_what_chance_makes_of_real_inputs() {
    for target in TARGETS {
        let seeds = (target.seeds)();
        assert!(!seeds.is_empty(), "{} begins with something", target.name);
        seeds.iter().for_each(|seed| (target.feed)(seed));
        let mut random = Random(1);
        let mut read = 0;
        for _ in 0..INPUTS {
            let mut input = random.of(&seeds).clone();
            for _ in 0..=random.below(4) {
                change(&mut input, random.of(&seeds).clone().as_slice(), &mut random);
            }
            read += input.len();
            if read > BYTES {
                break;
            }
            (target.feed)(&input);
        }
    }
}
