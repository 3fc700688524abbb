//! How fast the time-stamp counter runs: guests tell the time by it.

use std::arch::x86_64::__cpuid;
use std::time::{Duration, Instant};

use kvm_ioctls::Kvm;

use crate::sys::{ticks, vm_tsc_khz};

/// Long enough for an error of at most a few parts in 100,000.
const CALIBRATION: Duration = Duration::from_millis(10);

/// Frequency of the time-stamp counter in kHz, from whoever knows it best: KVM, the CPU, the hypervisor, a clock.
pub fn tsc_khz() -> Result<u32, String> {
    let known = kvm_knows().or_else(cpu_knows).or_else(hypervisor_knows);
    let khz = known.or_else(calibrate).filter(|khz| *khz > 0);
    khz.ok_or_else(|| {
        "Could not determine the frequency of the time-stamp counter, give it with --tsc-khz".into()
    })
}

fn kvm_knows() -> Option<u32> {
    let vm = Kvm::new().ok()?.create_vm().ok()?;
    let khz = vm_tsc_khz(&vm).ok().or_else(|| vm.create_vcpu(0).ok()?.get_tsc_khz().ok());
    khz.filter(|khz| *khz > 0)
}

/// CPUID leaf 0x15: the TSC's ratio to the core crystal clock, and that clock's frequency in Hz.
fn cpu_knows() -> Option<u32> {
    const LEAF: u32 = 0x15;
    if __cpuid(0).eax < LEAF {
        return None;
    }
    let leaf = __cpuid(LEAF);
    let hz = u64::from(leaf.ecx) * u64::from(leaf.ebx) / u64::from(leaf.eax).max(1);
    u32::try_from(hz / 1000).ok().filter(|khz| *khz > 0)
}

/// CPUID leaf 0x40000010, which several hypervisors have: the TSC's frequency in kHz.
fn hypervisor_knows() -> Option<u32> {
    const HYPERVISOR_BASE: u32 = 0x4000_0000;
    const LEAF: u32 = 0x4000_0010;
    let present = __cpuid(1).ecx & 1 << 31 != 0;
    if !present || __cpuid(HYPERVISOR_BASE).eax < LEAF {
        return None;
    }
    Some(__cpuid(LEAF).eax).filter(|khz| *khz > 0)
}

/// Counts against the monotonic clock.
fn calibrate() -> Option<u32> {
    let (clock, start) = (Instant::now(), ticks());
    std::thread::sleep(CALIBRATION);
    let (elapsed, end) = (clock.elapsed(), ticks());
    let khz = u128::from(end.wrapping_sub(start)) * 1_000_000 / elapsed.as_nanos().max(1);
    u32::try_from(khz).ok()
}
