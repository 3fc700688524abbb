//! What operators ask for about a unikernel that there is, and what they wait for.
//!
//! There is one order at a time. A later one takes the place of an earlier one, whose askers are told so; so whatever
//! a unikernel is at, it can be stopped and destroyed.

use alloc::{boxed::Box, vec::Vec};

use petrel_wire::{
    Name,
    operator::{Refusal, Response, Unikernel as Brief, What, Wish},
};

use crate::{
    Engine,
    policy::Grant,
    record::{Generation, Record, Spec, Trial},
    session::Asker,
    unikernel::Run,
};

/// How a request is answered that did well.
pub(crate) type Answer = fn(Box<Brief>) -> Response;

/// What operators wait for.
#[derive(Debug)]
pub(crate) struct Order {
    pub goal: Goal,
    pub askers: Vec<Asker>,
    pub grant: Grant,
    answer: Answer,
    /// What was wished before, and is again if it cannot be done.
    before: Wish,
}

/// How another generation takes the place of the current one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner {
    pub answer: Answer,
    /// How long it has to show that it does well.
    pub window_s: Option<u32>,
    /// Whether a unikernel that is stopped is started with it.
    pub starts: bool,
}

/// When an order is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Goal {
    /// A monitor has been started.
    Run,
    /// There is no monitor any more.
    Stop,
    /// There is nothing any more.
    Destroy,
    /// This generation, the new one, does well.
    Try(u32),
    /// The earlier generation runs again: then it is refused, for this reason.
    Return(Refusal),
}

/// Who asks, by what right.
#[derive(Debug)]
pub(crate) struct Who {
    pub asker: Asker,
    pub grant: Grant,
}

impl Engine {
    pub(crate) fn start(&mut self, who: Who, name: &Name) {
        let Some(who) = self.may_be_changed(who, name) else { return };
        let Some(unikernel) = self.state.get(name) else { return };
        let killing = self.watches.get(name).is_some_and(|watch| watch.asked.is_some());
        let runs = matches!(unikernel.run, Run::Running { .. }) && !killing;
        let wanted = unikernel.wish == Wish::Running;
        match self.goal(name) {
            Some(Goal::Run) if wanted => return self.join(who, name),
            Some(Goal::Try(_) | Goal::Return(_)) => {
                return self.answer_brief(who.asker, name, Response::Started);
            }
            _ if wanted && runs => return self.answer_brief(who.asker, name, Response::Started),
            _ => {}
        }
        self.run_anew(who, name, killing);
    }

    /// Ends its monitor, if there is one, and starts another.
    pub(crate) fn restart(&mut self, who: Who, name: &Name) {
        let Some(who) = self.may_be_changed(who, name) else { return };
        let Some(unikernel) = self.state.get(name) else { return };
        let replace = unikernel.is_up();
        self.run_anew(who, name, replace);
    }

    fn run_anew(&mut self, who: Who, name: &Name, replace: bool) {
        let Some(unikernel) = self.state.get(name) else { return };
        if let Err(refusal) = self.check_start(unikernel.spec()) {
            return self.refuse(who.asker, refusal);
        }
        self.happened(who.grant.who(), What::Starting, Some(name.clone()));
        if !self.place(who, name, Goal::Run, Response::Started) {
            return;
        }
        self.drop_trial(name);
        self.start_over(name);
        self.watch(name).replace = replace;
        self.wish(name, Wish::Running);
        self.clear_way(name);
        self.reconcile(name);
        if self.runs_on(name) {
            self.order_done(name);
        }
    }

    /// Whether it runs as it shall: its monitor was to be ended perhaps, but has not been asked to.
    fn runs_on(&self, name: &Name) -> bool {
        let (Some(unikernel), Some(watch)) = (self.state.get(name), self.watches.get(name)) else {
            return false;
        };
        let makes_way = watch.replace || watch.asked.is_some() || unikernel.is_stale();
        matches!(unikernel.run, Run::Running { .. }) && !makes_way
    }

    pub(crate) fn stop(&mut self, who: Who, name: &Name) {
        let Some(who) = self.may_be_changed(who, name) else { return };
        self.happened(who.grant.who(), What::Stopping, Some(name.clone()));
        if !self.place(who, name, Goal::Stop, Response::Stopped) {
            return;
        }
        self.drop_trial(name);
        self.start_over(name);
        self.wish(name, Wish::Stopped);
        self.reconcile(name);
        if self.state.get(name).is_some_and(|unikernel| !unikernel.is_up()) {
            self.order_done(name);
        }
    }

    pub(crate) fn destroy(&mut self, who: Who, name: &Name) {
        if !self.shim.is_ready() {
            return self.refuse(who.asker, Refusal::ShimAway);
        }
        if self.state.get(name).is_none() {
            return self.refuse(who.asker, Refusal::NoSuchUnikernel);
        }
        if !self.place(who, name, Goal::Destroy, Response::Stopped) {
            return;
        }
        self.happened(self.who_orders(name), What::Destroying, Some(name.clone()));
        self.drop_trial(name);
        self.start_over(name);
        self.wish(name, Wish::Destroyed);
        self.reconcile(name);
    }

    /// Makes `spec` the current generation.
    pub(crate) fn renew(&mut self, who: Who, spec: Spec, manner: Manner) {
        let name = spec.name.clone();
        let Some(who) = self.may_be_changed(who, &name) else { return };
        let Some(unikernel) = self.state.get(&name) else { return };
        let number = unikernel.next_number();
        let from = unikernel.trial.map_or(unikernel.current.number, |trial| trial.from);
        let generation = Generation { number, faulty: false, spec: Box::new(spec) };
        self.happened(who.grant.who(), What::Updating(number), Some(name.clone()));
        let record = |trial| Record::Updated { name: name.clone(), generation, trial };
        self.try_out(who, &name, manner, (number, from), record);
    }

    pub(crate) fn rollback(&mut self, who: Who, name: &Name, number: Option<u32>) {
        let Some(who) = self.may_be_changed(who, name) else { return };
        let Some(unikernel) = self.state.get(name) else { return };
        let current = unikernel.current.number;
        let earlier = unikernel.others.iter().rev();
        let mut earlier = earlier.filter(|other| other.number < current && !other.faulty);
        let latest = earlier.next().map(|generation| generation.number);
        let number = number.or(latest).filter(|number| *number != current);
        let Some(generation) = number.and_then(|number| unikernel.generation(number)) else {
            return self.refuse(who.asker, Refusal::NoSuchGeneration);
        };
        let (number, spec) = (generation.number, generation.spec.clone());
        if let Err(refusal) = self.check_return(&who.grant, &spec) {
            return self.refuse(who.asker, refusal);
        }
        self.happened(who.grant.who(), What::Updating(number), Some(name.clone()));
        let record = |trial| Record::Switched { name: name.clone(), number, trial };
        let manner = Manner { answer: Response::Updated, window_s: None, starts: false };
        self.try_out(who, name, manner, (number, current), record);
    }

    /// Makes the change in `record`, to the generation `number`, and goes back to `from` unless that one does well.
    fn try_out(
        &mut self,
        who: Who,
        name: &Name,
        manner: Manner,
        (number, from): (u32, u32),
        record: impl FnOnce(Option<Trial>) -> Record,
    ) {
        let Manner { answer, window_s, starts } = manner;
        let stopped = self.state.get(name).is_some_and(|unikernel| unikernel.wish == Wish::Stopped);
        if stopped && !starts {
            self.apply(record(None));
            return self.answer_brief(who.asker, name, answer);
        }
        if !self.place(who, name, Goal::Try(number), answer) {
            return;
        }
        self.start_over(name);
        self.apply(record(Some(Trial { from, window_s })));
        self.wish(name, Wish::Running);
        // It may have ended as the very generation that it is again.
        self.clear_way(name);
        self.reconcile(name);
    }

    /// Refuses what cannot be asked of a unikernel now.
    fn may_be_changed(&mut self, who: Who, name: &Name) -> Option<Who> {
        let refusal = match self.state.get(name) {
            _ if !self.shim.is_ready() => Refusal::ShimAway,
            None => Refusal::NoSuchUnikernel,
            Some(unikernel) if unikernel.wish == Wish::Destroyed => Refusal::BeingDestroyed,
            Some(_) => return Some(who),
        };
        self.refuse(who.asker, refusal);
        None
    }

    /// Puts an order in the place of the present one. False if it is the same again: then it is waited for by more.
    fn place(&mut self, who: Who, name: &Name, goal: Goal, answer: Answer) -> bool {
        let starts = matches!(goal, Goal::Run | Goal::Try(_));
        let before = match self.state.get(name) {
            // It is not to be started by a request that is refused.
            Some(unikernel) if starts && unikernel.is_at_rest() => Wish::Stopped,
            Some(unikernel) => unikernel.wish,
            None => Wish::Running,
        };
        if matches!(goal, Goal::Stop | Goal::Destroy) && self.goal(name) == Some(&goal) {
            self.join(who, name);
            return false;
        }
        let Who { asker, grant } = who;
        if let Some(order) = self.take_order(name) {
            let refusal = match order.goal {
                Goal::Return(refusal) => refusal,
                _ => Refusal::Superseded,
            };
            for asker in order.askers {
                self.refuse(asker, refusal.clone());
            }
        }
        self.watch(name).order = Some(Order { goal, askers: alloc::vec![asker], grant, answer, before });
        true
    }

    /// One more waits for the present order.
    fn join(&mut self, who: Who, name: &Name) {
        if let Some(mut order) = self.take_order(name) {
            // Those who are gone do not pile up.
            order.askers.retain(|asker| self.waits(*asker));
            order.askers.push(who.asker);
            self.watch(name).order = Some(order);
        }
    }

    fn wish(&mut self, name: &Name, wish: Wish) {
        if self.state.get(name).is_some_and(|unikernel| unikernel.wish != wish) {
            self.apply(Record::Wished { name: name.clone(), wish });
        }
    }

    /// What went before is no reason any more to wait.
    fn start_over(&mut self, name: &Name) {
        let watch = self.watch(name);
        watch.not_before_ns = 0;
        watch.quick_ends = 0;
        watch.failure = None;
        watch.replace = false;
    }

    /// Whoever asks for something else about a generation on trial has accepted it.
    pub(super) fn drop_trial(&mut self, name: &Name) {
        if self.state.get(name).is_some_and(|unikernel| unikernel.trial.is_some()) {
            self.apply(Record::Accepted(name.clone()));
        }
    }

    pub(crate) fn goal(&self, name: &Name) -> Option<&Goal> {
        Some(&self.watches.get(name)?.order.as_ref()?.goal)
    }

    fn answer_brief(&mut self, asker: Asker, name: &Name, answer: Answer) {
        if let Some(brief) = self.brief(name) {
            self.answer(asker, answer(Box::new(brief)));
        }
    }

    pub(crate) fn take_order(&mut self, name: &Name) -> Option<Order> {
        self.watches.get_mut(name)?.order.take()
    }

    /// What was ordered is done.
    pub(crate) fn order_done(&mut self, name: &Name) {
        let Some(order) = self.take_order(name) else { return };
        if order.goal == Goal::Stop {
            self.happened(order.grant.who(), What::Stopped, Some(name.clone()));
        }
        for asker in order.askers {
            self.answer_brief(asker, name, order.answer);
        }
    }

    /// The earlier generation is back, as far as it could be brought back.
    pub(crate) fn order_returned(&mut self, name: &Name) {
        let Some(order) = self.take_order(name) else { return };
        if let Goal::Return(refusal) = order.goal {
            for asker in order.askers {
                self.refuse(asker, refusal.clone());
            }
        }
    }

    /// What was wished could not be kept: an order that relied on it comes to nothing.
    pub(crate) fn order_taken_back(&mut self, name: &Name, refusal: Refusal) {
        let Some(goal) = self.goal(name) else { return };
        let holds = self.state.get(name).is_some_and(|unikernel| match goal {
            Goal::Run => unikernel.wish == Wish::Running,
            Goal::Stop => unikernel.wish == Wish::Stopped,
            Goal::Destroy => unikernel.wish == Wish::Destroyed,
            // There may be an earlier one that was on trial.
            Goal::Try(number) => unikernel.trial.is_some() && unikernel.current.number == *number,
            // It is what it was, and goes on from there.
            Goal::Return(_) => false,
        });
        if !holds && let Some(order) = self.take_order(name) {
            let refusal = if let Goal::Return(refusal) = order.goal { refusal } else { refusal };
            for asker in order.askers {
                self.refuse(asker, refusal.clone());
            }
        }
    }

    /// What looked like one reason for a failure, and is not told yet, is another.
    pub(crate) fn reasons_renamed(&mut self, looked_like: &Refusal, is: &Refusal) {
        for watch in self.watches.values_mut() {
            let returning = watch.order.as_mut().and_then(|order| match &mut order.goal {
                Goal::Return(refusal) => Some(refusal),
                _ => None,
            });
            for refusal in returning.into_iter().chain(&mut watch.failure) {
                if refusal == looked_like {
                    *refusal = is.clone();
                }
            }
        }
    }

    /// What was ordered could not be done: it is as it was before. But what is to be destroyed stays so, and is destroyed
    /// as soon as that can be done.
    pub(crate) fn order_undone(&mut self, name: &Name, refusal: Refusal) {
        self.watch(name).replace = false;
        let Some(mut order) = self.take_order(name) else { return };
        let refusal = match order.goal {
            Goal::Return(refusal) => refusal,
            Goal::Try(_) => {
                self.apply(Record::RolledBack { name: name.clone(), faulty: false });
                refusal
            }
            Goal::Destroy => {
                order.before = Wish::Destroyed;
                Refusal::BeingDestroyed
            }
            Goal::Run | Goal::Stop => refusal,
        };
        self.wish(name, order.before);
        for asker in order.askers {
            self.refuse(asker, refusal.clone());
        }
    }

    /// The generation before the trial is the current one again. If it was stopped then, there is nothing to wait for.
    pub(crate) fn order_returns(&mut self, name: &Name, refusal: Refusal) {
        let Some(order) = &mut self.watch(name).order else { return };
        order.goal = Goal::Return(refusal);
        if order.before == Wish::Stopped {
            self.wish(name, Wish::Stopped);
            self.order_returned(name);
        }
    }

    /// The link is gone, and with it the answers to what the shim was asked. A trial that is under way goes on.
    pub(crate) fn orders_lost(&mut self) {
        let ordered = self.watches.iter().filter(|(_, watch)| watch.order.is_some());
        let names: Vec<Name> = ordered.map(|(name, _)| name.clone()).collect();
        for name in names {
            let runs = |run| matches!(run, Run::Running { .. });
            let tried = self.state.get(&name).is_some_and(|unikernel| {
                unikernel.trial.is_some() && runs(unikernel.run) && !unikernel.is_stale()
            });
            if !tried || !matches!(self.goal(&name), Some(Goal::Try(_))) {
                self.order_undone(&name, Refusal::ShimAway);
            }
        }
    }
}
