//! What goes wrong.

use petrel_wire::shim::{Op, Request};

use super::{World, decoded};
use crate::{model::Checked, plan::Event};

/// A second, in nanoseconds.
const SECOND_NS: u64 = 1_000_000_000;

impl World {
    pub(super) fn goes_wrong(&mut self, fault: Event) -> Checked {
        self.trace.note(|| format!("fault: {}", fault.name()));
        self.count(fault.name());
        match fault {
            Event::TimeLeaps => self.clock.pass(self.random.below(40 * SECOND_NS)),
            Event::WallJumps => self.clock.set_wall(&mut self.random),
            Event::GuestHangs => self.guest_hangs(),
            Event::LinkStalls => {
                let longest_ns = *self.random.pick(&[100 * self.plan.step_ns, 60 * SECOND_NS]);
                let until_ns = self.clock.ns() + self.random.below(longest_ns);
                self.link.stall(until_ns);
            }
            Event::LinkBreaks => self.link_breaks(),
            Event::HostFails => self.host.failures += self.random.between(1, 3),
            Event::DiskFails => {
                if let Some(disk) = &mut self.disk {
                    disk.failing = !disk.failing;
                }
            }
            Event::PlaneCrashes => self.plane_crashes(),
            Event::PlaneCrashesMidway => self.plane.outputs_left = Some(self.random.index(6)),
            Event::ShimCrashes => self.shim_crashes(),
            Event::ShimCrashesMidway => self.shim_crashes_midway(),
            Event::BothCrash => {
                self.plane_crashes();
                self.shim_crashes();
            }
            Event::PowerFails => {
                self.plane_crashes();
                self.shim_crashes();
                let back_ns = self.host.shim_back_ns;
                self.host.lose_power(back_ns);
            }
            _ => {}
        }
        Ok(())
    }

    /// A guest that was killed, or will be, takes its time to end.
    fn guest_hangs(&mut self) {
        let running = self.host.processes.iter().filter(|(_, process)| process.is_running());
        if let Some(instance) = self.random.pick_from(running.map(|(id, _)| *id))
            && let Some(process) = self.host.processes.get_mut(&instance)
        {
            process.stuck = true;
        }
    }

    fn link_breaks(&mut self) {
        self.model.console_epoch += 1;
        if self.random.chance(500) {
            self.link.drop_shim_end(&mut self.random);
            self.host.link_ended();
        } else if self.link.plane_has {
            self.link.drop_shim_end(&mut self.random);
            self.host.link_ended();
            while self.link.next_for_plane().is_some() {}
        }
    }

    fn shim_crashes(&mut self) {
        self.model.console_epoch += 1;
        self.link.drop_shim_end(&mut self.random);
        let back_ns = self.clock.ns() + self.random.below(self.plan.restart_ns);
        self.host.kill_shim(back_ns);
    }

    fn shim_crashes_midway(&mut self) {
        let stalled = self.link.is_stalled(self.clock.ns());
        if let Some(payload) =
            self.link.shim_has.then(|| self.link.next_for_shim()).flatten().filter(|_| !stalled)
        {
            let back_ns = self.clock.ns() + self.random.below(self.plan.restart_ns);
            if let Ok(Request { op: Op::ImageRemove(digest), .. }) = decoded(&payload, "the shim") {
                // It may be carried out.
                self.model.images.remove(&digest);
            }
            self.host.kill_shim_at(&payload, self.random.below(4), back_ns);
        }
        self.shim_crashes();
    }
}
