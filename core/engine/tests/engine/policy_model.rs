//! Policies against a model that is slow and obvious: it keeps a list of what there is, and adds everything up anew
//! for each question.

use std::collections::BTreeMap;

use petrel_engine::SessionId;
use petrel_wire::limits::GENERATIONS_MAX;
use petrel_wire::operator::{Change, Create, Held, Policy, Refusal, Request, Resource, Response};
use petrel_wire::{BridgeName, Digest, Path};

use crate::{
    chain::{self, Says, says},
    image::{self, NET, Recipe},
    policy::{ample, path, policies, set},
    volumes,
    walk::Random,
    world::{World, create, destroy, name, networked, plain},
};

const LABELS: [&str; 3] = ["a", "b", "c"];
const HOST_CPUS: [u16; 2] = [0, 1];

struct Unikernel {
    name: String,
    /// Its generations with their numbers, the oldest first, each with the CPUs that it was given.
    generations: Vec<(u32, Create)>,
    /// Which of them is the current one.
    current: usize,
}

impl Unikernel {
    fn current(&self) -> &Create {
        &self.generations[self.current].1
    }

    fn memory_mib(&self) -> u64 {
        self.current().memory_mib.into()
    }

    fn updated(&mut self, to: Create) {
        let newest = self.generations.last().unwrap().0;
        let before = self.generations[self.current].0;
        self.generations.push((newest + 1, to));
        if self.generations.len() > GENERATIONS_MAX {
            let spare = self.generations.iter().position(|(number, _)| *number != before).unwrap();
            self.generations.remove(spare);
        }
        self.current = self.generations.len() - 1;
    }
}

struct Client {
    session: SessionId,
    scope: String,
    /// What its chain says, by absolute path.
    certified: BTreeMap<String, Policy>,
}

struct Model {
    world: World,
    random: Random,
    images: [Digest; 2],
    there: Vec<Unikernel>,
    set: BTreeMap<String, Policy>,
    clients: Vec<Client>,
    next_id: u32,
    /// How often a create went well, and how often each kind of refusal was met.
    met: BTreeMap<&'static str, usize>,
}

/// `path` in front of `rest`.
fn join(path: &str, rest: &str) -> String {
    if path.is_empty() || rest.is_empty() { format!("{path}{rest}") } else { format!("{path}:{rest}") }
}

/// Every path that `name` lies below, the slow way.
fn ancestors(name: &str) -> Vec<String> {
    let labels: Vec<&str> = name.split(':').collect();
    (0..labels.len()).map(|depth| labels[..depth].join(":")).collect()
}

impl Model {
    fn new(seed: u64) -> Self {
        let mut world = World::with_endless_memory();
        let images = [&[][..], &[("net0", NET)]]
            .map(|devices| world.host.store(image::build(&Recipe { devices, ..Recipe::default() })));
        let session = world.client();
        // Volumes count too: there are none.
        for volume in ["data", "more"] {
            world.ask(session, 9000, volumes::remove(volume));
        }
        let root = Client { session, scope: String::new(), certified: BTreeMap::new() };
        let mut model = Self {
            world,
            random: Random::new(seed),
            images,
            there: Vec::new(),
            set: BTreeMap::new(),
            clients: vec![root],
            next_id: 0,
            met: BTreeMap::new(),
        };
        for _ in 0..8 {
            model.new_client();
        }
        model
    }

    fn labels(&mut self, most: usize) -> Vec<&'static str> {
        (0..self.random.below(most + 1)).map(|_| self.random.of(&LABELS)).collect()
    }

    fn new_client(&mut self) {
        let labels = self.labels(3);
        let mut says_all = Vec::new();
        let mut certified = BTreeMap::new();
        for (depth, label) in labels.iter().enumerate() {
            let policy = (self.random.below(3) > 0).then(|| self.full_policy());
            if let Some(policy) = &policy {
                certified.insert(labels[..=depth].join(":"), policy.clone());
            }
            says_all.push(Says { policy, ..says(label) });
        }
        says_all.push(says("olga"));
        let session = self.world.client_as(&chain::chain(&says_all));
        self.clients.push(Client { session, scope: labels.join(":"), certified });
    }

    /// As a certificate has it, with every limit.
    fn full_policy(&mut self) -> Policy {
        Policy {
            unikernels: Some(self.random.below(10) as u32),
            memory_mib: Some(self.random.below(120) as u64),
            cpus: Some(
                self.random.of(&[vec![0, 1], vec![0, 1, 7], vec![1], vec![0], vec![7]]).try_into().unwrap(),
            ),
            bridges: if self.random.below(4) == 0 { Some(Default::default()) } else { ample().bridges },
            ..ample()
        }
    }

    /// As an operator sets it, with any of them.
    fn some_policy(&mut self) -> Policy {
        let mut policy = self.full_policy();
        for limit in 0..4 {
            match (self.random.below(2), limit) {
                (0, 0) => policy.unikernels = None,
                (0, 1) => policy.memory_mib = None,
                (0, 2) => policy.cpus = None,
                (0, _) => policy.bridges = None,
                _ => {}
            }
        }
        policy
    }

    fn id(&mut self) -> u32 {
        self.next_id += 1;
        self.next_id
    }

    fn held_below(&self, path: &str) -> Held {
        let below = self.there.iter().filter(|one| ancestors(&one.name).iter().any(|above| above == path));
        below.fold(Held::default(), |sum, one| Held {
            unikernels: sum.unikernels + 1,
            memory_mib: sum.memory_mib + one.memory_mib(),
            volume_mib: 0,
        })
    }

    /// All policies that hold for `name` when this client asks.
    fn policies_for(&self, client: usize, name: &str) -> Vec<(String, Policy)> {
        let certified = &self.clients[client].certified;
        let at = |path: String| {
            let both = [certified.get(&path), self.set.get(&path)];
            both.into_iter().flatten().map(move |policy| (path.clone(), policy.clone())).collect::<Vec<_>>()
        };
        ancestors(name).into_iter().flat_map(at).collect()
    }

    /// What is there under this name.
    fn held_at(&self, name: &str) -> Held {
        let one = self.there.iter().find(|one| one.name == name);
        one.map_or_else(Held::default, |one| Held {
            unikernels: 1,
            memory_mib: one.memory_mib(),
            volume_mib: 0,
        })
    }

    /// What must come of a create or a change: the CPUs that it gets, unless it must be refused.
    fn allowed(&self, client: usize, wanted: &Create, name: &str) -> Option<Vec<u16>> {
        let old = self.held_at(name);
        let mut cpus = wanted.cpus.to_vec();
        let mut any_cpu: Option<Vec<u16>> = cpus.is_empty().then(|| HOST_CPUS.to_vec());
        let mut named = false;
        for (path, policy) in self.policies_for(client, name) {
            let held = self.held_below(&path);
            let memory_mib = u64::from(wanted.memory_mib);
            let more = policy.unikernels.filter(|_| old.unikernels == 0);
            let larger = policy.memory_mib.filter(|_| memory_mib > old.memory_mib);
            if more.is_some_and(|limit| held.unikernels + 1 > limit)
                || larger.is_some_and(|limit| held.memory_mib - old.memory_mib + memory_mib > limit)
            {
                return None;
            }
            if let Some(bridges) = &policy.bridges
                && wanted.nets.iter().any(|net| !bridges.contains(&net.bridge))
            {
                return None;
            }
            if let Some(set) = &policy.cpus {
                named = true;
                if cpus.iter().any(|cpu| !set.contains(cpu)) {
                    return None;
                }
                if let Some(any) = &mut any_cpu {
                    any.retain(|cpu| set.contains(cpu));
                }
            }
        }
        if let (true, Some(any)) = (named, any_cpu) {
            cpus = any;
            if cpus.is_empty() {
                return None;
            }
        }
        cpus.sort_unstable();
        cpus.dedup();
        Some(cpus)
    }

    fn create(&mut self) {
        let client = self.random.below(self.clients.len());
        let mut labels = self.labels(2);
        let own = format!("u{}", self.random.below(4));
        labels.push(&own);
        let relative = labels.join(":");
        let mut wanted = match self.random.below(2) {
            0 => plain(&relative, self.images[0]),
            _ => networked(&relative, self.images[1], &["net0"]),
        };
        wanted.memory_mib = 4 + self.random.below(40) as u32;
        wanted.cpus = self.random.of(&[vec![], vec![], vec![0], vec![1, 0]]).try_into().unwrap();
        let absolute = join(&self.clients[client].scope, &relative);
        let taken = self.there.iter().any(|one| one.name == absolute);
        let expected = if taken { None } else { self.allowed(client, &wanted, &absolute) };
        let (session, id) = (self.clients[client].session, self.id());
        match self.world.ask(session, id, create(wanted.clone())) {
            Response::Created(brief) => {
                assert_eq!(&*brief.name, relative);
                assert_eq!(
                    Some(self.world.host.spawned.last().unwrap().cpus.to_vec()),
                    expected,
                    "{absolute}"
                );
                assert!(!taken);
                wanted.cpus = expected.unwrap().try_into().unwrap();
                self.there.push(Unikernel { name: absolute, generations: vec![(1, wanted)], current: 0 });
                self.count("created");
            }
            Response::Refused(Refusal::NameTaken) => assert!(taken),
            Response::Refused(refusal) => {
                assert_eq!(expected, None, "{absolute}: {refusal:?}");
                self.check_reason(client, &absolute, &wanted, refusal);
            }
            other => panic!("{other:?}"),
        }
    }

    /// A client, and one of the unikernels that it sees.
    fn seen(&mut self) -> Option<(usize, usize, String)> {
        let client = self.random.below(self.clients.len());
        let scope = &self.clients[client].scope;
        let front = if scope.is_empty() { String::new() } else { format!("{scope}:") };
        let seen: Vec<usize> =
            (0..self.there.len()).filter(|at| self.there[*at].name.starts_with(&front)).collect();
        if seen.is_empty() {
            return None;
        }
        let at = self.random.of(&seen);
        Some((client, at, self.there[at].name[front.len()..].into()))
    }

    /// Something is changed in place.
    fn change(&mut self) {
        let Some((client, at, relative)) = self.seen() else { return };
        let mut change = Change { memory_mib: Some(4 + self.random.below(40) as u32), ..Change::default() };
        if self.random.below(2) == 0 {
            change.cpus = Some(self.random.of(&[vec![], vec![0], vec![1]]).try_into().unwrap());
        }
        let mut wanted = self.there[at].current().clone();
        wanted.memory_mib = change.memory_mib.unwrap();
        wanted.cpus = change.cpus.clone().unwrap_or(wanted.cpus);
        let expected = self.allowed(client, &wanted, &self.there[at].name);
        let request = Request::Restart { name: name(&relative), change: change.into() };
        if self.told(client, at, request, &wanted, expected.clone()) {
            wanted.cpus = expected.unwrap().try_into().unwrap();
            self.there[at].updated(wanted);
            self.count("changed");
        }
    }

    /// An earlier generation comes back, just as it was.
    fn roll_back(&mut self) {
        let Some((client, at, relative)) = self.seen() else { return };
        let Some(earlier) = self.there[at].current.checked_sub(1) else { return };
        let wanted = self.there[at].generations[earlier].1.clone();
        let mut strict = wanted.clone();
        if strict.cpus.is_empty() {
            strict.cpus = HOST_CPUS.to_vec().try_into().unwrap();
        }
        let expected = self.allowed(client, &strict, &self.there[at].name).map(|_| wanted.cpus.to_vec());
        let request = Request::Rollback { name: name(&relative), generation: None };
        if self.told(client, at, request, &wanted, expected) {
            self.there[at].current = earlier;
            self.count("rolled back");
        }
    }

    /// Asks for a change of what is there; true if it is made, as it must be if these CPUs are `expected`.
    fn told(
        &mut self,
        client: usize,
        at: usize,
        request: Request,
        wanted: &Create,
        expected: Option<Vec<u16>>,
    ) -> bool {
        let absolute = self.there[at].name.clone();
        let (session, id) = (self.clients[client].session, self.id());
        match self.world.ask(session, id, request) {
            Response::Started(_) | Response::Updated(_) => {
                let spawned = self.world.host.spawned.last().unwrap();
                assert_eq!(Some(spawned.cpus.to_vec()), expected, "{absolute}");
                assert_eq!(spawned.memory_mib, wanted.memory_mib);
                true
            }
            Response::Refused(refusal) => {
                assert_eq!(expected, None, "{absolute}: {refusal:?}");
                self.check_reason(client, &absolute, wanted, refusal);
                false
            }
            other => panic!("{other:?}"),
        }
    }

    /// The reason that is given must be one, with the numbers that adding up gives.
    fn check_reason(&mut self, client: usize, absolute: &str, wanted: &Create, refusal: Refusal) {
        let holds = |path: &Path, says: &dyn Fn(&Policy) -> bool| {
            let policies = self.policies_for(client, absolute);
            policies.iter().any(|(at, policy)| at == path.labels() && says(policy))
        };
        match refusal {
            Refusal::OverPolicy { path, resource, limit, used, asked } => {
                let (held, old) = (self.held_below(path.labels()), self.held_at(absolute));
                let (counted, wanted, says): (_, _, &dyn Fn(&Policy) -> _) = match resource {
                    Resource::Unikernels => ((held.unikernels - old.unikernels).into(), 1, &|policy| {
                        policy.unikernels.map(u64::from)
                    }),
                    Resource::Memory => {
                        (held.memory_mib - old.memory_mib, wanted.memory_mib.into(), &|policy| {
                            policy.memory_mib
                        })
                    }
                    Resource::VolumeSpace => panic!("no volume was asked for"),
                };
                assert_eq!((used, asked), (counted, wanted));
                assert!(used + asked > limit && holds(&path, &|policy| says(policy) == Some(limit)));
                self.count(if resource == Resource::Memory { "memory" } else { "unikernels" });
            }
            Refusal::CpuPolicy { path, asked, allowed } => {
                let set = |policy: &Policy| policy.cpus.clone().unwrap_or_default();
                let excluded = |cpus: &[u16]| asked.is_none_or(|cpu| !cpus.contains(&cpu));
                assert!(excluded(&allowed) && holds(&path, &|policy| policy.cpus.is_some()));
                let host_has = allowed.iter().any(|cpu| HOST_CPUS.contains(cpu));
                assert!(asked.is_some() || !host_has);
                assert!(holds(&path, &|policy| allowed.iter().all(|cpu| set(policy).contains(cpu))));
                self.count("cpus");
            }
            Refusal::BridgePolicy { path, asked, allowed } => {
                let all: &[BridgeName] = &allowed;
                assert!(
                    !all.contains(&asked) && holds(&path, &|policy| policy.bridges.as_deref() == Some(all))
                );
                self.count("bridges");
            }
            other => panic!("{other:?}"),
        }
    }

    fn count(&mut self, kind: &'static str) {
        *self.met.entry(kind).or_default() += 1;
    }

    fn destroy(&mut self) {
        if self.there.is_empty() {
            return;
        }
        let gone = self.random.below(self.there.len());
        let gone = self.there.swap_remove(gone);
        let id = self.id();
        let root = self.clients[0].session;
        assert_eq!(self.world.ask(root, id, destroy(&name(&gone.name))), Response::Destroyed);
    }

    fn change_policy(&mut self) {
        let client = self.random.below(self.clients.len());
        let relative = self.labels(3).join(":");
        let (session, scope) = (self.clients[client].session, self.clients[client].scope.clone());
        let absolute = join(&scope, &relative);
        let at = if relative.is_empty() { ":" } else { &relative };
        let id = self.id();
        let may = scope.is_empty() || !relative.is_empty();
        if self.random.below(2) == 0 {
            let policy = self.some_policy();
            let answer = self.world.ask(session, id, set(at, policy.clone()));
            let expected = if may { Response::PolicySet } else { Response::Refused(Refusal::OutsideScope) };
            assert_eq!(answer, expected);
            if may {
                self.set.insert(absolute, policy);
            }
        } else {
            let answer = self.world.ask(session, id, petrel_wire::operator::Request::PolicyRemove(path(at)));
            let removed = may && self.set.remove(&absolute).is_some();
            assert_eq!(answer == Response::PolicyRemoved, removed, "{answer:?}");
        }
    }

    /// What is listed for a client is what adding up gives, and the listing of names is the whole of its scope.
    fn compare(&mut self) {
        for client in 0..self.clients.len() {
            let (session, scope) = (self.clients[client].session, self.clients[client].scope.clone());
            let listed = policies(&mut self.world, session, ":");
            for entry in &listed {
                let absolute = join(&scope, entry.path.labels());
                assert_eq!(entry.held, self.held_below(&absolute), "{absolute}");
                assert_eq!(entry.set.as_ref(), self.set.get(&absolute), "{absolute}");
                assert_eq!(entry.certificate.as_ref(), self.clients[client].certified.get(&absolute));
            }
            let paths =
                self.there.iter().flat_map(|one| ancestors(&one.name)).chain(self.set.keys().cloned());
            let below =
                |path: &String| scope.is_empty() || *path == scope || path.starts_with(&format!("{scope}:"));
            let mut paths: Vec<_> = paths.filter(below).chain([scope.clone()]).collect();
            paths.sort();
            paths.dedup();
            let told: Vec<_> = listed.iter().map(|entry| join(&scope, entry.path.labels())).collect();
            assert_eq!(told, paths);
        }
    }
}

#[test]
fn over_random_trees_and_chains_what_is_allowed_is_what_adding_up_allows() {
    let mut met: BTreeMap<&str, usize> = BTreeMap::new();
    for seed in 0..60 {
        let mut model = Model::new(seed);
        for step in 0..250 {
            match model.random.below(20) {
                0..9 => model.create(),
                9..12 => model.change(),
                12..15 => model.roll_back(),
                15..17 => model.destroy(),
                _ => model.change_policy(),
            }
            if step % 50 == 49 {
                model.compare();
            }
        }
        for (kind, count) in model.met {
            *met.entry(kind).or_default() += count;
        }
    }
    for kind in ["created", "memory", "unikernels", "cpus", "bridges", "changed", "rolled back"] {
        assert!(met.get(kind).is_some_and(|&count| count > 100), "hardly ever met: {kind} in {met:?}");
    }
}
