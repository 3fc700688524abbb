//! `petrel stats`: what unikernels use. The host tells counters; rates are computed here.

use std::collections::BTreeMap;
use std::time::Duration;

use petrel_wire::operator::{Flow, Request, Response, Storage, Usage};
use petrel_wire::{Name, Path};
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::sentence::About;
use crate::session::Session;
use crate::{args, cli, show, units};

/// What a unikernel uses, with its rates if it was seen before.
type Sample = (Usage, Option<Rates>);

/// Prints it once, or again and again.
pub fn run(session: &mut Session, args: &args::Stats) -> Result<u8, Failure> {
    let mut before = BTreeMap::new();
    loop {
        let usages = ask(session, &args.name)?;
        let rates =
            |usage: &Usage| before.get(&usage.name).and_then(|earlier| Rates::between(earlier, usage));
        let samples: Vec<Sample> = usages
            .into_values()
            .map(|usage| {
                let rates = rates(&usage);
                (usage, rates)
            })
            .collect();
        print(&samples, args)?;
        if !args.follow {
            return Ok(0);
        }
        before = samples.into_iter().map(|(usage, _)| (usage.name.clone(), usage)).collect();
        std::thread::sleep(Duration::from_secs(args.interval.into()));
    }
}

/// What those of these names and below them use now, each once; of all when there are none.
fn ask(session: &mut Session, names: &[Name]) -> Result<BTreeMap<Name, Usage>, Failure> {
    let mut all = BTreeMap::new();
    // All, or each of these.
    let paths = if names.is_empty() { vec![None] } else { names.iter().map(Some).collect() };
    for path in paths {
        let about = |error| Failure::about(&error, &About { name: path, image: None });
        let id = session.send(Request::Stats(path.map_or(Path::ROOT, Path::from))).map_err(about)?;
        loop {
            let Response::Stats { page, more } = session.receive(id).map_err(about)? else {
                return Err(cli::stray());
            };
            all.extend(page.into_vec().into_iter().map(|usage| (usage.name.clone(), usage)));
            if !more {
                break;
            }
        }
    }
    Ok(all)
}

fn print(samples: &[Sample], args: &args::Stats) -> Result<(), Failure> {
    let as_json = || samples.iter().map(as_json).collect::<Value>();
    let text = match (args.json.json, args.follow) {
        (true, true) => format!("{}\n", as_json()),
        (true, false) => format!("{:#}\n", as_json()),
        (false, true) => format!("{}\n", rates_table(samples)),
        (false, false) => totals_table(samples),
    };
    cli::print(&text).map(|_| ())
}

/// What a unikernel used between two samples. Amounts are for each second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rates {
    /// 100 is one CPU.
    cpu_percent: u64,
    storage: Option<Storage>,
    received: Flow,
    sent: Flow,
}

impl Rates {
    /// `None` if it was started anew in between.
    fn between(before: &Usage, now: &Usage) -> Option<Self> {
        let elapsed_ms = now.run_ms.checked_sub(before.run_ms).filter(|elapsed_ms| *elapsed_ms > 0)?;
        let rate = |before: u64, now: u64| {
            let per_second = u128::from(now.saturating_sub(before)) * 1000 / u128::from(elapsed_ms);
            u64::try_from(per_second).unwrap_or(u64::MAX)
        };
        let flow = |before: Flow, now: Flow| Flow {
            bytes: rate(before.bytes, now.bytes),
            packets: rate(before.packets, now.packets),
            dropped: rate(before.dropped, now.dropped),
        };
        let storage = before.storage.zip(now.storage).map(|(before, now)| Storage {
            read_bytes: rate(before.read_bytes, now.read_bytes),
            written_bytes: rate(before.written_bytes, now.written_bytes),
        });
        let ((received_before, sent_before), (received, sent)) = (total(before), total(now));
        Some(Self {
            cpu_percent: rate(before.cpu_ms, now.cpu_ms) / 10,
            storage,
            received: flow(received_before, received),
            sent: flow(sent_before, sent),
        })
    }
}

/// What all network devices of a unikernel have received and sent.
fn total(usage: &Usage) -> (Flow, Flow) {
    let add = |one: Flow, other: Flow| Flow {
        bytes: one.bytes.saturating_add(other.bytes),
        packets: one.packets.saturating_add(other.packets),
        dropped: one.dropped.saturating_add(other.dropped),
    };
    let flows = usage.nets.iter().map(|(_, traffic)| (traffic.received, traffic.sent));
    flows.fold(Default::default(), |(received, sent), flow| (add(received, flow.0), add(sent, flow.1)))
}

fn totals_table(samples: &[Sample]) -> String {
    let rows = samples.iter().map(|(usage, _)| {
        let (received, sent) = total(usage);
        let storage = |bytes: fn(&Storage) -> u64| {
            usage.storage.as_ref().map_or("-".into(), |it| units::size(bytes(it)))
        };
        vec![
            usage.name.to_string(),
            units::span(usage.run_ms),
            format!("{}.{:02} s", usage.cpu_ms / 1000, usage.cpu_ms % 1000 / 10),
            memory(usage),
            storage(|it| it.read_bytes),
            storage(|it| it.written_bytes),
            units::size(received.bytes),
            units::size(sent.bytes),
            received.dropped.saturating_add(sent.dropped).to_string(),
        ]
    });
    let heading = ["NAME", "UP", "CPU", "MEMORY", "READ", "WRITTEN", "RECEIVED", "SENT", "DROPPED"];
    show::table(&heading, &rows.collect::<Vec<_>>())
}

fn rates_table(samples: &[Sample]) -> String {
    let rows = samples.iter().map(|(usage, rates)| {
        let told =
            |told: &dyn Fn(&Rates) -> Option<String>| rates.as_ref().and_then(told).unwrap_or("-".into());
        vec![
            usage.name.to_string(),
            units::span(usage.run_ms),
            told(&|rates| Some(format!("{}%", rates.cpu_percent))),
            memory(usage),
            told(&|rates| Some(units::size(rates.storage?.read_bytes))),
            told(&|rates| Some(units::size(rates.storage?.written_bytes))),
            told(&|rates| Some(units::size(rates.received.bytes))),
            told(&|rates| Some(units::size(rates.sent.bytes))),
            told(&|rates| Some(rates.received.dropped.saturating_add(rates.sent.dropped).to_string())),
        ]
    });
    let heading = ["NAME", "UP", "CPU", "MEMORY", "READ/s", "WRITTEN/s", "RECEIVED/s", "SENT/s", "DROPPED/s"];
    show::table(&heading, &rows.collect::<Vec<_>>())
}

fn memory(usage: &Usage) -> String {
    format!("{} of {} MiB", units::size(usage.resident_kib.saturating_mul(1024)), usage.memory_mib)
}

fn as_json((usage, rates): &Sample) -> Value {
    let flow = |flow: Flow| json!({ "bytes": flow.bytes, "packets": flow.packets, "dropped": flow.dropped });
    let nets = usage.nets.iter().map(|(device, traffic)| {
        json!({ "device": &**device, "received": flow(traffic.received), "sent": flow(traffic.sent) })
    });
    let storage = |it: &Storage| json!({ "read_bytes": it.read_bytes, "written_bytes": it.written_bytes });
    json!({
        "name": &*usage.name,
        "run_ms": usage.run_ms,
        "cpu_ms": usage.cpu_ms,
        "memory_mib": usage.memory_mib,
        "resident_kib": usage.resident_kib,
        "storage": usage.storage.as_ref().map(storage),
        "nets": nets.collect::<Vec<_>>(),
        "rates": rates.map(|rates| json!({
            "cpu_percent": rates.cpu_percent,
            "read": rates.storage.map(|it| it.read_bytes),
            "written": rates.storage.map(|it| it.written_bytes),
            "received": rates.received.bytes,
            "sent": rates.sent.bytes,
            "dropped": rates.received.dropped.saturating_add(rates.sent.dropped),
        })),
    })
}

#[cfg(test)]
mod tests {
    use petrel_wire::operator::Traffic;

    use super::*;

    fn usage(run_ms: u64, cpu_ms: u64, bytes: u64) -> Usage {
        let flow = Flow { bytes, packets: 1, dropped: 0 };
        let traffic = Traffic { received: flow, sent: Flow { bytes: 2 * bytes, ..flow } };
        let device = |name: &str| name.parse().unwrap();
        Usage {
            name: "web".parse().unwrap(),
            run_ms,
            cpu_ms,
            memory_mib: 32,
            resident_kib: 5 * 1024,
            storage: Some(Storage { read_bytes: bytes, written_bytes: 0 }),
            nets: vec![(device("a"), traffic), (device("b"), traffic)].try_into().unwrap(),
        }
    }

    #[test]
    fn rates_are_for_each_second_that_it_ran_between() {
        let rates = Rates::between(&usage(1000, 100, 0), &usage(3000, 1100, 4096)).unwrap();
        assert_eq!(rates.cpu_percent, 50);
        assert_eq!((rates.received.bytes, rates.sent.bytes), (4096, 8192), "of both devices");
        assert_eq!(rates.storage.unwrap().read_bytes, 2048);
    }

    #[test]
    fn one_that_was_started_anew_has_no_rates_yet() {
        assert_eq!(Rates::between(&usage(9000, 100, 9), &usage(10, 1, 0)), None);
        assert_eq!(Rates::between(&usage(9, 1, 0), &usage(9, 1, 0)), None);
    }

    #[test]
    fn totals_and_rates_are_told_in_tables() {
        let expected = "\
NAME  UP  CPU     MEMORY             READ     WRITTEN  RECEIVED  SENT     DROPPED
web   3s  1.10 s  5.0 MiB of 32 MiB  4.0 KiB  0 B      8.0 KiB   16.0 KiB  0
";
        let (before, now) = (usage(1000, 100, 0), usage(3000, 1100, 4096));
        let rates = Rates::between(&before, &now);
        let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(squeezed(&totals_table(&[(now.clone(), None)])), squeezed(expected));
        assert!(rates_table(&[(before, None)]).contains("  -"));
        assert!(rates_table(&[(now, rates)]).contains("50%"));
    }
}
