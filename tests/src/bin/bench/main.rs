//! The benchmark that `make bench` runs inside a devhost: each figure beside the floor that the machine sets, in one
//! run. Every loop is bounded. Nothing here passes or fails: a machine may be busy.

mod crowd;
mod gap;
mod noise;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use petrel::{Image, Profile, Session};
use petrel_tests::{image, kill_9, out};
use petrel_wire::operator::{Create, Request, Response, Supervision};
use petrel_wire::{Blob, List};

const ROUNDS: usize = 100;
const PAIRS: usize = 1000;
const BOOTS: usize = 10;
const UPLOAD_BYTES: usize = 4_200_000;
const UPLOADS: usize = 10;

fn main() {
    let folder = PathBuf::from(std::env::args_os().nth(1).expect("usage: bench DEVHOST-FOLDER"));
    let profile = Profile::load(&folder.join("site/profile")).expect("the devhost's profile");
    floors();
    processes();
    open_connection(&profile);
    uploads(&folder, &profile);
    crowd::one_image_many_times(&folder, &profile);
    crowd::crowd(&folder, &profile);
    sizes(&folder);
    ask_often();
    gap::updates();
    noise::crash_loop(&folder);
    noise::flood(&folder);
    boots(&folder, &profile);
}

fn heading(text: &str) {
    println!("\n{text:<52} {:>10} {:>10} {:>10}   aim", "median", "p90", "least");
}

/// Runs `round` several times and prints what its times were. Returns the median.
fn measure(what: &str, rounds: usize, aim: &str, mut round: impl FnMut(usize) -> Duration) -> Duration {
    let mut times: Vec<_> = (0..rounds).map(&mut round).collect();
    times.sort_unstable();
    let ms = |time: Duration| format!("{:.2} ms", time.as_secs_f64() * 1e3);
    let (median, p90) = (times[rounds / 2], times[rounds * 9 / 10]);
    println!("{what:<52} {:>10} {:>10} {:>10}   {aim}", ms(median), ms(p90), ms(times[0]));
    median
}

fn ratio(what: &str, of: Duration, to: Duration, aim: &str) {
    println!("{what:<52} {:>9.2}x {:>21}   {aim}", of.as_secs_f64() / to.as_secs_f64(), "");
}

/// What `petrel … --json` prints.
fn json(arguments: &[&str]) -> serde_json::Value {
    let output = petrel(&[arguments, &["--json"]].concat()).output().expect("it runs");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn timed(action: impl FnOnce()) -> Duration {
    let start = Instant::now();
    action();
    start.elapsed()
}

/// From the start of a program to the first byte that it prints; it is then awaited.
fn until_first_byte(command: &mut Command) -> Duration {
    let start = Instant::now();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut stdout = child.stdout.take().expect("it is piped");
    stdout.read_exact(&mut [0]).expect("it prints something");
    let first = start.elapsed();
    let mut rest = Vec::new();
    stdout.read_to_end(&mut rest).expect("it prints to its end");
    child.wait().expect("it ends");
    first
}

fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().expect("it starts");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn petrel(arguments: &[&str]) -> Command {
    let mut command = Command::new(out("petrel"));
    command.args(arguments);
    command
}

/// What the tender says of this machine, as the shim asks it once.
fn probe() -> Vec<String> {
    let output = Command::new(out("petrel-tender")).arg("--probe").output().expect("it starts");
    let line = String::from_utf8_lossy(&output.stdout).into_owned();
    println!("tender: {}", line.trim());
    let words = line.split_whitespace().take(2).map(str::to_owned);
    words.map(|word| format!("--{}", word.replace("tsc_khz", "tsc-khz"))).collect()
}

fn floors() {
    let settings = probe();
    let bare = || {
        let mut command = Command::new(out("petrel-tender"));
        command.args(&settings).args(["--mem=32", "--", &image("hello.hvt")]);
        command
    };
    heading("floor: the bare tender, and a process that does nothing");
    measure("/bin/true, start to end", ROUNDS, "", |_| timed(|| run(&mut Command::new("/bin/true"))));
    measure("tender on hello, start to first console byte", ROUNDS, "", |_| until_first_byte(&mut bare()));
    measure("tender on hello, start to end", ROUNDS, "", |_| timed(|| run(&mut bare())));
}

fn processes() {
    let hello = image("hello.hvt");
    let crash = image("crash.hvt");
    run(&mut petrel(&["create", "warm", &hello, "--wait"]));
    run(&mut petrel(&["create", "stays", &crash, "--arg=--after=3600"]));
    heading("whole client processes, each with its TLS handshake");
    let name = |round: usize| format!("b{round}");
    measure("petrel create, to its end", ROUNDS, "< 8 ms", |round| {
        let time = timed(|| run(&mut petrel(&["create", &name(round), &hello])));
        run(&mut petrel(&["destroy", &name(round)]));
        time
    });
    measure("petrel create --wait, to the first console byte", ROUNDS, "", |round| {
        let time = until_first_byte(&mut petrel(&["create", &name(round), &hello, "--wait"]));
        run(&mut petrel(&["destroy", &name(round)]));
        time
    });
    measure("petrel info", ROUNDS, "", |_| timed(|| run(&mut petrel(&["info", "stays"]))));
    measure("petrel destroy (of a running one)", ROUNDS, "", |round| {
        run(&mut petrel(&["create", &name(round), &crash, "--arg=--after=3600"]));
        timed(|| run(&mut petrel(&["destroy", &name(round)])))
    });
    run(&mut petrel(&["destroy", "warm"]));
}

/// A request for a unikernel that runs until it is destroyed.
fn long_running(image: &Image, name: &str) -> Request {
    let argument = Blob::try_from(&b"--after=3600"[..]).expect("it is short");
    Request::Create(Box::new(Create {
        name: name.parse().expect("a name"),
        image: image.digest(),
        memory_mib: 32,
        cpus: List::new(),
        nets: List::new(),
        blocks: List::new(),
        args: vec![argument].try_into().expect("one argument"),
        supervision: Supervision::default(),
        force: false,
    }))
}

fn destroy(name: &str) -> Request {
    Request::Destroy(name.parse().expect("a name"))
}

fn open_connection(profile: &Profile) {
    let crash = Image::read(&out("crash.hvt")).expect("an image");
    let mut session = Session::connect(profile).expect("a session");
    let mut ask = |request: Request| session.request(request).expect("it is done");
    heading("on one open connection");
    measure("host (a round trip to the control plane alone)", ROUNDS, "", |_| {
        timed(|| drop(ask(Request::Host)))
    });
    let name = "stays".parse::<petrel_wire::Name>().expect("a name");
    measure("info", ROUNDS, "", |_| timed(|| drop(ask(Request::Info(name.clone())))));
    let (mut creates, mut destroys) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        creates.push(timed(|| drop(ask(long_running(&crash, "open")))));
        destroys.push(timed(|| drop(ask(destroy("open")))));
    }
    measure("create", ROUNDS, "< 2.5 ms", |round| creates[round]);
    measure("destroy", ROUNDS, "", |round| destroys[round]);

    for lanes in [1, 4] {
        let time = timed(|| {
            std::thread::scope(|scope| {
                for lane in 0..lanes {
                    let (profile, crash) = (profile, &crash);
                    scope.spawn(move || pairs(profile, crash, &format!("lane{lane}"), PAIRS / lanes));
                }
            })
        });
        let rate = PAIRS as f64 / time.as_secs_f64();
        println!("create+destroy, {lanes} connection(s){:>39.0}/s{:>22}   > 500/s", rate, "");
    }
}

fn pairs(profile: &Profile, image: &Image, name: &str, count: usize) {
    let mut session = Session::connect(profile).expect("a session");
    for _ in 0..count {
        let created = session.request(long_running(image, name)).expect("it is created");
        assert!(matches!(created, Response::Created(_)));
        session.request(destroy(name)).expect("it is destroyed");
    }
}

/// hello.hvt with a tail that makes it as large as a MirageOS web server, different each time.
fn large_image(folder: &Path, round: usize) -> PathBuf {
    let mut bytes = std::fs::read(out("hello.hvt")).expect("an image");
    bytes.resize(UPLOAD_BYTES - size_of::<usize>(), 0x5a);
    bytes.extend(round.to_le_bytes());
    let path = folder.join(format!("large{round}.hvt"));
    std::fs::write(&path, bytes).expect("room for an image");
    path
}

fn uploads(folder: &Path, profile: &Profile) {
    heading("upload of a 4.2 MB image");
    let mut plain = vec![0; UPLOAD_BYTES];
    measure("floor: its bytes through a pipe to cat", UPLOADS, "", |_| timed(|| through_cat(&mut plain)));
    measure("petrel create with upload, to its end", UPLOADS, "< 60 ms", |round| {
        let path = large_image(folder, round);
        let name = format!("large{round}");
        let time = timed(|| run(&mut petrel(&["create", &name, &path.display().to_string()])));
        run(&mut petrel(&["destroy", &name]));
        std::fs::remove_file(path).expect("it was there");
        time
    });
    let mut session = Session::connect(profile).expect("a session");
    session.welcome().expect("a greeting");
    measure("the upload alone, on an open connection", UPLOADS, "", |round| {
        let path = large_image(folder, UPLOADS + round);
        let image = Image::read(&path).expect("an image");
        std::fs::remove_file(path).expect("it was there");
        timed(|| session.push(&image.bytes, image.digest(), |_| ()).expect("it is stored"))
    });
}

fn through_cat(bytes: &mut [u8]) {
    use std::io::Write;
    let mut cat =
        Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("cat starts");
    let (mut stdin, mut stdout) = (cat.stdin.take().expect("piped"), cat.stdout.take().expect("piped"));
    let sent = bytes.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&sent).expect("cat reads"));
    stdout.read_exact(bytes).expect("cat writes");
    writer.join().expect("it wrote");
    cat.wait().expect("cat ends");
}

/// The pid in a file, which may be about to be written.
fn read_pid(path: &Path) -> u32 {
    let read = || std::fs::read_to_string(path).ok().and_then(|pid| pid.trim().parse().ok());
    let tries = std::iter::repeat_with(|| {
        let pid = read();
        if pid.is_none() {
            std::thread::sleep(Duration::from_millis(10));
        }
        pid
    });
    tries.take(200).flatten().next().expect("a pid")
}

/// The resident memory of a process, in KiB: all of it, and its share of what is shared.
fn memory_kib(pid: u32) -> (u64, u64) {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("the process runs");
    let field = |name: &str| {
        let line = rollup.lines().find(|line| line.starts_with(name)).expect("a field");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
    };
    (field("Rss:"), field("Pss:"))
}

/// The shim's process, and that of the control plane's monitor.
fn monitor_pids(folder: &Path) -> [u32; 2] {
    ["shim.pid", "site/host/state/run/0/pid"].map(|file| read_pid(&folder.join(file)))
}

fn sizes(folder: &Path) {
    println!("\n{:<52} {:>10} {:>10}", "memory after all of the above", "resident", "share");
    let mut total = 0;
    for (what, pid) in ["petrel-shim", "petrel.hvt and its tender"].into_iter().zip(monitor_pids(folder)) {
        let (rss, pss) = memory_kib(pid);
        total += rss;
        println!("{what:<52} {:>7.1} MB {:>7.1} MB", mb(rss), mb(pss));
    }
    println!("{:<52} {:>7.1} MB {:>10}   < 25 MB", "together", mb(total), "");
    let bytes = |file: &str| std::fs::metadata(out(file)).expect("it is built").len();
    println!();
    for file in ["petrel.hvt", "hello.hvt", "petrel-shim", "petrel-tender", "petrel"] {
        println!("{file:<52} {:>7} kB", bytes(file) / 1000);
    }
}

#[allow(clippy::cast_precision_loss, reason = "for people to read")]
fn mb(kib: u64) -> f64 {
    kib as f64 * 1024.0 / 1e6
}

/// While nobody is there the kernel asks for an address once a second: lets it ask more often.
fn ask_often() {
    let _ = std::fs::write("/proc/sys/net/ipv4/neigh/service/retrans_time_ms", "2");
}

/// Kills the host's trusted parts and starts them anew, from the shim's start to the first session.
#[allow(
    clippy::zombie_processes,
    reason = "the last shim outlives the benchmark: it is the devhost's from then on"
)]
fn boots(folder: &Path, profile: &Profile) {
    run(&mut petrel(&["destroy", "stays"]));
    heading("from the start of petrel-shim");
    let mut shim: Option<Child> = None;
    measure("to the first accepted TLS session", BOOTS, "", |_| {
        // Written while the control plane boots already: it may have accepted a session before that.
        let control_plane = read_pid(&folder.join("site/host/state/run/0/pid"));
        match shim.take() {
            None => kill_9(read_pid(&folder.join("shim.pid"))),
            Some(mut child) => {
                child.kill().expect("it runs");
                child.wait().expect("it ends");
            }
        }
        kill_9(control_plane);
        std::thread::sleep(Duration::from_millis(300)); // the kernel takes the taps down
        let start = Instant::now();
        shim = Some(start_shim(folder));
        await_session(profile, start)
    });
    let child = shim.expect("it was started");
    std::fs::write(folder.join("shim.pid"), child.id().to_string()).expect("the devhost's folder");
}

fn start_shim(folder: &Path) -> Child {
    Command::new(folder.join("bin/petrel-shim"))
        .arg("--config")
        .arg(folder.join("site/host/shim.toml"))
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the shim starts")
}

fn await_session(profile: &Profile, start: Instant) -> Duration {
    let address = profile.address.parse().expect("the devhost's address is a literal");
    while start.elapsed() < Duration::from_secs(20) {
        let there = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(4)).is_ok();
        if there && Session::connect(profile).is_ok_and(|mut session| session.welcome().is_ok()) {
            return start.elapsed();
        }
    }
    panic!("the control plane does not come up");
}
