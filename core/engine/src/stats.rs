//! What unikernels use. The control plane keeps none of it: it asks the shim when an operator asks, a page at a time, and
//! the next page only when the session has taken the last.

use alloc::{boxed::Box, vec::Vec};

use petrel_wire::{
    List, Name, Path,
    limits::STATS_PAGE_MAX,
    operator::{Refusal, Response, Table, Usage},
    shim::{Fault, InstanceId, Op, Reply, Usage as Told},
};

use crate::{
    Engine, SessionId,
    policy::Grant,
    procfs,
    session::Asker,
    shim_client::{Handled, Nonsense, Waiting},
    stream::{Source, Step, Stream},
    unikernel::{Run, Unikernel},
};

/// A stream of statistics.
#[derive(Debug)]
pub(crate) struct Asking {
    grant: Grant,
    /// Only those of this path.
    path: Path,
    /// The last name that the shim was asked about.
    after: Option<Name>,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    /// The next page is to be asked for.
    Idle,
    /// The shim was asked; whether names follow behind this page.
    Asked { more: bool },
    /// The shim has answered.
    Told(Response),
}

impl Engine {
    pub(crate) fn stats(&mut self, asker: Asker, grant: Grant, path: Path) {
        if let Some(refusal) = self.why_no_stats(&grant, &path) {
            return self.refuse(asker, refusal);
        }
        let asking = Asking { grant, path, after: None, phase: Phase::Idle };
        self.open_stream(asker, Source::Stats(Box::new(asking)));
    }

    fn why_no_stats(&self, grant: &Grant, path: &Path) -> Option<Refusal> {
        if !self.shim.is_ready() {
            return Some(Refusal::ShimAway);
        }
        let scope = grant.scope();
        let mut within = self.within(&scope, path, None).map(|(_, unikernel)| runs(unikernel));
        match within.next() {
            // All of nothing is nothing.
            _ if *path == scope => None,
            None => Some(Refusal::NoSuchUnikernel),
            Some(first) => (!first && !within.any(|runs| runs)).then_some(Refusal::NotRunning),
        }
    }

    pub(crate) fn step_stats(&mut self, asker: Asker, asking: &mut Asking) -> Step {
        match core::mem::replace(&mut asking.phase, Phase::Idle) {
            Phase::Told(last @ Response::Stats { more: false, .. }) => Step::End(None, last),
            Phase::Told(page) => Step::Send(page),
            asked @ Phase::Asked { .. } => {
                asking.phase = asked;
                Step::Wait
            }
            Phase::Idle => self.ask_stats(asker, asking),
        }
    }

    fn ask_stats(&mut self, asker: Asker, asking: &mut Asking) -> Step {
        let refused = |refusal| Step::End(None, Response::Refused(refusal));
        if !self.shim.is_ready() {
            return refused(Refusal::ShimAway);
        }
        if !self.shim.has_room(1) {
            return refused(Refusal::Full(Table::ShimRequests));
        }
        let (mut names, mut instances) = self.next_running(asking);
        let more = instances.len() > STATS_PAGE_MAX;
        names.truncate(STATS_PAGE_MAX);
        instances.truncate(STATS_PAGE_MAX);
        let Some(last) = names.pop() else {
            return Step::End(None, Response::Stats { page: List::new(), more: false });
        };
        (asking.after, asking.phase) = (Some(last), Phase::Asked { more });
        let op = Op::Stats(List::try_from(instances).unwrap_or_default());
        self.ask(&asking.grant, op, Waiting::Stats(asker));
        Step::Wait
    }

    /// Those of the next page that run, and one more if there is one.
    fn next_running(&self, asking: &Asking) -> (Vec<Name>, Vec<InstanceId>) {
        let scope = asking.grant.scope();
        let within = self.within(&scope, &asking.path, asking.after.as_ref());
        let running = within.filter(|(_, unikernel)| runs(unikernel));
        running.take(STATS_PAGE_MAX + 1).map(|(name, unikernel)| (name.clone(), unikernel.instance)).unzip()
    }

    /// The unikernels of this path below `scope`, the one that is called as the path first, with names greater than `after`.
    fn within(
        &self,
        scope: &Path,
        path: &Path,
        after: Option<&Name>,
    ) -> impl Iterator<Item = (&Name, &Unikernel)> {
        let own = path.labels().parse::<Name>().ok().filter(|name| scope.is_above(name));
        let own = own.and_then(|name| self.state.get(&name));
        let own = own.filter(|_| after.is_none()).map(Unikernel::name);
        let below = self.state.below(path, after.filter(|after| ***after != *path.labels()));
        own.into_iter().chain(below).filter_map(|name| Some((name, self.state.get(name)?)))
    }

    pub(crate) fn stats_told(&mut self, asker: Asker, result: Result<Reply, Fault>) -> Handled {
        let Ok(Reply::Stats { uptime, page }) = result else {
            return Err(Nonsense("another reply than statistics to the question for them"));
        };
        let page: Vec<_> = page.iter().filter_map(|told| self.usage(&uptime, told)).collect();
        let page = List::try_from(page).unwrap_or_default();
        for stream in self.stats_streams(asker.session) {
            if let (true, Source::Stats(asking)) = (stream.asker == asker, &mut stream.source)
                && let Phase::Asked { more } = asking.phase
            {
                asking.phase = Phase::Told(Response::Stats { page, more });
                break;
            }
        }
        self.pump(asker.session);
        Ok(())
    }

    fn usage(&self, uptime: &[u8], told: &Told) -> Option<Usage> {
        let spec = self.state.by_id(told.instance)?.spec();
        let process = procfs::process(uptime, &told.stat)?;
        let devices = spec.nets.iter().map(|(net, _)| net.device.clone());
        let nets: Vec<_> = devices.zip(told.nets.iter().map(|line| procfs::traffic(line))).collect();
        Some(Usage {
            name: spec.name.clone(),
            run_ms: process.run_ms,
            cpu_ms: process.cpu_ms,
            memory_mib: spec.memory_mib,
            resident_kib: process.resident_kib,
            storage: procfs::storage(&told.io),
            nets: List::try_from(nets).unwrap_or_default(),
        })
    }

    /// The link is gone, and with it the answers that were awaited: these streams go on, to find that out.
    pub(crate) fn stats_lost(&mut self) {
        for session in self.sessions.keys().copied().collect::<Vec<_>>() {
            for stream in self.stats_streams(session) {
                if let Source::Stats(asking) = &mut stream.source
                    && matches!(asking.phase, Phase::Asked { .. })
                {
                    asking.phase = Phase::Idle;
                }
            }
            self.pump(session);
        }
    }

    fn stats_streams(&mut self, session: SessionId) -> impl Iterator<Item = &mut Stream> {
        let streams = self.sessions.get_mut(&session).map(|session| session.streams.iter_mut());
        streams.into_iter().flatten().filter(|stream| matches!(stream.source, Source::Stats(_)))
    }
}

fn runs(unikernel: &Unikernel) -> bool {
    matches!(unikernel.run, Run::Running { .. })
}
