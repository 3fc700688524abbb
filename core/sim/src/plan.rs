//! What a seed's world is like: how large, how lively, and which faults it has. Each seed draws its own, most of
//! them with some kinds of events left out: what is rare where everything happens is common where little else does.

use crate::random::Random;

macro_rules! events {
    ($($(#[$doc:meta])* $event:ident $name:literal $most:literal,)*) => {
        /// What can happen in a step.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Event { $($(#[$doc])* $event,)* }

        impl Event {
            /// All that can happen.
            pub const ALL: &[Event] = &[$(Event::$event,)*];

            /// What it is called on the command line and in a trace.
            pub fn name(self) -> &'static str {
                match self { $(Event::$event => $name,)* }
            }

            /// The most that its weight can be.
            fn weight_max(self) -> u64 {
                match self { $(Event::$event => $most,)* }
            }
        }
    };
}

events! {
    // What goes on by itself. These are in every plan.
    /// The shim goes once through its loop.
    ShimTurn "shim-turn" 2000,
    /// The engine takes in a frame of the shim.
    EngineHears "engine-hears" 2000,
    /// A client takes what is queued for it.
    ClientReads "client-reads" 1000,
    /// A killed monitor is gone.
    MonitorEnds "monitor-ends" 400,

    /// Something that is probed answers, or does not.
    ProbeEnds "probe-ends" 300,

    // Operators. The first two are in every plan.
    /// An operator opens a session.
    Connect "connect" 200,
    /// An operator asks something.
    Ask "ask" 3000,
    /// An operator sends a piece of an image that is wanted.
    SendChunk "send-chunk" 1000,
    /// An operator cancels a request.
    Cancel "cancel" 40,
    /// An operator's connection ends.
    Disconnect "disconnect" 20,
    /// A client reads no more, or goes on reading.
    ClientStalls "client-stalls" 20,
    /// A client does not keep to the protocol.
    Misbehave "misbehave" 20,

    // Guests.
    /// A guest writes to its console.
    GuestWrites "guest-writes" 200,
    /// A guest writes to its console as fast as it can.
    GuestFloods "guest-floods" 30,
    /// A guest exits, or its monitor crashes.
    GuestExits "guest-exits" 30,
    /// A guest that was killed does not end for a long time.
    GuestHangs "guest-hangs" 10,

    // Faults.
    /// Much time passes in one step.
    TimeLeaps "time-leaps" 20,
    /// The wall clock is set.
    WallJumps "wall-jumps" 10,
    /// Nothing gets through the link for a while.
    LinkStalls "link-stalls" 10,
    /// The link ends.
    LinkBreaks "link-breaks" 10,
    /// The host's operating system refuses the shim something.
    HostFails "host-fails" 20,
    /// The control plane's disk takes nothing, and gives nothing, from here on; or works again.
    DiskFails "disk-fails" 4,
    /// The control plane is killed between two inputs.
    PlaneCrashes "plane-crashes" 4,
    /// The control plane is killed while it carries out what one input led to.
    PlaneCrashesMidway "plane-crashes-midway" 10,
    /// The shim is killed between two requests.
    ShimCrashes "shim-crashes" 4,
    /// The shim is killed while it carries out a request.
    ShimCrashesMidway "shim-crashes-midway" 10,
    /// Both are killed.
    BothCrash "both-crash" 2,
    /// The host loses power.
    PowerFails "power-fails" 2,
}

impl Event {
    /// The event of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|event| event.name() == name)
    }

    /// Whether nothing at all would go on without it.
    pub fn is_essential(self) -> bool {
        (self as usize) <= (Self::Ask as usize)
    }
}

/// What a world is like.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How often each event happens, by its place in [`Event::ALL`], and the sum.
    weights: Vec<u64>,
    total: u64,
    /// Operators; each has at most one session.
    pub operators: usize,
    /// Names that unikernels are given.
    pub names: usize,
    /// Images that operators have.
    pub images: usize,
    /// The host's memory, in MiB.
    pub memory_mib: u64,
    /// Monitors of others that run on the host already.
    pub foreign: usize,
    /// The usual length of a step, in nanoseconds.
    pub step_ns: u64,
    /// The longest that it takes to open the link or to start a program again, in nanoseconds.
    pub restart_ns: u64,
    /// Bytes on the link before the shim waits.
    pub link_bytes: usize,
    /// The most requests that the shim takes in one turn.
    pub shim_burst: u64,
    /// In so many of a thousand cases a probe succeeds.
    pub probes_pass: u64,
    /// In so many of a thousand cases in which an operator could set a policy, one does.
    pub policies: u64,
    /// In so many of a thousand cases an operator has less than all rights everywhere.
    pub granted: u64,
    /// The longest argument of a unikernel, in bytes.
    pub arg_bytes: usize,
    /// The size of the block device "state", in bytes; none if zero.
    pub state_bytes: usize,
    /// The size of its blocks, in bytes.
    pub block_bytes: usize,
    /// How many steps there are between two rests.
    pub rest_every: u64,
}

impl Plan {
    /// The plan of a seed, with some events left out.
    pub fn draw(random: &mut Random, without: &[Event]) -> Self {
        let mut weights: Vec<u64> = Event::ALL.iter().map(|&event| weight(event, random)).collect();
        let step_ns = *random.pick(&[2_000, 50_000, 1_000_000]);
        let mut plan = Self {
            operators: *random.pick(&[1, 2, 3, 4, 6, 8, 70]),
            names: *random.pick(&[1, 2, 4, 8, 16, 40, 100]),
            images: *random.pick(&[2, 5, 9, 30]),
            memory_mib: *random.pick(&[48, 256, 1024, 4096]),
            foreign: *random.pick(&[0, 0, 1, 4]),
            step_ns,
            restart_ns: step_ns * random.pick(&[1, 30, 300]),
            link_bytes: *random.pick(&[1_000, 30_000, 256 * 1024]),
            shim_burst: random.between(1, 8),
            probes_pass: *random.pick(&[300, 900, 1000]),
            policies: *random.pick(&[0, 0, 300, 1000]),
            granted: *random.pick(&[0, 300, 900]),
            arg_bytes: *random.pick(&[10, 10, 6000]),
            state_bytes: 1024 * random.pick(&[0, 128, 128, 140, 512]),
            block_bytes: *random.pick(&[512, 512, 4096]),
            rest_every: random.between(200, 3000),
            total: 0,
            weights: Vec::new(),
        };
        for event in without {
            weights[*event as usize] = 0;
        }
        plan.total = weights.iter().sum();
        plan.weights = weights;
        plan
    }

    /// Whether the block device "state" may be too small for what is kept.
    pub fn may_fill_disk(&self) -> bool {
        self.state_bytes > 0 && self.arg_bytes > 100
    }

    /// What happens next.
    pub fn next(&self, random: &mut Random) -> Event {
        let mut ticket = random.below(self.total);
        for (&event, &weight) in Event::ALL.iter().zip(&self.weights) {
            match ticket.checked_sub(weight) {
                Some(rest) => ticket = rest,
                None => return event,
            }
        }
        Event::ShimTurn
    }
}

/// Essential events happen often; a third of the others never, and the rest more or less rarely.
fn weight(event: Event, random: &mut Random) -> u64 {
    let most = event.weight_max();
    let (never, scale) = (random.chance(333), random.below(5));
    match event.is_essential() {
        true => (most >> (scale / 2)).max(1),
        false if never => 0,
        false => (most >> scale).max(1),
    }
}
