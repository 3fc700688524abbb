//! The system-call filter: what is not on the list ends the process.
//!
//! A filter is a list of rules, tried in order. Each allows one call when all its conditions hold on the call's
//! arguments. Hand-written BPF, as it takes fewer lines than a library's tables.

use std::os::fd::RawFd;

/// Allows one system call.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Its number.
    pub call: i64,
    /// What its arguments must be.
    pub when: Vec<Condition>,
    /// What it is needed for.
    pub why: &'static str,
}

/// A condition on one argument of a call, of which all 64 bits count.
#[derive(Clone, Copy, Debug)]
pub struct Condition {
    index: u8,
    test: Test,
}

#[derive(Clone, Copy, Debug)]
enum Test {
    Equal(u64),
    AtMost(u64),
}

/// Starts a condition on the argument with this index, from 0.
pub fn arg(index: u8) -> Argument {
    Argument(index)
}

/// See [`arg`].
#[derive(Clone, Copy, Debug)]
pub struct Argument(u8);

impl Argument {
    /// Holds when the argument is `value`.
    pub fn eq(self, value: impl Operand) -> Condition {
        Condition { index: self.0, test: Test::Equal(value.bits()) }
    }

    /// Holds when the argument, taken as unsigned, is at most `value`.
    pub fn le(self, value: impl Operand) -> Condition {
        Condition { index: self.0, test: Test::AtMost(value.bits()) }
    }
}

/// What an argument can be compared with.
pub trait Operand {
    /// As the kernel sees it in a register.
    fn bits(self) -> u64;
}

impl Operand for u64 {
    fn bits(self) -> u64 {
        self
    }
}

impl Operand for RawFd {
    fn bits(self) -> u64 {
        u64::from(self.cast_unsigned())
    }
}

/// Offsets in the kernel's `struct seccomp_data`.
const NR: u32 = 0;
const ARCH: u32 = 4;
const ARGS: u32 = 16;

const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;

const LOAD: u16 = opcode(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS);
const JUMP_EQUAL: u16 = opcode(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K);
const JUMP_ABOVE: u16 = opcode(libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K);
const RETURN: u16 = opcode(libc::BPF_RET | libc::BPF_K);

#[expect(clippy::cast_possible_truncation, reason = "all of the kernel's bits for it are in the low byte")]
const fn opcode(bits: u32) -> u16 {
    bits as u16
}

/// A jump out of a rule's block to the next rule, until the block's length is known.
const NEXT_RULE: u8 = u8::MAX;

/// The program that allows what `rules` allow and ends the process at anything else.
pub fn compile(rules: &[Rule]) -> Vec<libc::sock_filter> {
    let mut program = vec![
        op(LOAD, ARCH),
        jump(JUMP_EQUAL, AUDIT_ARCH_X86_64, 1, 0),
        op(RETURN, libc::SECCOMP_RET_KILL_PROCESS),
        op(LOAD, NR),
    ];
    for rule in rules {
        program.extend(block(rule));
    }
    program.push(op(RETURN, libc::SECCOMP_RET_KILL_PROCESS));
    program
}

/// The code of one rule: enters and leaves with the call's number loaded.
fn block(rule: &Rule) -> Vec<libc::sock_filter> {
    let number = u32::try_from(rule.call).unwrap_or(u32::MAX);
    let mut code = vec![jump(JUMP_EQUAL, number, 0, NEXT_RULE)];
    for condition in &rule.when {
        code.extend(check(*condition));
    }
    code.push(op(RETURN, libc::SECCOMP_RET_ALLOW));
    // Where a condition has not held, the number must be loaded again; where it is another number, it is loaded still.
    let end = code.len();
    code.push(op(LOAD, NR));
    for (at, instruction) in code.iter_mut().enumerate() {
        let target = if at == 0 { end + 1 } else { end };
        // The distance is small: a call has six arguments, a condition takes five instructions.
        let distance = u8::try_from(target.saturating_sub(at + 1)).unwrap_or(NEXT_RULE);
        for jump in [&mut instruction.jt, &mut instruction.jf] {
            if *jump == NEXT_RULE {
                *jump = distance;
            }
        }
    }
    code
}

fn check(condition: Condition) -> Vec<libc::sock_filter> {
    let low_at = ARGS + 8 * u32::from(condition.index);
    let halves = |value: u64| {
        let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
        (u32::from_le_bytes([e, f, g, h]), u32::from_le_bytes([a, b, c, d]))
    };
    match condition.test {
        Test::Equal(value) => {
            let (high, low) = halves(value);
            vec![
                op(LOAD, low_at + 4),
                jump(JUMP_EQUAL, high, 0, NEXT_RULE),
                op(LOAD, low_at),
                jump(JUMP_EQUAL, low, 0, NEXT_RULE),
            ]
        }
        Test::AtMost(value) => {
            let (high, low) = halves(value);
            if high == 0 {
                return vec![
                    op(LOAD, low_at + 4),
                    jump(JUMP_EQUAL, 0, 0, NEXT_RULE),
                    op(LOAD, low_at),
                    jump(JUMP_ABOVE, low, NEXT_RULE, 0),
                ];
            }
            vec![
                op(LOAD, low_at + 4),
                jump(JUMP_ABOVE, high, NEXT_RULE, 0),
                jump(JUMP_EQUAL, high, 0, 2),
                op(LOAD, low_at),
                jump(JUMP_ABOVE, low, NEXT_RULE, 0),
            ]
        }
    }
}

fn op(code: u16, k: u32) -> libc::sock_filter {
    jump(code, k, 0, 0)
}

fn jump(code: u16, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}
