//! Keeps each unikernel at what it is wished to be.
//!
//! Whatever happens (a request, a reply or an event of the shim, a timer, the link's return), what follows from it is
//! decided in one place: [`next_step`] looks at what a unikernel shall be and at what it is, and names the one thing
//! to do next. [`Engine::reconcile`] does it, and its answer leads here again.
//!
//! | room | what it does |
//! |---|---|
//! | `launch` | asks the shim for a monitor, and undoes what was half done |
//! | `ending` | kills, forgets, and takes in that a monitor has ended |
//! | `order` | what operators ask for and wait for |
//! | `probes` | readiness and liveness |
//! | `pace` | how long to wait before the next start |
//! | `reap` | ends what is nobody's |
//! | `view` | what operators are shown |

pub(crate) mod ending;
pub(crate) mod launch;
pub(crate) mod order;
mod pace;
pub(crate) mod probes;
pub(crate) mod reap;
mod view;

use alloc::{collections::BTreeMap, vec::Vec};

use petrel_wire::{
    Name,
    operator::{Refusal, Setback, What, Who, Wish},
    shim::Op,
};

use crate::{
    Engine,
    limits::RETRY_NS,
    policy::upkeep,
    record::Record,
    shim_client::Waiting,
    unikernel::{Run, Unikernel},
};
use order::{Goal, Order};
use probes::Probing;

/// What of each unikernel is known only as long as the control plane lives.
pub(crate) type Watches = BTreeMap<Name, Watch>;

/// What of a unikernel is known only as long as the control plane lives.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// What the shim was asked to do to its monitor, and has not done yet.
    pub asked: Option<Asked>,
    /// The shim has killed its monitor, or may have, for what is perhaps not wanted any more.
    pub killed: bool,
    /// Its monitor is to make way for another one, though it is of the right generation.
    pub replace: bool,
    /// Its liveness probe has failed too often.
    pub unhealthy: bool,
    /// How often in a row it has ended soon after it was started, or could not be started.
    pub quick_ends: u32,
    /// Nothing is done before this moment (monotonic nanoseconds).
    pub not_before_ns: u64,
    /// When its monitor was first known to run (monotonic nanoseconds).
    pub started_ns: u64,
    /// Why it could not be started, or ended, last time.
    pub failure: Option<Refusal>,
    pub probing: Probing,
    /// What operators wait for.
    pub order: Option<Order>,
    /// Its entry among the engine's timers.
    timer_ns: Option<u64>,
}

/// What the shim was asked to do to a monitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// To kill it, after which it has to end by this moment (monotonic nanoseconds).
    Kill { overdue_ns: u64 },
    /// To forget it.
    Forget,
}

/// The next thing to do about a unikernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing: it is as it shall be, or something is awaited.
    Rest,
    /// Nothing before this moment (monotonic nanoseconds).
    WaitUntil(u64),
    /// Nothing before those are ready that it is started after.
    WaitForOthers,
    /// Start a monitor.
    Start,
    /// Kill its monitor.
    Kill,
    /// Have the shim forget its monitor, which has ended.
    Forget,
    /// Forget the unikernel, of which the shim has nothing.
    Remove,
}

/// Decides. `others_ready` is whether all are ready that it is started after.
pub(crate) fn next_step(unikernel: &Unikernel, watch: &Watch, others_ready: bool, now_ns: u64) -> Step {
    if watch.asked.is_some() || unikernel.run == Run::Starting {
        return Step::Rest;
    }
    let make_way = watch.replace || watch.unhealthy || unikernel.is_stale();
    let step = match (unikernel.wish, unikernel.run) {
        (Wish::Destroyed, Run::Absent) => Step::Remove,
        (Wish::Destroyed, Run::Ended { .. }) => Step::Forget,
        (Wish::Stopped, Run::Absent | Run::Ended { .. }) => Step::Rest,
        (Wish::Destroyed | Wish::Stopped, _) => Step::Kill,
        (Wish::Running, Run::Running { .. }) if make_way => Step::Kill,
        (Wish::Running, Run::Running { .. } | Run::Starting) => Step::Rest,
        (Wish::Running, _) if !unikernel.starts_again() => Step::Rest,
        (Wish::Running, _) if !others_ready => Step::WaitForOthers,
        (Wish::Running, _) => Step::Start,
    };
    let at_once = matches!(step, Step::Rest | Step::WaitForOthers);
    if !at_once && now_ns < watch.not_before_ns { Step::WaitUntil(watch.not_before_ns) } else { step }
}

impl Engine {
    /// Does what is to be done next about a unikernel.
    pub(crate) fn reconcile(&mut self, name: &Name) {
        self.probe_if_due(name);
        if self.shim.is_ready() && !self.withholding {
            match self.next_step(name) {
                Step::Rest => self.accept_what_runs(name),
                Step::WaitUntil(_) => {}
                Step::WaitForOthers => self.wait_for_others(name),
                Step::Start => self.launch(name, None),
                Step::Kill => self.kill(name),
                Step::Forget => self.forget(name),
                Step::Remove => self.remove(name),
            }
        }
        self.set_timer(name);
    }

    /// Goes on when others are ready. Nobody is kept waiting for others than those that were asked for.
    fn wait_for_others(&mut self, name: &Name) {
        self.waiting.insert(name.clone());
        match self.goal(name) {
            Some(Goal::Run | Goal::Try(_)) => {
                self.drop_trial(name);
                self.order_done(name);
            }
            Some(Goal::Return(_)) => self.order_returned(name),
            Some(Goal::Stop | Goal::Destroy) | None => {}
        }
    }

    pub(crate) fn reconcile_all(&mut self) {
        let names: Vec<Name> = self.state.names().cloned().collect();
        for name in names {
            self.reconcile(&name);
        }
    }

    pub(crate) fn next_step(&self, name: &Name) -> Step {
        let (Some(unikernel), Some(watch)) = (self.state.get(name), self.watches.get(name)) else {
            return Step::Rest;
        };
        let others_ready = self.waits_for(unikernel).next().is_none();
        next_step(unikernel, watch, others_ready, self.now.monotonic_ns)
    }

    /// Those that a unikernel is started after and that are not ready.
    pub(crate) fn waits_for<'a>(&'a self, unikernel: &'a Unikernel) -> impl Iterator<Item = &'a Name> {
        unikernel.spec().supervision.after.iter().filter(|name| !self.is_ready(name))
    }

    /// Whether a unikernel is ready or, if it has no readiness probe, runs.
    pub(crate) fn is_ready(&self, name: &Name) -> bool {
        let (Some(unikernel), Some(watch)) = (self.state.get(name), self.watches.get(name)) else {
            return false;
        };
        let needs_none = unikernel.spec().supervision.ready.is_none();
        matches!(unikernel.run, Run::Running { .. })
            && !unikernel.is_stale()
            && (needs_none || watch.probing.ready)
    }

    /// One has become ready: those that waited for it may go on.
    pub(crate) fn wake_waiting(&mut self) {
        for name in core::mem::take(&mut self.waiting) {
            self.reconcile(&name);
        }
    }

    pub(crate) fn watch(&mut self, name: &Name) -> &mut Watch {
        self.watches.entry(name.clone()).or_default()
    }

    /// Asks the shim in the name of who ordered it, or of the control plane's own accord.
    pub(crate) fn ask_about(&mut self, name: &Name, op: Op, waiting: Waiting) {
        let own = upkeep();
        let order = self.watches.get(name).and_then(|watch| watch.order.as_ref());
        let grant = order.map_or(&own, |order| &order.grant);
        self.shim.ask(self.now, grant, op, waiting, &mut self.outputs);
    }

    /// Who ordered what is done about a unikernel now.
    pub(crate) fn who_orders(&self, name: &Name) -> Who {
        let order = self.watches.get(name).and_then(|watch| watch.order.as_ref());
        order.map_or(Who::ControlPlane, |order| order.grant.who())
    }

    /// The new generation has done well.
    pub(crate) fn accept(&mut self, name: &Name) {
        self.decide(Record::Accepted(name.clone()));
        let number = self.state.get(name).map_or(0, |unikernel| unikernel.current.number);
        self.happened(Who::ControlPlane, What::Updated(number), Some(name.clone()));
        self.order_done(name);
    }

    /// A trial without a window is over when a monitor of its generation runs, also one that did before.
    fn accept_what_runs(&mut self, name: &Name) {
        let runs = self.state.get(name).is_some_and(|unikernel| {
            let windowless = unikernel.trial.is_some_and(|trial| trial.window_s.is_none());
            windowless && matches!(unikernel.run, Run::Running { .. }) && !unikernel.is_stale()
        });
        if runs && self.watches.get(name).is_some_and(|watch| watch.asked.is_none()) {
            self.accept(name);
        }
    }

    /// Goes back to the generation before the trial. Who waits is told when that one runs.
    pub(crate) fn set_back(&mut self, name: &Name, refusal: Refusal, faulty: bool) {
        self.decide(Record::RolledBack { name: name.clone(), faulty });
        let watch = self.watch(name);
        watch.not_before_ns = 0;
        watch.quick_ends = 0;
        self.order_returns(name, refusal);
    }

    /// Gives up the generation on trial for what it did.
    pub(crate) fn fail_trial(&mut self, name: &Name, why: Setback) {
        let Some(unikernel) = self.state.get(name) else { return };
        let Some(trial) = unikernel.trial else { return };
        let failed = unikernel.current.number;
        let what = What::RolledBack(failed, trial.from, why);
        self.happened(Who::ControlPlane, what, Some(name.clone()));
        self.set_back(name, Refusal::RolledBack { failed, generation: trial.from, why }, true);
    }

    // Timers.

    /// When the first of the timers is due, in monotonic nanoseconds.
    pub(crate) fn watch_deadline(&self) -> Option<u64> {
        self.timers.first().map(|(at_ns, _)| *at_ns)
    }

    /// Does what is due by now about any unikernel.
    pub(crate) fn watches_due(&mut self) {
        let now_ns = self.now.monotonic_ns;
        // Each once, even if it is due again at once.
        let due = self.timers.iter().take_while(|(at_ns, _)| *at_ns <= now_ns);
        let due: Vec<Name> = due.map(|(_, name)| name.clone()).collect();
        for name in due {
            self.tick(&name);
        }
    }

    /// Does what is due by now about one unikernel.
    fn tick(&mut self, name: &Name) {
        let now_ns = self.now.monotonic_ns;
        self.overdue(name);
        if self.trial_end_ns(name).is_some_and(|at_ns| at_ns <= now_ns) {
            if self.is_ready(name) {
                self.accept(name);
            } else {
                self.fail_trial(name, Setback::NotReady);
            }
        }
        self.reconcile(name);
    }

    /// When the trial of a generation that runs is over.
    fn trial_end_ns(&self, name: &Name) -> Option<u64> {
        let (unikernel, watch) = (self.state.get(name)?, self.watches.get(name)?);
        let window_ns = u64::from(unikernel.trial?.window_s?) * 1_000_000_000;
        let runs = matches!(unikernel.run, Run::Running { .. }) && !unikernel.is_stale();
        // What could not be kept is tried again after a while.
        runs.then_some(watch.started_ns.saturating_add(window_ns).max(watch.not_before_ns))
    }

    /// Sets the timer of a unikernel to the next moment at which something is due.
    pub(crate) fn set_timer(&mut self, name: &Name) {
        let at_ns = self.next_moment(name);
        let Some(watch) = self.watches.get_mut(name) else { return };
        if watch.timer_ns == at_ns {
            return;
        }
        if let Some(before_ns) = core::mem::replace(&mut watch.timer_ns, at_ns) {
            self.timers.remove(&(before_ns, name.clone()));
        }
        if let Some(at_ns) = at_ns {
            self.timers.insert((at_ns, name.clone()));
        }
    }

    fn next_moment(&self, name: &Name) -> Option<u64> {
        let watch = self.watches.get(name)?;
        let overdue_ns = match watch.asked {
            Some(Asked::Kill { overdue_ns }) => Some(overdue_ns),
            Some(Asked::Forget) | None => None,
        };
        let wait_ns = match self.next_step(name) {
            // Without the link nothing can be done, and its return is an event of its own.
            Step::WaitUntil(at_ns) if self.shim.is_ready() => Some(at_ns),
            _ => None,
        };
        let moments = [overdue_ns, wait_ns, self.trial_end_ns(name), self.probe_due_ns(name)];
        moments.into_iter().flatten().min()
    }

    /// Makes a change that no operator asks for now. Where nothing can be kept, unikernels are still kept running.
    pub(crate) fn decide(&mut self, record: Record) {
        if self.journal.read_only().is_some() { self.note(record) } else { self.apply(record) }
    }

    /// A change of a unikernel could not be kept, and was taken back: what led to it comes again after a while.
    pub(crate) fn taken_back(&mut self, name: &Name) {
        let not_before_ns = self.now.monotonic_ns.saturating_add(RETRY_NS);
        if let Some(watch) = self.watches.get_mut(name) {
            watch.not_before_ns = watch.not_before_ns.max(not_before_ns);
            self.set_timer(name);
        }
    }

    /// Another state has taken the place of the one that was watched.
    pub(crate) fn watch_anew(&mut self) {
        self.timers.clear();
        self.waiting.clear();
        self.watches = self.state.names().map(|name| (name.clone(), Watch::default())).collect();
    }

    /// A unikernel is no more.
    pub(crate) fn unwatch(&mut self, name: &Name) -> Option<Watch> {
        self.waiting.remove(name);
        let watch = self.watches.remove(name)?;
        if let Some(at_ns) = watch.timer_ns {
            self.timers.remove(&(at_ns, name.clone()));
        }
        Some(watch)
    }
}
