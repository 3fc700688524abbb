//! One unikernel: what it shall be, what it was, and what it is at the shim.

use alloc::vec::Vec;

use petrel_wire::{
    ExitStatus, Name,
    limits::GENERATIONS_MAX,
    operator::{Held, Restart, RestartWhen, Wish},
    shim::{InstanceId, TapId},
};

use crate::record::{Generation, Record, Spec, Trial};

/// A unikernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unikernel {
    /// Its latest instance, or the one that it will be first.
    pub instance: InstanceId,
    pub run: Run,
    pub wish: Wish,
    pub trial: Option<Trial>,
    /// How often it was started again after it had ended by itself.
    pub restarts: u32,
    /// How and when it last ended.
    pub last: Option<(ExitStatus, Option<u64>)>,
    pub current: Generation,
    /// The others that are kept, the oldest first.
    pub others: Vec<Generation>,
    /// The number of the generation that its latest instance is of.
    pub started: Option<u32>,
    pub taps: Vec<TapId>,
    /// What its latest instance needs as long as it has not ended.
    running: Needs,
}

/// What its monitor is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Run {
    /// There is none at the shim.
    Absent,
    Starting,
    Running {
        pid: u32,
    },
    Ended {
        status: ExitStatus,
        at_ms: Option<u64>,
    },
}

/// What of the host cannot be anybody else's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Needs {
    pub memory_mib: u32,
    pub nets: usize,
    pub volumes: Vec<Name>,
}

impl Needs {
    pub fn of(spec: &Spec) -> Self {
        let volumes = spec.blocks.iter().map(|block| block.volume.clone()).collect();
        Self { memory_mib: spec.memory_mib, nets: spec.nets.len(), volumes }
    }

    /// What serves either.
    fn or(mut self, other: &Self) -> Self {
        self.memory_mib = self.memory_mib.max(other.memory_mib);
        self.nets = self.nets.max(other.nets);
        let more = other.volumes.iter().filter(|volume| !self.volumes.contains(volume)).cloned();
        self.volumes.extend(more.collect::<Vec<_>>());
        self
    }
}

impl Unikernel {
    pub fn new(instance: InstanceId, generation: Generation) -> Self {
        Self {
            instance,
            run: Run::Absent,
            wish: Wish::Running,
            trial: None,
            restarts: 0,
            last: None,
            current: generation,
            others: Vec::new(),
            started: None,
            taps: Vec::new(),
            running: Needs::default(),
        }
    }

    pub fn spec(&self) -> &Spec {
        &self.current.spec
    }

    pub fn name(&self) -> &Name {
        &self.current.spec.name
    }

    /// Whether there is a monitor, or soon will be.
    pub fn is_up(&self) -> bool {
        matches!(self.run, Run::Starting | Run::Running { .. })
    }

    /// How its latest instance ended, if it has.
    pub fn ended(&self) -> Option<ExitStatus> {
        match self.run {
            Run::Ended { status, .. } => Some(status),
            Run::Absent | Run::Starting | Run::Running { .. } => None,
        }
    }

    /// What its latest instance is made from.
    pub fn started_spec(&self) -> Option<&Spec> {
        Some(&self.generation(self.started?)?.spec)
    }

    /// Whether its latest instance is of another generation than it shall be.
    pub fn is_stale(&self) -> bool {
        self.started.is_some_and(|number| number != self.current.number)
    }

    /// Whether it is to be started once there is no monitor.
    pub fn starts_again(&self) -> bool {
        let again = match self.run {
            Run::Ended { status, .. } => applies(&self.spec().supervision.restart, status),
            Run::Absent | Run::Starting | Run::Running { .. } => true,
        };
        self.wish == Wish::Running && (again || self.is_stale())
    }

    /// Whether nothing happens to it any more unless somebody asks.
    pub fn is_at_rest(&self) -> bool {
        !self.is_up() && !self.starts_again()
    }

    /// What it holds of the host now: what runs, and what it needs to run again.
    pub fn needs(&self) -> Needs {
        match (self.is_up(), self.starts_again()) {
            (true, true) => Needs::of(self.spec()).or(&self.running),
            (true, false) => self.running.clone(),
            (false, true) => Needs::of(self.spec()),
            (false, false) => Needs::default(),
        }
    }

    /// What of it counts against policies. The generation that may come back from a trial has its room until then.
    pub fn held(&self) -> Held {
        let returns = self.trial.and_then(|trial| self.generation(trial.from));
        let (held, returns) = (self.spec().held(), returns.map(|generation| generation.spec.held()));
        let more = returns.unwrap_or_default();
        Held {
            unikernels: held.unikernels,
            memory_mib: held.memory_mib.max(more.memory_mib),
            volume_mib: held.volume_mib.max(more.volume_mib),
        }
    }

    /// All that are kept, the current one first.
    pub fn generations(&self) -> impl Iterator<Item = &Generation> {
        core::iter::once(&self.current).chain(&self.others)
    }

    /// The generation with this number.
    pub fn generation(&self, number: u32) -> Option<&Generation> {
        self.generations().find(|generation| generation.number == number)
    }

    /// The number that the next one gets.
    pub fn next_number(&self) -> u32 {
        let newest = self.others.last().map_or(0, |generation| generation.number);
        newest.max(self.current.number).saturating_add(1)
    }

    pub fn starting(&mut self, instance: InstanceId, taps: Vec<TapId>) {
        self.instance = instance;
        self.run = Run::Starting;
        self.taps = taps;
        self.running = Needs::of(self.spec());
        self.started = Some(self.current.number);
    }

    pub fn ended_with(&mut self, status: ExitStatus, at_ms: Option<u64>) {
        self.run = Run::Ended { status, at_ms };
        self.last = Some((status, at_ms));
        let own = !self.is_stale() && self.trial.is_none();
        if own && self.starts_again() {
            self.restarts = self.restarts.saturating_add(1);
        }
    }

    /// Makes `generation` the current one.
    pub fn updated(&mut self, generation: Generation, trial: Option<Trial>) {
        let earlier = core::mem::replace(&mut self.current, generation);
        self.trial = trial;
        self.keep(earlier);
        // Neither the one that may come back nor the one that runs is given up.
        let needed = [self.trial.map(|trial| trial.from), self.started];
        let spare = |other: &Generation| !needed.contains(&Some(other.number));
        if self.others.len() >= GENERATIONS_MAX
            && let Some(oldest) = self.others.iter().position(spare)
        {
            self.others.remove(oldest);
        }
    }

    /// Makes one of those that are kept the current one.
    pub fn switched(&mut self, number: u32, trial: Option<Trial>) {
        let Some(index) = self.others.iter().position(|generation| generation.number == number) else {
            return;
        };
        let generation = self.others.remove(index);
        let earlier = core::mem::replace(&mut self.current, generation);
        self.trial = trial;
        self.keep(earlier);
    }

    pub fn rolled_back(&mut self, faulty: bool) {
        if let Some(trial) = self.trial.take() {
            self.current.faulty |= faulty;
            self.switched(trial.from, None);
        }
    }

    fn keep(&mut self, generation: Generation) {
        let index = self.others.partition_point(|other| other.number < generation.number);
        self.others.insert(index, generation);
    }

    /// Whether its past follows from how its latest instance ended, if it has.
    fn has_plain_past(&self) -> bool {
        let told = match self.run {
            Run::Ended { status, at_ms } => Some((status, at_ms)),
            Run::Absent | Run::Starting | Run::Running { .. } => None,
        };
        let may_count =
            self.generations().any(|kept| kept.spec.supervision.restart.when != RestartWhen::Never);
        self.restarts == 0 && self.last == told && !(may_count && told.is_some())
    }

    /// Records that make it what it is.
    pub fn records(&self) -> Vec<Record> {
        let name = self.name();
        let mut all: Vec<_> = self.generations().cloned().collect();
        all.sort_unstable_by_key(|generation| generation.number);
        let mut all = all.into_iter();
        let mut records = Vec::new();
        if let Some(generation) = all.next() {
            records.push(Record::Created { instance: self.instance, generation });
        }
        records.extend(all.map(|generation| Record::Updated { name: name.clone(), generation, trial: None }));
        let switched = |number, trial| Record::Switched { name: name.clone(), number, trial };
        if let Some(started) = self.started {
            if !self.others.is_empty() {
                records.push(switched(started, None));
            }
            let (instance, taps) = (self.instance, self.taps.clone());
            records.push(Record::Starting { name: name.clone(), instance, taps });
        }
        let instance = self.instance;
        match self.run {
            Run::Absent if self.started.is_some() => records.push(Record::Absent(instance)),
            // That it runs, and as which process, the shim tells.
            Run::Absent | Run::Starting | Run::Running { .. } => {}
            Run::Ended { status, at_ms } => records.push(Record::Ended { instance, status, at_ms }),
        }
        if !self.others.is_empty() || self.trial.is_some() {
            records.push(switched(self.current.number, self.trial));
        }
        if self.wish != Wish::Running {
            records.push(Record::Wished { name: name.clone(), wish: self.wish });
        }
        if !self.has_plain_past() {
            records.push(Record::Past { name: name.clone(), restarts: self.restarts, last: self.last });
        }
        records
    }
}

/// Whether one that ended so by itself is started again. Solo5's tenders and MirageOS's unikernels exit with 1 or 60
/// to 64 when they were started wrongly, which is no better the next time.
fn applies(restart: &Restart, status: ExitStatus) -> bool {
    match (restart.when, status) {
        (RestartWhen::Never, _) => false,
        (_, ExitStatus::Code(code)) if restart.codes.contains(&code) => true,
        (_, ExitStatus::Code(1 | 60..=64)) => false,
        (RestartWhen::Always, _) => true,
        (RestartWhen::OnFailure, ExitStatus::Code(0)) => false,
        (RestartWhen::OnFailure, ExitStatus::Code(_)) => restart.codes.is_empty(),
        (RestartWhen::OnFailure, ExitStatus::Signal(_) | ExitStatus::Unknown) => true,
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    fn policy(when: RestartWhen, codes: &[u8]) -> Restart {
        Restart { when, codes: codes.to_vec().try_into().unwrap() }
    }

    /// The codes, and beyond them a signal (256) and an end that nobody saw (257), on which it is started again.
    fn restarted_on(restart: &Restart) -> Vec<u16> {
        let codes = (0..=u8::MAX).map(ExitStatus::Code);
        let all = codes.chain([ExitStatus::Signal(11), ExitStatus::Unknown]);
        (0..).zip(all).filter(|(_, status)| applies(restart, *status)).map(|(number, _)| number).collect()
    }

    #[test]
    fn a_policy_says_on_which_ends_a_unikernel_is_started_again() {
        let wrongly_started = |code: &u16| *code == 1 || (60..=64).contains(code);
        let most: Vec<u16> = (0..=257).filter(|code| !wrongly_started(code)).collect();
        assert_eq!(restarted_on(&policy(RestartWhen::Never, &[2])), []);
        assert_eq!(restarted_on(&policy(RestartWhen::Always, &[])), most);
        assert_eq!(restarted_on(&policy(RestartWhen::OnFailure, &[])), most[1..]);
        assert_eq!(restarted_on(&policy(RestartWhen::OnFailure, &[1, 7])), vec![1, 7, 256, 257]);
        assert!(restarted_on(&policy(RestartWhen::Always, &[64])).contains(&64));
    }
}
