//! How long nobody serves while a unikernel is updated.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use petrel_tests::image;

use crate::{petrel, run};

const ADDRESS: &str = "10.99.0.10:80";
const ROUNDS: usize = 5;
/// How long one try may take, and how long the next one waits.
const TRY: Duration = Duration::from_millis(50);
const PAUSE: Duration = Duration::from_millis(1);

pub fn updates() {
    let ready = format!("http:{ADDRESS}/");
    let web = image("web.hvt");
    let create =
        ["create", "web", &web, "--net", "service=service", "--arg=--ipv4=10.99.0.10/24", "--ready", &ready];
    run(&mut petrel(&create));
    println!("\n{:<52} {:>10} {:>10}", "a web server is updated: time without service", "median", "longest");
    let crash = image("crash.hvt");
    let updates: [(&str, &[&str]); 4] = [
        ("to one that gets ready", &["--mem", "40"]),
        ("to one that exits, and back", &["--no-args"]),
        ("to one that is not ready within 1 s, and back", &["--arg=--ipv4=10.99.0.77/24", "--window", "1"]),
        ("to one with other devices: refused at once", &[&crash]),
    ];
    for (what, change) in updates {
        let mut gaps: Vec<_> = (0..ROUNDS).map(|_| gap(&[&["update", "web"], change].concat())).collect();
        gaps.sort_unstable();
        let ms = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1e3);
        println!("{what:<52} {:>10} {:>10}", ms(gaps[ROUNDS / 2]), ms(gaps[ROUNDS - 1]));
    }
    run(&mut petrel(&["destroy", "web"]));
}

/// The longest time without an answer, from before the command until after it.
fn gap(command: &[&str]) -> Duration {
    until_served();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| longest_gap(&over));
        std::thread::sleep(50 * PAUSE);
        let _ = petrel(command).output().expect("it runs");
        until_served();
        over.store(true, Ordering::Relaxed);
        watch.join().expect("it watched")
    })
}

fn until_served() {
    while !is_served() {
        std::thread::sleep(PAUSE);
    }
}

fn longest_gap(over: &AtomicBool) -> Duration {
    let (mut longest, mut last) = (Duration::ZERO, Instant::now());
    while !over.load(Ordering::Relaxed) {
        let start = Instant::now();
        if is_served() {
            longest = longest.max(start - last);
            last = Instant::now();
        }
        std::thread::sleep(PAUSE);
    }
    longest.max(last.elapsed())
}

fn is_served() -> bool {
    let address: SocketAddr = ADDRESS.parse().expect("an address");
    let served = TcpStream::connect_timeout(&address, TRY).and_then(|mut stream| {
        stream.set_read_timeout(Some(TRY))?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")?;
        let mut start = [0; 12];
        stream.read_exact(&mut start)?;
        Ok(start)
    });
    served.is_ok_and(|start| start.ends_with(b" 200"))
}
