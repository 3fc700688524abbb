//! Whether a unikernel is ready, and whether it still does its work.
//!
//! Console probes are decided here. For the others the driver makes the connection and tells the outcome; there are
//! never more than [`PROBES_MAX`] of them under way.

use alloc::{boxed::Box, collections::BTreeMap, vec::Vec};

use petrel_wire::{
    Name, Probe,
    operator::{Liveness, Supervision, What, Who},
    shim::InstanceId,
};

use crate::{
    Engine, Output, ProbeId, ProbeKind,
    limits::{PROBE_POSTPONED_NS, PROBE_TIMEOUT_MS, PROBES_MAX, READY_INTERVAL_NS},
    unikernel::Run,
};

/// The probes under way.
pub(crate) type Probes = BTreeMap<ProbeId, (Name, InstanceId)>;

/// How far the probes of one instance are.
#[derive(Debug, Default)]
pub(crate) struct Probing {
    /// The readiness probe has succeeded.
    pub ready: bool,
    /// When the next probe is due (monotonic nanoseconds), unless one is under way or none is needed.
    due_ns: Option<u64>,
    /// How often in a row the liveness probe has failed.
    failures: u8,
    /// The end of what was last written to the console, where the beginning of a sought text may be.
    tail: Vec<u8>,
    /// The text of the liveness probe was written since it was last asked for.
    heard: bool,
}

impl Probing {
    /// Of an instance that runs since now.
    pub fn new(supervision: Option<&Supervision>, now_ns: u64) -> Self {
        let mut probing = Self::default();
        if let Some(supervision) = supervision {
            probing.due_ns = match (&supervision.ready, &supervision.alive) {
                (Some(Probe::Console(_)), _) => None,
                (Some(_), _) => Some(now_ns),
                (None, Some(alive)) => Some(now_ns.saturating_add(interval_ns(alive))),
                (None, None) => None,
            };
        }
        probing
    }

    /// Whether `text` is in what was written last, up to and with `data`.
    fn hears(&self, data: &[u8], text: &str) -> bool {
        let sought = text.as_bytes();
        let joined = [&self.tail, data].concat();
        joined.windows(sought.len()).any(|window| window == sought)
    }

    fn remember(&mut self, data: &[u8], longest: usize) {
        self.tail.extend_from_slice(data);
        let surplus = self.tail.len().saturating_sub(longest.saturating_sub(1));
        self.tail.drain(..surplus);
    }
}

fn interval_ns(alive: &Liveness) -> u64 {
    u64::from(alive.every_s) * 1_000_000_000
}

fn console_text(probe: Option<&Probe>) -> Option<&str> {
    match probe {
        Some(Probe::Console(text)) => Some(text),
        _ => None,
    }
}

impl Engine {
    /// The next moment at which a unikernel's probe is due.
    pub(super) fn probe_due_ns(&self, name: &Name) -> Option<u64> {
        let (unikernel, watch) = (self.state.get(name)?, self.watches.get(name)?);
        let runs = matches!(unikernel.run, Run::Running { .. }) && watch.asked.is_none();
        watch.probing.due_ns.filter(|_| runs)
    }

    pub(super) fn probe_if_due(&mut self, name: &Name) {
        let now_ns = self.now.monotonic_ns;
        if self.probe_due_ns(name).is_none_or(|at_ns| at_ns > now_ns) {
            return;
        }
        let Some(unikernel) = self.state.get(name) else { return };
        let instance = unikernel.instance;
        let Supervision { ready, alive, .. } = unikernel.spec().supervision.clone();
        let watch = self.watch(name);
        let seeks_ready = !watch.probing.ready && ready.is_some();
        let alive = alive.map(|alive| alive.probe);
        match if seeks_ready { ready } else { alive } {
            Some(Probe::Tcp { address, port }) => self.probe(name, instance, (address, port), ProbeKind::Tcp),
            Some(Probe::Http { address, port, path }) => {
                self.probe(name, instance, (address, port), ProbeKind::Http { path });
            }
            Some(Probe::Console(_)) => {
                let heard = core::mem::take(&mut watch.probing.heard);
                self.probe_answered(name, heard);
            }
            None => watch.probing.due_ns = None,
        }
    }

    fn probe(&mut self, name: &Name, instance: InstanceId, to: (core::net::Ipv4Addr, u16), kind: ProbeKind) {
        if self.probes.len() >= PROBES_MAX {
            let later_ns = self.now.monotonic_ns.saturating_add(PROBE_POSTPONED_NS);
            self.watch(name).probing.due_ns = Some(later_ns);
            return;
        }
        self.watch(name).probing.due_ns = None;
        self.serial += 1;
        let id = ProbeId(self.serial);
        self.probes.insert(id, (name.clone(), instance));
        let (address, port) = to;
        self.outputs.push_back(Output::Probe { id, kind, address, port, timeout_ms: PROBE_TIMEOUT_MS });
    }

    pub(crate) fn probed(&mut self, id: ProbeId, passed: bool) {
        let Some((name, instance)) = self.probes.remove(&id) else { return };
        let same = self.state.get(&name).is_some_and(|unikernel| unikernel.instance == instance);
        if same && self.watches.get(&name).is_some_and(|watch| watch.probing.due_ns.is_none()) {
            self.probe_answered(&name, passed);
            self.reconcile(&name);
        }
    }

    fn probe_answered(&mut self, name: &Name, passed: bool) {
        let Some(unikernel) = self.state.get(name) else { return };
        if !matches!(unikernel.run, Run::Running { .. }) {
            return;
        }
        let Supervision { ready, alive, .. } = unikernel.spec().supervision.clone();
        let now_ns = self.now.monotonic_ns;
        let watch = self.watch(name);
        if !watch.probing.ready && ready.is_some() {
            if passed {
                self.became_ready(name);
            } else {
                watch.probing.due_ns = Some(now_ns.saturating_add(READY_INTERVAL_NS));
            }
            return;
        }
        let Some(alive) = alive else { return };
        watch.probing.due_ns = Some(now_ns.saturating_add(interval_ns(&alive)));
        watch.probing.failures = if passed { 0 } else { watch.probing.failures.saturating_add(1) };
        if watch.probing.failures >= alive.failures {
            watch.unhealthy = true;
            let what = What::NotAlive(Box::new(alive.probe), alive.failures.into());
            self.happened(Who::ControlPlane, what, Some(name.clone()));
        }
    }

    fn became_ready(&mut self, name: &Name) {
        let now_ns = self.now.monotonic_ns;
        let Some(unikernel) = self.state.get(name) else { return };
        let on_trial = unikernel.trial.is_some() && !unikernel.is_stale();
        let alive = unikernel.spec().supervision.alive.clone();
        let probing = &mut self.watch(name).probing;
        probing.ready = true;
        probing.due_ns = alive.map(|alive| now_ns.saturating_add(interval_ns(&alive)));
        self.happened(Who::ControlPlane, What::Ready, Some(name.clone()));
        if on_trial {
            self.accept(name);
        }
        self.wake_waiting();
    }

    /// A unikernel has written to its console: that may be what a probe waits for.
    pub(crate) fn console_heard(&mut self, instance: InstanceId, data: &[u8]) {
        let Some(unikernel) = self.state.by_id(instance) else { return };
        let name = unikernel.name().clone();
        let Some(watch) = self.watches.get_mut(&name) else { return };
        let supervision = &unikernel.spec().supervision;
        let ready = console_text(supervision.ready.as_ref()).filter(|_| !watch.probing.ready);
        let alive = console_text(supervision.alive.as_ref().map(|alive| &alive.probe));
        let longest = ready.map_or(0, str::len).max(alive.map_or(0, str::len));
        if longest == 0 {
            return;
        }
        let is_ready = ready.is_some_and(|text| watch.probing.hears(data, text));
        let is_alive = alive.is_some_and(|text| watch.probing.hears(data, text));
        watch.probing.heard |= is_alive;
        watch.probing.remember(data, longest);
        if is_ready {
            self.became_ready(&name);
            self.reconcile(&name);
        }
    }

    /// What an instance wrote that was taken over while it ran can no longer be known: it counts as ready, if a line of
    /// its console was to show it.
    pub(crate) fn presume_ready(&mut self, name: &Name) {
        let ready = self.state.get(name).and_then(|unikernel| unikernel.spec().supervision.ready.clone());
        if let Some(Probe::Console(_)) = ready {
            self.became_ready(name);
        }
    }
}
