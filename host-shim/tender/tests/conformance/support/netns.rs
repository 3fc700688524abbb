//! A network of the test's own: it runs itself again inside a new network namespace.

use std::fs::OpenOptions;
use std::net::UdpSocket;
use std::process::Command;
use std::thread;
use std::time::Duration;

use super::run::{Outcome, Running};

/// Set in the environment of a test that runs inside its namespace.
const INSIDE: &str = "PETREL_TEST_NETNS";

/// Runs `body` in a fresh network namespace, as its root. `test` is the full name of the calling test.
///
/// A namespace is entered by a whole process (as an ordinary user it takes a user namespace, which a program of
/// several threads cannot enter), so this starts the test program again for that one test.
///
/// Returns what it printed; nothing inside.
pub fn inside(test: &str, body: impl FnOnce()) -> String {
    if std::env::var_os(INSIDE).is_some() {
        body();
        return String::new();
    }
    if let Err(error) = OpenOptions::new().read(true).write(true).open("/dev/net/tun") {
        panic!("this test makes taps and needs to open /dev/net/tun: {error}");
    }
    let myself = std::env::current_exe().expect("/proc is mounted");
    let output = Command::new("unshare")
        .args(flags())
        .arg(myself)
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .expect("unshare ran a moment ago");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "inside the namespace: {}\n{said}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr),
    );
    said.into_owned()
}

/// The first of the ways to get a namespace that this machine allows.
fn flags() -> &'static [&'static str] {
    const WAYS: [&[&str]; 2] = [&["--net"], &["--user", "--map-root-user", "--net"]];
    let mut refusals = String::new();
    for way in WAYS {
        match Command::new("unshare").args(way).arg("true").output() {
            Ok(output) if output.status.success() => return way,
            Ok(output) => refusals += &String::from_utf8_lossy(&output.stderr),
            Err(error) => refusals += &format!("unshare: {error}\n"),
        }
    }
    panic!("this test needs a network namespace (run it as root, or allow user namespaces):\n{refusals}");
}

/// Makes the tap `name` with `address` (CIDR) on the host's side, up.
pub fn tap(name: &str, address: &str) {
    ip(&["tuntap", "add", "dev", name, "mode", "tap"]);
    ip(&["address", "add", address, "dev", name]);
    ip(&["link", "set", "dev", name, "up"]);
}

/// Sends frames to a guest on a tap of 10.0.0.1/24 until it has ended. They are broadcasts, which need no answer to find
/// their way.
pub fn broadcast_to(running: Running) -> Outcome {
    let socket = UdpSocket::bind("10.0.0.1:0").expect("the tap's address");
    socket.set_broadcast(true).expect("a socket can do that");
    while !running.has_ended() {
        let _ = socket.send_to(&[b'x'; 600], "10.0.0.255:9");
        thread::sleep(Duration::from_micros(200));
    }
    running.outcome()
}

/// Runs iproute2's `ip` and returns what it printed.
pub fn ip(arguments: &[&str]) -> String {
    let output = Command::new("ip").args(arguments).output().expect("`ip` (iproute2) is installed");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {}: {error}", arguments.join(" "));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
