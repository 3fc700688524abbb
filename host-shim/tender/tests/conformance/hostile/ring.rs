//! The network's ring, which is there on KVM. The guest writes to it at any time and whatever it likes.

use hvt_abi::manifest::DeviceKind;

use super::code::guest;
use super::{guest, in_ring_3, started};
use crate::support::netns;
use crate::support::run::Outcome;

/// What a guest says that finds no ring.
const NO_RING: Option<i32> = Some(3);

/// The end of a guest with a net, to which frames come until it is over.
fn end_of(test: &str, code: &[u8], expect: impl Fn(&Outcome)) {
    let _ = netns::inside(&format!("hostile::ring::{test}"), || {
        netns::tap("tap100", "10.0.0.1/24");
        let image = guest(code).device("service", DeviceKind::Net);
        let outcome = netns::broadcast_to(started(&image, &["--net:service=tap100"]));
        if in_ring_3() {
            assert_eq!(outcome.code(), NO_RING, "{outcome}");
        } else {
            expect(&outcome);
        }
    });
}

/// How many frames the host's side of the tap has taken.
fn frames_from_the_guest() -> u64 {
    let text = std::fs::read_to_string("/proc/net/dev").expect("/proc is mounted");
    let line = text.lines().find_map(|line| line.trim().strip_prefix("tap100:")).expect("the tap");
    line.split_whitespace().nth(1).and_then(|count| count.parse().ok()).expect("a number")
}

#[test]
fn given_a_ring_when_a_guest_echoes_by_it_then_all_frames_come_back() {
    end_of(
        "given_a_ring_when_a_guest_echoes_by_it_then_all_frames_come_back",
        guest!(echoes_by_ring),
        |outcome| {
            assert_eq!(outcome.code(), Some(0), "{outcome}");
            assert_eq!(frames_from_the_guest(), 1000);
        },
    );
}

#[test]
fn given_a_ring_when_a_guest_counts_more_than_fits_then_it_is_its_end() {
    end_of(
        "given_a_ring_when_a_guest_counts_more_than_fits_then_it_is_its_end",
        guest!(counts_too_much_in_its_ring),
        |outcome| {
            outcome.expect_refusal().expect_says("Invalid guest ring: 5000 requests made, 0 taken");
        },
    );
}

#[test]
fn given_a_ring_when_a_guest_points_out_of_its_memory_then_it_is_its_end() {
    end_of(
        "given_a_ring_when_a_guest_points_out_of_its_memory_then_it_is_its_end",
        guest!(points_out_of_memory_in_its_ring),
        |outcome| {
            outcome.expect_refusal().expect_says("Invalid guest access: gpa=0x200000, sz=64");
        },
    );
}

#[test]
fn given_a_ring_when_a_guest_talks_nonsense_then_it_is_told_so_or_nothing() {
    end_of(
        "given_a_ring_when_a_guest_talks_nonsense_then_it_is_told_so_or_nothing",
        guest!(talks_nonsense_in_its_ring),
        |outcome| assert_eq!(outcome.code(), Some(0), "{outcome}"),
    );
}
