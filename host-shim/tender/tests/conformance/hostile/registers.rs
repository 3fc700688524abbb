//! To a guest a hypercall is one instruction that changes memory only, however the tender does it.

use hvt_abi::manifest::DeviceKind;

use super::code::guest;
use super::{end_of, guest, in_ring_3};
use crate::support::{Scratch, netns};

fn keeps(code: &[u8]) {
    let scratch = Scratch::new("keeps");
    let disk = scratch.file("disk.img", &[0; 4096]);
    let image = guest(code).device("storage", DeviceKind::Block).device("service", DeviceKind::Net);
    let block = format!("--block:storage={}", disk.display());
    let outcome = end_of(&image, &[&block, "--net:service=tap100"]);
    assert_eq!(outcome.code(), Some(0), "{outcome}");
}

#[test]
fn given_registers_flags_and_vectors_when_hypercalls_are_made_then_all_are_as_before() {
    let test = "hostile::registers::given_registers_flags_and_vectors_when_hypercalls_are_made_then_all_are_as_before";
    let _ = netns::inside(test, || {
        netns::tap("tap100", "10.0.0.1/24");
        keeps(guest!(keeps_registers));
        keeps(guest!(keeps_sse));
        // On KVM a guest has what its own control registers allow, which is SSE.
        if in_ring_3() && is_x86_feature_detected!("avx") {
            keeps(guest!(keeps_avx));
        }
        if in_ring_3() && is_x86_feature_detected!("avx512f") {
            keeps(guest!(keeps_avx512));
        }
    });
}
