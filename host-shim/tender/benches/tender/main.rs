//! `make bench-tender`: what a guest gets from `petrel-tender` in ring 3, beside what Solo5's own `solo5-spt` gives.
//!
//! Each figure is the best of several turns in which all take part one after the other, so that whatever else the machine
//! does meets them alike. Only the ratios mean something on another machine.

mod contender;
#[path = "../../tests/conformance/support/mod.rs"]
mod support;
mod table;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use contender::{Contender, Guest};
use support::ping::Flood;
use support::{Scratch, netns, run, solo5};
use table::{Aim, head, row};

/// How often each contender does each thing.
const TURNS: usize = 25;
const STARTS: usize = 100;

const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const NET: &str = "--net:service=tap0";

/// How many idle guests share what can be shared.
const IDLE: usize = 8;

type Measurement = (&'static str, fn(&Bench));

/// All there are, by the names that $ONLY may pick some of.
const MEASUREMENTS: [Measurement; 7] = [
    ("calls", Bench::calls),
    ("blocks", Bench::blocks),
    ("pings", Bench::pings),
    ("tcp", Bench::tcp),
    ("starts", Bench::starts),
    ("cpu", Bench::cpu),
    ("memory", Bench::memory),
];

fn main() {
    let results = netns::inside("bench", || {
        let scratch = Scratch::new("bench-tender");
        let bench = Bench::new(&scratch);
        head(&bench.contenders.each_ref().map(|contender| contender.name));
        let only = std::env::var("ONLY").unwrap_or_default();
        let only: Vec<_> = only.split_whitespace().collect();
        let names = MEASUREMENTS.map(|(name, _)| name);
        let unknown = only.iter().find(|name| !names.contains(name));
        assert_eq!(unknown, None, "ONLY: expected some of {names:?}");
        for (name, measure) in MEASUREMENTS {
            if only.is_empty() || only.contains(&name) {
                measure(&bench);
            }
        }
        println!("1 passed");
    });
    print!("{results}");
}

struct Bench {
    contenders: [Contender; 3],
    /// The guest's images, but for the extension.
    guest: PathBuf,
    /// The CPU loop as a program of this host.
    native: PathBuf,
    disk: String,
}

impl Bench {
    fn new(scratch: &Scratch) -> Bench {
        for number in 0..IDLE {
            netns::tap(&format!("tap{number}"), &format!("10.{number}.0.1/24"));
        }
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/guest");
        let native = scratch.path().join("native");
        let mut compile = Command::new("cc");
        compile.args(["-O2", "-o"]).arg(&native).arg(sources.join("native.c"));
        assert_eq!(run::run(compile).code(), Some(0));
        // As the shim does, the frequency is asked for once.
        let tsc_khz = contender::tsc_khz();
        Bench {
            contenders: [
                Contender::ours("hvt guest", "hvt", &["--backend=ring3", &tsc_khz]),
                Contender::ours("spt guest", "spt", &[]),
                Contender::reference("solo5-spt"),
            ],
            guest: solo5::guest_from(&sources),
            native,
            // Small enough to stay in the host's cache.
            disk: format!("--block:storage={}", scratch.file("disk.img", &vec![0; 16 << 20]).display()),
        }
    }

    /// The guest in a contender, on a disk and a tap.
    fn command(&self, contender: &Contender, net: &str, options: &[&str], work: &str) -> Command {
        let options = [&[&self.disk, net], options].concat();
        contender.command(32, &options, &self.guest.with_extension(contender.target), &[work])
    }

    /// Nanoseconds for each of `count` pieces of work, by the guest's own clock.
    fn timed(&self, contender: &Contender, options: &[&str], work: &str, count: u32) -> f64 {
        nanoseconds(self.command(contender, NET, options, &format!("{work} {count}"))) / f64::from(count)
    }

    /// For each contender the least that `measure` returns.
    fn best(&self, turns: usize, measure: impl Fn(&Contender) -> f64) -> [f64; 3] {
        let mut best = [f64::INFINITY; 3];
        for _ in 0..turns {
            for (best, contender) in best.iter_mut().zip(&self.contenders) {
                *best = best.min(measure(contender));
            }
        }
        best
    }

    fn calls(&self) {
        let works = [
            ("call", "hypercall that does nothing"),
            ("poll", "asking a net device that has nothing"),
            ("yield", "sleeping for no time"),
        ];
        for (work, name) in works {
            let best = self.best(TURNS, |contender| self.timed(contender, &[], work, 50_000));
            row(name, "ns", best, Aim::Ratio(1.05));
        }
    }

    fn blocks(&self) {
        const BYTES: u32 = 8 << 20;
        for (work, name) in [("read", "reading"), ("write", "writing")] {
            for size in [512_u16, 4096] {
                let option = format!("--block-sector-size:storage={size}");
                let best = self.best(TURNS, |contender| {
                    // Solo5 v0.7.2 knows blocks of 512 bytes only; of them it takes eight.
                    let options: &[&str] = if contender.has_block_sizes { &[&option] } else { &[] };
                    self.timed(contender, options, work, BYTES) * f64::from(size)
                });
                row(&format!("{name} {size} bytes that are cached"), "ns", best, Aim::Ratio(1.05));
            }
        }
    }

    fn pings(&self) {
        const PINGS: u32 = 10_000;
        let best = self.best(TURNS, |contender| {
            let image = solo5::guest("net", contender.target);
            let command = contender.command(32, &["--net:service0=tap0"], &image, &[]);
            let _guest = Guest::start(command);
            let flood = Flood::start(GUEST, PINGS.into());
            // The first answer comes when the guest is up.
            let start = until_answered(&flood, 1);
            let end = until_answered(&flood, PINGS.into());
            flood.stop();
            (end - start).as_secs_f64() * 1e9 / f64::from(PINGS)
        });
        row("ping flood, each answer", "ns", best, Aim::Ratio(1.05));
    }

    fn tcp(&self) {
        const BYTES: u32 = 64 << 20;
        for (port, name) in [(5001, "TCP into the guest"), (5002, "TCP out of the guest")] {
            let best = self.best(TURNS, |contender| {
                let _guest = Guest::start(self.command(contender, NET, &[], &format!("tcp {BYTES}")));
                let mut stream = connect(SocketAddr::from((GUEST, port)));
                let start = Instant::now();
                if port == 5001 {
                    send(&mut stream, BYTES);
                } else {
                    receive(&mut stream, BYTES);
                }
                start.elapsed().as_secs_f64() * 1e9 / f64::from(BYTES >> 20)
            });
            row(&format!("{name}, each MiB"), "ns", best, Aim::Ratio(1.0));
        }
    }

    fn starts(&self) {
        for mib in [32, 512] {
            let start = |contender: &Contender| {
                let image = solo5::guest("hello", contender.target);
                start_and_end(contender.command(mib, &[], &image, &[]))
            };
            let first = self.best(STARTS, |contender| start(contender).0);
            row(&format!("start to first console byte, {mib} MB"), "µs", first, Aim::Ratio(1.1));
            let end = self.best(STARTS, |contender| start(contender).1);
            row(&format!("start to exit, {mib} MB"), "µs", end, Aim::Ratio(1.1));
        }
    }

    fn cpu(&self) {
        const ROUNDS: u32 = 5_000_000;
        let mut native = f64::INFINITY;
        let mut best = [f64::INFINITY; 3];
        for _ in 0..TURNS {
            let mut command = Command::new(&self.native);
            command.arg(ROUNDS.to_string());
            native = native.min(nanoseconds(command) / f64::from(ROUNDS));
            let turn = self.best(1, |contender| self.timed(contender, &[], "x", ROUNDS));
            best = std::array::from_fn(|number| best[number].min(turn[number]));
        }
        row("CPU loop, each round", "ns", best, Aim::Ratio(1.05));
        row("the same, in times of a native program", "", best.map(|best| best / native), Aim::AtMost(1.02));
    }

    fn memory(&self) {
        let each = self.contenders.each_ref().map(|contender| {
            let start = |number| {
                let net = format!("--net:service=tap{number}");
                Guest::start(self.command(contender, &net, &[], "tcp 0"))
            };
            let guests: Vec<_> = (0..IDLE).map(start).collect();
            guests.iter().for_each(Guest::until_idle);
            guests.iter().map(Guest::pss_kib).sum::<f64>() / IDLE as f64
        });
        row(&format!("memory (PSS) of an idle 32 MB guest of {IDLE}"), "KiB", each, Aim::AtMost(600.0));
    }
}

/// Runs a program that says "ns N" at its end, and returns that.
fn nanoseconds(mut command: Command) -> f64 {
    let output = command.output().expect("it starts");
    let text = String::from_utf8_lossy(&output.stdout);
    let said = text.lines().find_map(|line| line.strip_prefix("ns "));
    let said = said.and_then(|number| number.parse().ok());
    said.unwrap_or_else(|| panic!("{command:?}: {}\n{text}", output.status))
}

fn until_answered(flood: &Flood, answers: u64) -> Instant {
    while flood.answers() < answers {
        std::thread::sleep(Duration::from_micros(50));
    }
    Instant::now()
}

/// Connects as soon as the guest is up.
fn connect(guest: SocketAddr) -> TcpStream {
    loop {
        if let Ok(stream) = TcpStream::connect_timeout(&guest, Duration::from_millis(200)) {
            return stream;
        }
    }
}

fn send(stream: &mut TcpStream, bytes: u32) {
    let chunk = [b'x'; 1 << 16];
    for _ in 0..bytes >> 16 {
        stream.write_all(&chunk).expect("the guest takes all");
    }
    // It answers the end of it with its own.
    stream.shutdown(Shutdown::Write).expect("connected");
    assert_eq!(stream.read(&mut [0]).expect("connected"), 0);
}

fn receive(stream: &mut TcpStream, bytes: u32) {
    let mut chunk = [0; 1 << 16];
    let mut left = u64::from(bytes);
    while left > 0 {
        let count = stream.read(&mut chunk).expect("connected");
        assert_ne!(count, 0, "{left} bytes are missing");
        left -= count as u64;
    }
}

/// Microseconds from a program's start to the first byte that it prints, and to its end.
fn start_and_end(mut command: Command) -> (f64, f64) {
    let start = Instant::now();
    let mut child = command.stdout(Stdio::piped()).spawn().expect("it starts");
    let mut stdout = child.stdout.take().expect("a pipe");
    stdout.read_exact(&mut [0]).expect("it prints");
    let first = start.elapsed();
    stdout.read_to_end(&mut Vec::new()).expect("readable");
    assert!(child.wait().expect("a child").success());
    (first.as_secs_f64() * 1e6, start.elapsed().as_secs_f64() * 1e6)
}
