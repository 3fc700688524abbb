use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use petrel_wire::Digest;

use super::{Keys, Peer};

/// Set in the environment of a test that runs inside its namespace.
const INSIDE: &str = "PETREL_TEST_NETNS";
/// No test waits longer for anything.
const PATIENCE: Duration = Duration::from_secs(20);

/// A monitor for these tests: it speaks the command line of solo5-hvt and runs its guest, a shell script. Asked as
/// petrel-tender is, it says that it has no KVM.
const MONITOR: &str = r#"#!/bin/sh
if [ "$*" = --probe ]; then exec echo backend=ring3 tsc_khz=1000000 reason=a script needs none; fi
for option; do
    shift
    case $option in --) break ;; *) options="$options $option" ;; esac
done
OPTIONS=$options exec /bin/sh "$@"
"#;

/// The control plane's stand-in, as the test plays the control plane: it only lives.
const CONTROL_PLANE: &str = "echo control plane $OPTIONS; exec sleep 1000";

/// A guest for [`MONITOR`]: does what its argument says.
pub const GUEST: &[u8] = b"eval \"$1\"";

/// Runs `body` in a fresh network namespace, as its root. `test` is the name of the calling test.
///
/// A namespace is entered by a whole process, so this starts the test program again for that one test.
pub fn inside(test: &str, body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return body();
    }
    let myself = std::env::current_exe().unwrap();
    let mut command = Command::new("unshare");
    if rustix::process::geteuid().is_root() {
        command.arg("--net");
    } else {
        command.args(["--user", "--map-root-user", "--net"]);
    }
    let output = command
        .arg(myself)
        .args(["--exact", test, "--nocapture", "--include-ignored"])
        .env(INSIDE, "1")
        .output();
    let output = output.expect("unshare (util-linux) is installed");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && stdout.contains("1 passed"), "{}\n{stdout}{stderr}", output.status);
    print!("{stdout}");
}

/// A host directory, its bridge `service`, and its shim.
pub struct Site {
    pub folder: PathBuf,
    pub keys: Keys,
    shim: Option<Child>,
    /// The capabilities that it may have at most, as setpriv(1) takes them.
    pub rights: Option<String>,
    /// The control groups that it is in, as cgroups(7) tells them.
    shim_groups: String,
    log: Receiver<String>,
}

impl Site {
    /// Makes the bridge and the files, and starts the shim.
    pub fn up() -> Self {
        let folder = std::env::temp_dir().join(format!("petrel-shim-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        // Monitors are other users when the test is root.
        fs::set_permissions(&folder, Permissions::from_mode(0o755)).unwrap();
        run("ip", &["link", "set", "lo", "up"]);
        run("ip", &["link", "add", "service", "type", "bridge"]);
        run("ip", &["link", "add", "private", "type", "bridge"]);
        let keys = Keys::new();
        let file = |name: &str, bytes: &[u8], mode| {
            fs::write(folder.join(name), bytes).unwrap();
            fs::set_permissions(folder.join(name), Permissions::from_mode(mode)).unwrap();
        };
        file("shim-key.der", &keys.shim_private, 0o600);
        file("control-plane-public.der", &keys.peer_public, 0o644);
        file("monitor", MONITOR.as_bytes(), 0o755);
        file("control-plane.sh", CONTROL_PLANE.as_bytes(), 0o644);
        file("seal.img", &[0; 512], 0o600);
        file("shim.toml", configuration().as_bytes(), 0o644);
        let (_, log) = channel();
        let mut site = Self { folder, keys, shim: None, rights: None, shim_groups: String::new(), log };
        site.start_shim();
        site
    }

    /// Starts the shim; what it logs until it listens.
    pub fn start_shim(&mut self) -> Vec<String> {
        let program = env!("CARGO_BIN_EXE_petrel-shim");
        let mut shim = match &self.rights {
            Some(rights) => {
                let mut command = Command::new("setpriv");
                command.args(["--inh-caps=-all", "--ambient-caps=-all"]);
                command.arg(format!("--bounding-set={rights}")).arg(program);
                command
            }
            None => Command::new(program),
        };
        shim.arg("--config").arg(self.folder.join("shim.toml")).stderr(Stdio::piped());
        let mut shim = shim.spawn().unwrap();
        let lines = BufReader::new(shim.stderr.take().unwrap()).lines();
        let (send, receive) = channel();
        // The shim's log goes on being read when nobody waits for a line, as a service manager would.
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| send.send(line)));
        (self.shim, self.log) = (Some(shim), receive);
        let logged = self.log_up_to("listening on");
        self.shim_groups =
            fs::read_to_string(format!("/proc/{}/cgroup", self.shim_pid())).unwrap_or_default();
        logged
    }

    /// Waits until the shim has logged a line with `text`.
    pub fn wait_for_log(&self, text: &str) -> String {
        self.log_up_to(text).pop().unwrap()
    }

    /// The lines that the shim logs, up to one with `text`.
    fn log_up_to(&self, text: &str) -> Vec<String> {
        let mut seen = Vec::new();
        loop {
            match self.log.recv_timeout(PATIENCE) {
                Ok(line) => seen.push(line),
                Err(error) => panic!("no log line with {text:?} ({error}) but {seen:#?}"),
            }
            if seen.last().is_some_and(|line| line.contains(text)) {
                return seen;
            }
        }
    }

    /// Starts the shim anew, with other words in its configuration; what it logs until it listens.
    pub fn reconfigure(&mut self, words: &str, others: &str) -> Vec<String> {
        self.kill_shim();
        let file = self.folder.join("shim.toml");
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains(words), "{text}");
        fs::write(file, text.replace(words, others)).unwrap();
        self.start_shim()
    }

    /// SIGKILL, as the kernel's memory killer would.
    pub fn kill_shim(&mut self) {
        let mut shim = self.shim.take().unwrap();
        shim.kill().unwrap();
        shim.wait().unwrap();
    }

    /// The same for the control plane's monitor.
    pub fn kill_control_plane(&self) {
        let pid = fs::read_to_string(self.run_folder().join("0/pid")).unwrap();
        let pid = rustix::process::Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }

    pub fn shim_pid(&self) -> u32 {
        self.shim.as_ref().unwrap().id()
    }

    pub fn shim_status(&self) -> String {
        fs::read_to_string(format!("/proc/{}/status", self.shim_pid())).unwrap()
    }

    pub fn connect(&self) -> Peer {
        let mut peer = Peer::connect(&self.keys).unwrap();
        peer.greet();
        peer
    }

    pub fn image_path(&self, digest: Digest) -> PathBuf {
        self.folder.join("state/images").join(digest.to_string())
    }

    pub fn volume(&self, name: &str) -> PathBuf {
        self.folder.join("state/volumes").join(name)
    }

    pub fn run_folder(&self) -> PathBuf {
        self.folder.join("state/run")
    }

    /// The folders of the shim's control groups, in all hierarchies that it can use.
    pub fn group_folders(&self) -> Vec<PathBuf> {
        let run = fs::metadata(self.run_folder()).unwrap();
        let name = format!("petrel-{:x}-{:x}", run.dev(), run.ino());
        let lines = self.shim_groups.lines().filter_map(|line| line.split_once(':')?.1.split_once(":/"));
        let places = lines.flat_map(|(controllers, path)| {
            let mounts = if controllers.is_empty() { vec!["", "unified"] } else { vec![controllers] };
            // In v2, the shim's own is beside them, unless it is the root.
            let path = path.strip_suffix("shim").unwrap_or(path);
            let place = |mount| PathBuf::from("/sys/fs/cgroup").join(mount).join(path).join(&name);
            mounts.into_iter().map(place).collect::<Vec<_>>()
        });
        places.filter(|place| place.exists()).collect()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if self.shim.is_some() {
            self.kill_shim();
        }
        // What it started lives on by design.
        for entry in fs::read_dir(self.run_folder()).unwrap().map_while(Result::ok) {
            let pid =
                fs::read_to_string(entry.path().join("pid")).ok().and_then(|pid| pid.trim().parse().ok());
            if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        self.group_folders().iter().for_each(|folder| remove_groups(folder));
        fs::remove_dir_all(&self.folder).unwrap();
    }
}

/// Removes a folder of control groups, once the processes in them are gone.
fn remove_groups(folder: &Path) {
    let until = Instant::now() + PATIENCE;
    let groups = fs::read_dir(folder).unwrap().map_while(Result::ok).filter(|entry| entry.path().is_dir());
    for group in groups.map(|entry| entry.path()).chain([folder.to_owned()]) {
        while fs::remove_dir(&group).is_err() {
            assert!(Instant::now() < until, "{} is not left by its processes", group.display());
            std::thread::yield_now();
        }
    }
}

fn configuration() -> String {
    let uids = match rustix::process::geteuid().is_root() && is_root_of_many() {
        true => "uids = { start = 300000, end = 301999 }",
        false => "",
    };
    format!(
        r#"
state_dir = "state"
listen = "169.254.25.1:1026"
key = "shim-key.der"
control_plane_public_key = "control-plane-public.der"
bridges = ["service"]
{uids}
[control_plane]
image = "control-plane.sh"
seal = "seal.img"
state = "state.img"
state_mib = 1
memory_mib = 32
bridge = "service"
monitor = "script"
args = []
[[monitors]]
name = "script"
path = "monitor"
target = 1
version = 2
backend = "kvm"
"#
    )
}

fn is_root_of_many() -> bool {
    fs::read_to_string("/proc/self/uid_map").unwrap().split_whitespace().nth(2) != Some("1")
}

fn run(program: &str, args: &[&str]) -> String {
    let output =
        Command::new(program).args(args).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Whether the network interface is there. (/sys shows the namespace that it was mounted in, /proc shows ours.)
pub fn interface_exists(name: &str) -> bool {
    let interfaces = fs::read_to_string("/proc/net/dev").unwrap();
    interfaces.lines().any(|line| line.trim_start().split(':').next() == Some(name))
}

/// The number that a network interface has as long as it is there, and never again.
pub fn interface_index(name: &str) -> u32 {
    let line = run("ip", &["-oneline", "link", "show", "dev", name]);
    line.split(':').next().unwrap().parse().unwrap()
}
