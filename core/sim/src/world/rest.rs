//! Faults stop. Within a bounded time everything has come to rest: each request has its answer, nothing is left
//! that belongs to nobody, and what is shown is what there is.

use std::collections::{BTreeMap, BTreeSet};

use petrel_engine::{Engine, Input, Peer, SessionId};
use petrel_wire::{
    ExitStatus, Path,
    limits::{OPERATOR_VERSION, SESSIONS_MAX},
    operator::{
        ClientMessage, Hello, Journal, PolicyEntry, Request, Response, ServerMessage, State, UnikernelInfo,
        Wish,
    },
};

use super::{World, encoded, plane::known_to};
use crate::{
    asked::Asked,
    grants,
    host::name_of,
    model::{Checked, Violation, ensure, shows_truth},
};

/// The longest that it may take, in nanoseconds.
const REST_NS_MAX: u64 = 600_000_000_000;
/// The rounds that it may take: each lets everything get on that can.
const ROUNDS_MAX: u64 = 20_000;
/// Whoever looks at what is shown.
const AUDITOR: SessionId = SessionId(1_000_000);

impl World {
    /// Lets everything come to rest, and checks what is left.
    pub fn rest(&mut self) -> Checked {
        self.trace.note(|| "rest: faults stop".into());
        self.count("rest");
        self.plane.outputs_left = None;
        self.host.heal();
        self.link.unstall();
        self.mend_disk();
        self.plane.back_ns = self.plane.back_ns.min(self.clock.ns());
        self.operators.iter_mut().for_each(|operator| operator.stalled = false);
        let since_ns = self.clock.ns();
        let mut relinked = false;
        for round in 0.. {
            let moved = self.round()?;
            if !moved && self.is_quiet() && self.is_settled() {
                match *self.under_way() {
                    [] => break,
                    // What the shim could not end is ended when the link opens anew.
                    ["doomed instances"] if !relinked => {
                        relinked = true;
                        self.link.drop_shim_end(&mut self.random);
                        self.host.link_ended();
                        self.model.console_epoch += 1;
                        continue;
                    }
                    _ => {}
                }
            }
            if !moved && let Some(due_ns) = self.next_due_ns() {
                self.clock.pass(due_ns.saturating_sub(self.clock.ns()));
            }
            let over = self.clock.ns() - since_ns > REST_NS_MAX || round > ROUNDS_MAX;
            ensure(!over, || format!("it does not come to rest: {}", self.dirt()))?;
        }
        self.check_rest()
    }

    /// The disk works again; a control plane that has given up on it is started again, as an operator would.
    fn mend_disk(&mut self) {
        let Some(disk) = &mut self.disk else { return };
        disk.failing = false;
        if self.plane.engine.as_ref().is_some_and(|engine| engine.read_only().is_some()) {
            self.plane_crashes();
            self.plane.back_ns = self.clock.ns();
        }
    }

    /// Everything gets on that can. Returns whether anything did.
    fn round(&mut self) -> Result<bool, Violation> {
        self.keep_up()?;
        let mut moved = !self.link.is_quiet() || self.host.dying().next().is_some();
        self.shim_turn()?;
        while self.link.plane_has && self.link.queued_for_plane() > 0 {
            moved = true;
            self.engine_hears()?;
        }
        while !self.plane.probes.is_empty() {
            self.probe_ends(true)?;
        }
        for instance in self.host.dying().collect::<Vec<_>>() {
            self.host.end(instance, ExitStatus::Signal(9));
        }
        for index in 0..self.operators.len() {
            moved |= self.operator_round(index)?;
        }
        Ok(moved || self.host.is_greeted() && self.host.has_news())
    }

    fn operator_round(&mut self, index: usize) -> Result<bool, Violation> {
        let queued = self.operators[index].queued > 0;
        if queued {
            self.drain(index, 0)?;
        }
        let mut asked = self.operators[index].asked.iter();
        let Some((&id, asked)) = asked.find(|(_, asked)| asked.can_send() || asked.is_stuck()) else {
            return Ok(queued);
        };
        let stuck = asked.is_stuck();
        if stuck {
            self.cancel_request(index, id)?;
        } else if self.may_be_read(index) {
            self.send_piece(index, id, 32 * 1024)?;
        }
        Ok(true)
    }

    fn is_quiet(&self) -> bool {
        let answered = self.operators.iter().all(|operator| {
            let goes_on = |asked: &Asked| match asked {
                Asked::Console(reading) => reading.follow,
                Asked::Events { follow, .. } => *follow,
                _ => false,
            };
            operator.asked.values().all(goes_on)
        });
        let up = self.plane.engine.is_some() && self.host.shim.is_some();
        up && answered && self.link.plane_has && self.link.shim_has && self.link.is_quiet()
    }

    /// Whether no unikernel is about to change.
    fn is_settled(&self) -> bool {
        let settled = |(state, wish)| {
            !matches!(state, State::Starting | State::Stopping | State::BackOff) && wish != Wish::Destroyed
        };
        self.plane.engine.iter().flat_map(Engine::states).all(settled)
    }

    /// The tables of the engine that hold something which passes.
    fn under_way(&self) -> Vec<&'static str> {
        let tables = self.plane.engine.iter().flat_map(Engine::tables);
        tables.filter(|table| table.passing && table.entries > 0).map(|table| table.name).collect()
    }

    fn dirt(&self) -> String {
        let states: Vec<_> = self.plane.engine.iter().flat_map(Engine::states).collect();
        let asked = self.operators.iter().enumerate();
        let asked: Vec<_> =
            asked.flat_map(|(i, operator)| operator.asked.iter().map(move |asked| (i, asked))).collect();
        format!("under way: {:?}; states: {states:?}; unanswered: {asked:?}", self.under_way())
    }

    fn check_rest(&mut self) -> Checked {
        self.check_ledger()?;
        let shown = self.shown()?;
        let host = &self.host;
        let entries = host.entries();
        let names: BTreeSet<_> = shown.iter().map(|info| info.unikernel.name.clone()).collect();
        for info in &shown {
            shows_truth(info, entries.get(&info.unikernel.name) == Some(&true), host)?;
        }
        for name in entries.keys() {
            ensure(names.contains(name), || format!("{name} is on the host, and nobody is shown it"))?;
        }
        for (name, fate) in &self.model.fates {
            let there = names.contains(name);
            ensure(!fate.must_be() || there, || format!("{name} was acknowledged, and is lost"))?;
            ensure(!fate.going || !there, || format!("{name} was to be destroyed, and is there"))?;
            ensure(fate.may_be() || !there, || format!("{name} was destroyed or refused, and is there"))?;
        }
        for digest in &self.model.images {
            ensure(host.images.contains_key(digest), || format!("image {digest} was stored, and is lost"))?;
        }
        self.model.volumes_settled(&self.host)?;
        self.model.settled(&names, &self.host);
        for info in &shown {
            self.model.learn(info)?;
        }
        self.check_policies(&shown)?;
        let Response::Host(facts) = self.audit_ask(Request::Host)? else {
            return Err(Violation("at rest, the host's facts are refused".into()));
        };
        let kept = match facts.journal {
            Journal::InMemory => self.disk.is_none(),
            Journal::Kept { .. } => self.disk.is_some(),
            Journal::ReadOnly(_) => false,
        };
        ensure(kept, || format!("nothing can be kept: {:?}", facts.journal))?;
        let known = self.plane.engine.as_ref().map(known_to).unwrap_or_default();
        let remembered = self.remembered().unwrap_or(known.clone());
        ensure(remembered == known, || format!("{known:?} is known, and of record is {remembered:?}"))?;
        // What runs, and what would if it could, holds memory.
        let holds = |info: &&UnikernelInfo| !matches!(info.unikernel.state, State::Ended(_) | State::Stopped);
        let held_mib: u64 = shown.iter().filter(holds).map(|info| u64::from(info.unikernel.memory_mib)).sum();
        ensure(facts.memory_used_mib == held_mib, || {
            format!("{} MiB are said to be given, and {held_mib} are", facts.memory_used_mib)
        })?;
        self.input(Input::SessionClosed { session: AUDITOR })
    }

    /// What is set for paths is listed, and what is counted below each is what there is.
    fn check_policies(&mut self, shown: &[UnikernelInfo]) -> Checked {
        self.audit_send(Request::PolicyList(Path::ROOT))?;
        let mut entries = Vec::new();
        for response in std::mem::take(&mut self.plane.auditor) {
            let Response::Policies { page, .. } = response else {
                return Err(Violation(format!("at rest, the policies are {response:?}")));
            };
            entries.extend(page.into_vec());
        }
        self.model.policies.learn(&entries)?;
        for PolicyEntry { path, held, .. } in entries {
            let below = || shown.iter().filter(|info| path.holds(&info.unikernel.name));
            let mib: u64 = below().map(|info| u64::from(info.unikernel.memory_mib)).sum();
            // One on trial has the room of the one that may come back.
            let tried = below().any(|info| info.watching.trial_from.is_some());
            let right = held.unikernels as usize == below().count() && (tried || held.memory_mib == mib);
            ensure(right, || format!("{held:?} is counted below {path}, and there are {mib} MiB"))?;
        }
        Ok(())
    }

    /// Nothing is on the host that belongs to nobody.
    fn check_ledger(&self) -> Checked {
        let Some(shim) = &self.host.shim else { return Ok(()) };
        let ledger = &shim.ledger;
        ensure(ledger.uploads.is_empty(), || "an upload is left".into())?;
        let free = ledger.taps.iter().filter(|(_, taker)| taker.is_none());
        ensure(free.clone().count() == 0, || {
            format!("taps are left: {:?}", free.map(|(id, _)| id).collect::<Vec<_>>())
        })?;
        let mut seen = BTreeMap::new();
        for (instance, monitor) in &ledger.monitors {
            let Some(name) = name_of(&monitor.listed.tag) else {
                let running = monitor.listed.exited.is_none();
                ensure(running || self.host.ends.contains_key(instance), || {
                    format!("{instance:?} is not ours, and was ended")
                })?;
                continue;
            };
            let earlier: Option<_> = seen.insert(name.clone(), instance);
            ensure(earlier.is_none(), || format!("{name} has two monitors: {earlier:?}, {instance:?}"))?;
        }
        Ok(())
    }

    /// All that is shown, as an operator sees it who has nothing else to do.
    fn shown(&mut self) -> Result<Vec<UnikernelInfo>, Violation> {
        if self.operators.iter().filter(|operator| operator.open).count() >= SESSIONS_MAX
            && let Some(index) = self.operators.iter().position(|operator| operator.open)
        {
            self.end_session(index)?;
        }
        let peer = Peer { name: "auditor".into(), chain: grants::all()[0].chain.clone() };
        self.input(Input::SessionOpened { session: AUDITOR, peer })?;
        self.audit_ask(Request::Hello(Hello { oldest: OPERATOR_VERSION, newest: OPERATOR_VERSION }))?;
        let mut names = Vec::new();
        self.audit_send(Request::List)?;
        for response in std::mem::take(&mut self.plane.auditor) {
            match response {
                Response::Listed { page, .. } => {
                    names.extend(page.into_vec().into_iter().map(|unikernel| unikernel.name));
                }
                other => return Err(Violation(format!("at rest, the listing is {other:?}"))),
            }
        }
        let mut all = Vec::new();
        for name in names {
            match self.audit_ask(Request::Info(name.clone()))? {
                Response::Info(info) => all.push(*info),
                other => return Err(Violation(format!("{name} is listed, and its info is {other:?}"))),
            }
        }
        Ok(all)
    }

    fn audit_ask(&mut self, request: Request) -> Result<Response, Violation> {
        self.audit_send(request)?;
        std::mem::take(&mut self.plane.auditor).pop().ok_or(Violation("the auditor is not answered".into()))
    }

    fn audit_send(&mut self, request: Request) -> Checked {
        let payload = encoded(&ClientMessage { id: 1, request });
        self.input(Input::SessionFrame { session: AUDITOR, payload: &payload })?;
        self.input(Input::SessionDrained { session: AUDITOR, queued: 0 })
    }

    pub(super) fn auditor_hears(&mut self, message: &ServerMessage) -> Checked {
        self.trace.note(|| format!("auditor ← {message:?}"));
        self.plane.auditor.push(message.response.clone());
        Ok(())
    }
}
