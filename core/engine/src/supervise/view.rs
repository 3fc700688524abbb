//! What operators are shown of a unikernel.

use alloc::boxed::Box;

use petrel_wire::{
    List, Name,
    operator::{GenerationInfo, State as Shown, Unikernel as Brief, UnikernelInfo, Watching, Wish},
};

use crate::{
    Engine,
    record::Generation,
    supervise::{Asked, Watch, pace},
    unikernel::{Run, Unikernel},
};

impl Engine {
    /// In brief.
    pub(crate) fn brief(&self, name: &Name) -> Option<Brief> {
        Some(self.brief_of(self.state.get(name)?, self.watches.get(name)?))
    }

    fn brief_of(&self, unikernel: &Unikernel, watch: &Watch) -> Brief {
        let spec = unikernel.spec();
        Brief {
            name: spec.name.clone(),
            state: self.shown(unikernel, watch),
            image: spec.image,
            memory_mib: spec.memory_mib,
            created_ms: spec.created_ms,
            ended_ms: unikernel.last.and_then(|(_, at_ms)| at_ms),
            wish: unikernel.wish,
            generation: unikernel.current.number,
            restarts: unikernel.restarts,
            last_exit: unikernel.last.map(|(status, _)| status),
        }
    }

    /// Whole.
    pub(crate) fn info_of(&self, name: &Name) -> Option<UnikernelInfo> {
        let (unikernel, watch) = (self.state.get(name)?, self.watches.get(name)?);
        let spec = unikernel.spec();
        Some(UnikernelInfo {
            unikernel: self.brief_of(unikernel, watch),
            cpus: spec.cpus.clone(),
            nets: spec.nets.clone(),
            blocks: spec.blocks.clone(),
            args: spec.args.clone(),
            monitor: spec.monitor.clone(),
            backend: self.shim.backend_of(&spec.monitor),
            pid: if let Run::Running { pid } = unikernel.run { pid } else { 0 },
            watching: self.watching(unikernel, watch),
        })
    }

    fn watching(&self, unikernel: &Unikernel, watch: &Watch) -> Watching {
        let idle = unikernel.starts_again() && !unikernel.is_up();
        let mut waits_for = List::new();
        for name in self.waits_for(unikernel).filter(|_| idle) {
            // There are no more than it is started after.
            let _ = waits_for.push(name.clone());
        }
        let wait_ns = watch.not_before_ns.saturating_sub(self.now.monotonic_ns);
        let retry_ms = self.now.wall_ms.saturating_add(wait_ns / 1_000_000);
        Watching {
            supervision: unikernel.spec().supervision.clone(),
            waits_for,
            retry_ms: (idle && wait_ns > 0).then_some(retry_ms),
            failure: watch.failure.clone().map(Box::new),
            trial_from: unikernel.trial.map(|trial| trial.from),
        }
    }

    fn shown(&self, unikernel: &Unikernel, watch: &Watch) -> Shown {
        match (unikernel.wish, unikernel.run) {
            (Wish::Stopped, Run::Absent | Run::Ended { .. }) => Shown::Stopped,
            (Wish::Destroyed, Run::Ended { status, .. }) => Shown::Ended(status),
            (Wish::Stopped | Wish::Destroyed, _) => Shown::Stopping,
            (Wish::Running, Run::Starting) => Shown::Starting,
            (Wish::Running, Run::Running { .. }) if matches!(watch.asked, Some(Asked::Kill { .. })) => {
                Shown::Stopping
            }
            (Wish::Running, Run::Running { .. }) if watch.probing.ready => Shown::Ready,
            (Wish::Running, Run::Running { .. }) => Shown::Running,
            (Wish::Running, Run::Ended { status, .. }) if !unikernel.starts_again() => Shown::Ended(status),
            (Wish::Running, Run::Absent | Run::Ended { .. }) => self.shown_idle(unikernel, watch),
        }
    }

    /// One that is to be started.
    fn shown_idle(&self, unikernel: &Unikernel, watch: &Watch) -> Shown {
        if self.waits_for(unikernel).next().is_some() {
            Shown::Waiting
        } else if watch.failure.is_some() {
            Shown::Failed
        } else if pace::is_loop(watch.quick_ends) {
            Shown::CrashLoop
        } else if watch.not_before_ns > self.now.monotonic_ns {
            Shown::BackOff
        } else {
            Shown::Starting
        }
    }

    /// The first generation of a unikernel with a greater number than `after`, and whether another follows.
    pub(crate) fn generation_after(&self, name: &Name, after: u32) -> Option<(GenerationInfo, bool)> {
        let unikernel = self.state.get(name)?;
        let all = unikernel.others.iter().chain([&unikernel.current]);
        let mut later = all.filter(|generation| generation.number > after);
        let first = later.clone().min_by_key(|generation| generation.number)?;
        let more = later.any(|generation| generation.number > first.number);
        Some((generation_info(first, unikernel), more))
    }
}

fn generation_info(generation: &Generation, unikernel: &Unikernel) -> GenerationInfo {
    let spec = &generation.spec;
    GenerationInfo {
        number: generation.number,
        current: generation.number == unikernel.current.number,
        faulty: generation.faulty,
        made_ms: spec.made_ms,
        image: spec.image,
        memory_mib: spec.memory_mib,
        cpus: spec.cpus.clone(),
        nets: spec.nets.clone(),
        blocks: spec.blocks.clone(),
        args: spec.args.clone(),
        supervision: spec.supervision.clone(),
    }
}
