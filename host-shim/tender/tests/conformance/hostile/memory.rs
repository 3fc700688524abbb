//! Reaching for memory that is not the guest's, and exceptions of all kinds.

use rustix::process::Signal;

use super::code::{Code, SCRATCH, guest};
use super::{end_of, guest, in_ring_3, started, with_command};
use crate::support::run::run;

/// Addresses that no hypercall may touch in a guest with 2 MB: below what the tender tells, its code's page where it is
/// to be written, across the end, beyond, and numbers that overflow.
const NOT_THE_GUESTS: [u64; 10] = [
    1,
    0xfff8,
    0x20_0000 - 7,
    0x20_0000,
    0x1_0000_0000,
    0x7fff_ffff_f000,
    0x8000_0000_0000_0000,
    u64::MAX - 8,
    u64::MAX - 7,
    u64::MAX,
];

#[test]
fn given_a_pointer_out_of_memory_when_a_hypercall_is_given_it_then_it_is_the_guests_end() {
    for address in NOT_THE_GUESTS {
        let puts = Code::default().store(SCRATCH, &[address, 8]).hypercall(2, SCRATCH).halt(0);
        end_of(&guest(&puts), &[]).expect_refusal().expect_says("Invalid guest access: gpa=0x");
    }
}

#[test]
fn given_an_argument_block_out_of_memory_when_a_hypercall_is_made_then_it_is_the_guests_end() {
    for number in 1..=8 {
        for address in [0, 0xfff8, 0x20_0000 - 4, 0x20_0000, 0xffff_fffc] {
            let call = Code::default().hypercall(number, address).halt(0);
            end_of(&guest(&call), &[]).expect_refusal().expect_says("Invalid guest access: gpa=0x");
        }
    }
}

#[test]
fn given_an_answer_that_would_go_into_code_when_a_hypercall_is_made_then_it_is_the_guests_end() {
    // Walltime's argument block is all answer; for the others, what is read there is code.
    let call = Code::default().hypercall(1, 0x10_0000).halt(0);
    end_of(&guest(&call), &[]).expect_refusal().expect_says("Invalid guest access: gpa=0x100000");
}

#[test]
fn given_a_length_beyond_memory_when_a_hypercall_is_given_it_then_it_is_the_guests_end() {
    for len in [0x20_0000, 1 << 32, 1 << 63, u64::MAX - u64::from(SCRATCH), u64::MAX] {
        let puts = Code::default().store(SCRATCH, &[SCRATCH.into(), len]).hypercall(2, SCRATCH).halt(0);
        end_of(&guest(&puts), &[]).expect_refusal().expect_says("Invalid guest access: gpa=0x180000");
    }
}

#[test]
fn given_the_tenders_memory_as_text_when_the_tender_is_to_print_it_then_it_refuses() {
    // On KVM there is no such page, and the pointer found in it is null.
    end_of(&guest(guest!(has_the_tenders_stack_printed)), &[])
        .expect_refusal()
        .expect_says("Invalid guest access: gpa=0x");
}

#[test]
fn given_a_guest_that_reads_the_tenders_stack_when_it_gets_to_its_end_then_there_was_no_environment() {
    const SECRET: &str = "a-password-that-nobody-may-see";
    let outcome = with_command(&guest(guest!(reads_the_tenders_stack)), &[], |mut command| {
        command.env("SECRET", SECRET);
        run(command)
    });
    outcome.expect_refusal().expect_silent_about(SECRET);
    if in_ring_3() {
        // It did get there: the arguments are beside the environment.
        outcome.expect_says("--backend=ring3").expect_says("guest exception 14");
    }
}

#[test]
fn given_a_guest_that_ruins_what_the_tender_needs_when_it_asks_for_something_then_only_it_ends() {
    if in_ring_3() {
        for code in [guest!(ruins_the_tenders_page), guest!(ruins_the_tenders_stack)] {
            let outcome = end_of(&guest(code), &[]);
            assert!(!outcome.output.contains("panicked"), "{outcome}");
        }
    }
}

#[test]
fn given_a_write_to_code_when_a_guest_tries_then_it_is_its_end() {
    end_of(&guest(guest!(writes_to_its_code)), &[])
        .expect_refusal()
        .expect_says("host/guest translation fault: rip=0x1000");
}

#[test]
fn given_a_write_to_boot_information_when_a_guest_tries_then_it_is_its_end() {
    end_of(&guest(guest!(writes_to_its_boot_information)), &[]).expect_refusal();
}

#[test]
fn given_data_that_is_executed_when_a_guest_tries_then_it_is_its_end() {
    end_of(&guest(guest!(runs_its_data)), &[]).expect_refusal();
}

/// An exception that nothing handles is the guest's end, whatever it was.
fn unhandled(code: &[u8]) {
    end_of(&guest(code), &[]).expect_refusal().expect_silent_about("internal error");
}

#[test]
fn given_no_handlers_when_a_guest_faults_then_it_is_its_end() {
    unhandled(guest!(faults));
}

#[test]
fn given_tables_at_no_address_when_a_guest_faults_then_it_is_its_end() {
    unhandled(guest!(has_mad_tables));
}

#[test]
fn given_a_jump_to_where_nothing_is_when_a_guest_makes_it_then_it_is_its_end() {
    unhandled(guest!(jumps_away));
}

#[test]
fn given_a_return_to_no_address_when_a_guest_makes_it_then_it_is_its_end() {
    unhandled(guest!(jumps_to_no_address));
}

#[test]
fn given_handlers_that_fault_forever_when_the_tender_is_told_to_end_then_it_does() {
    let running = started(&guest(guest!(faults_forever)), &[]);
    running.signal(Signal::TERM);
    running.outcome().expect_refusal().expect_says("Exiting on signal 15");
}

#[test]
fn given_a_port_that_means_nothing_when_it_is_used_then_it_is_the_guests_end() {
    // Hypercalls 0 and 9, a byte to a port, and from one.
    for number in [0, 9] {
        let call = Code::default().hypercall(number, SCRATCH).halt(0);
        end_of(&guest(&call), &[]).expect_refusal().expect_says("Invalid guest port access: port=0x50");
    }
    for instruction in [&[0xe6, 0x80][..], &[0xe4, 0x60], &[0xec], &[0xed], &[0x66, 0xef]] {
        let code = Code::default().raw(instruction).halt(0);
        end_of(&guest(&code), &[]).expect_refusal().expect_says("Invalid guest port access");
    }
}

#[test]
fn given_a_loop_without_end_when_the_tender_is_told_to_end_then_it_does() {
    for code in [guest!(loops), guest!(loops_in_ruins), guest!(sleeps)] {
        for (signal, number) in [(Signal::TERM, 15), (Signal::INT, 2)] {
            let running = started(&guest(code), &[]);
            running.signal(signal);
            let says = format!("Exiting on signal {number}");
            running.outcome().expect_refusal().expect_says(&says);
        }
    }
}

#[test]
fn given_a_loop_without_end_when_the_tender_is_killed_then_nothing_is_left() {
    let running = started(&guest(guest!(loops)), &[]);
    running.signal(Signal::KILL);
    let outcome = running.outcome();
    assert_eq!(outcome.code(), None, "{outcome}");
}
