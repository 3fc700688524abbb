//! Running a program to its end, bounded in time, with both its outputs read as one text (as bats' `run` does).

use std::fmt;
use std::io::{self, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

/// How long a program may run: 60 s as in upstream's tests.bats, or what $PETREL_TEST_SECONDS says (on an emulated CPU).
fn limit() -> Duration {
    let asked = std::env::var("PETREL_TEST_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(asked.unwrap_or(60))
}

/// How a program ended.
pub struct Outcome {
    pub status: ExitStatus,
    /// Standard output and standard error, interleaved.
    pub output: String,
}

impl Outcome {
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Upstream's `expect_success`.
    #[track_caller]
    pub fn expect_success(&self) -> &Self {
        assert_eq!(self.code(), Some(0), "{self}");
        self.expect_says("SUCCESS")
    }

    /// Upstream's `expect_abort`.
    #[track_caller]
    pub fn expect_abort(&self) -> &Self {
        assert_eq!(self.code(), Some(255), "{self}");
        self.expect_says("ABORT")
    }

    /// The tender's own failures end with status 1.
    #[track_caller]
    pub fn expect_refusal(&self) -> &Self {
        assert_eq!(self.code(), Some(1), "{self}");
        assert!(!self.output.contains("panicked at"), "a panic is no refusal: {self}");
        self
    }

    #[track_caller]
    pub fn expect_says(&self, text: &str) -> &Self {
        assert!(self.output.contains(text), "expected {text:?}: {self}");
        self
    }

    /// The system-call filter ended it.
    #[track_caller]
    pub fn expect_filtered(&self) -> &Self {
        assert_eq!(self.status.signal(), Some(31), "expected SIGSYS: {self}");
        self
    }

    #[track_caller]
    pub fn expect_silent_about(&self, text: &str) -> &Self {
        assert!(!self.output.contains(text), "did not expect {text:?}: {self}");
        self
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, having said:\n{}", self.status, self.output)
    }
}

/// A program that runs. It ends at the latest when this is dropped.
pub struct Running {
    child: Child,
    output: Receiver<String>,
}

impl Running {
    /// Starts `command` as the leader of a process group of its own.
    pub fn start(command: Command) -> Running {
        Running::start_with(command, None)
    }

    /// The same, with a standard output that the caller keeps to itself.
    pub fn start_with_stdout(command: Command, stdout: Stdio) -> Running {
        Running::start_with(command, Some(stdout))
    }

    fn start_with(mut command: Command, stdout: Option<Stdio>) -> Running {
        let (mut reader, writer) = io::pipe().expect("a pipe");
        let stdout = stdout.unwrap_or_else(|| writer.try_clone().expect("a descriptor").into());
        command.stdout(stdout).stderr(writer).process_group(0);
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        // `command` holds the write end too: while that is open, the reader would never see the end.
        drop(command);
        let (sender, output) = mpsc::channel();
        thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = reader.read_to_end(&mut bytes);
            let _ = sender.send(String::from_utf8_lossy(&bytes).into_owned());
        });
        Running { child, output }
    }

    /// Waits until the tender is confined, which is when its guest is about to run.
    pub fn until_confined(self) -> Running {
        let status = format!("/proc/{}/status", self.child.id());
        let deadline = Instant::now() + limit();
        loop {
            let text = std::fs::read_to_string(&status).unwrap_or_default();
            if text.contains("\nSeccomp:\t2\n") {
                return self;
            }
            assert!(Instant::now() < deadline, "it is not confined yet, but:\n{text}");
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits until the kernel says that it is in this state: `S` when it sleeps, `T` when it was stopped.
    pub fn until(&self, state: char) -> &Running {
        let deadline = Instant::now() + limit();
        while !self.is(state) {
            assert!(Instant::now() < deadline, "it is not in state {state}");
            thread::sleep(Duration::from_millis(1));
        }
        self
    }

    /// Whether it is at its end, but was not waited for.
    pub fn has_ended(&self) -> bool {
        self.is('Z')
    }

    fn is(&self, state: char) -> bool {
        let line = format!("\nState:\t{state}");
        std::fs::read_to_string(self.proc("status")).is_ok_and(|text| text.contains(&line))
    }

    /// Kills it, if it has not ended.
    pub fn kill(&self) {
        self.signal(rustix::process::Signal::KILL);
    }

    /// Sends a signal.
    pub fn signal(&self, signal: rustix::process::Signal) -> &Running {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("the child was not waited for yet");
        self
    }

    /// What its program looks like from outside: a file below /proc.
    pub fn proc(&self, file: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{file}", self.child.id()))
    }

    /// Waits for the end; fails the test when that does not come, or when the program left a process behind.
    pub fn outcome(mut self) -> Outcome {
        let output = self.output.recv_timeout(limit());
        if output.is_err() {
            let _ = self.child.kill();
        }
        let status = self.child.wait().expect("the child can be waited for");
        let group = rustix::process::Pid::from_child(&self.child);
        assert_eq!(
            rustix::process::test_kill_process_group(group),
            Err(rustix::io::Errno::SRCH),
            "it left a process behind",
        );
        match output {
            Ok(output) => Outcome { status, output },
            Err(_) => {
                assert_eq!(status.signal(), Some(9));
                let said = self.output.recv_timeout(limit()).unwrap_or_default();
                panic!("it did not end within {:?}, having said:\n{said}", limit())
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The backend under test: the one that works everywhere, or what $PETREL_TEST_BACKEND says (tools/kvm-check: "kvm").
pub fn backend() -> String {
    std::env::var("PETREL_TEST_BACKEND").unwrap_or_else(|_| "ring3".to_owned())
}

/// Our tender under test.
pub fn tender(arguments: &[&str]) -> Command {
    tender_on(&backend(), arguments)
}

/// The program under test: what `make` ships, which says so in $PETREL_TENDER, or what cargo has built for the test.
pub fn program() -> PathBuf {
    std::env::var_os("PETREL_TENDER")
        .map_or_else(|| env!("CARGO_BIN_EXE_petrel-tender").into(), PathBuf::from)
}

/// Our tender on this backend.
pub fn tender_on(backend: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.arg(format!("--backend={backend}")).args(arguments);
    command
}

/// Runs `command` to its end.
pub fn run(command: Command) -> Outcome {
    Running::start(command).outcome()
}
