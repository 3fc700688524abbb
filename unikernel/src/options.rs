//! The command line, in MirageOS's words.

use core::fmt;
use core::net::Ipv4Addr;
use core::str::FromStr;

use petrel_engine::Level;
use petrel_wire::seal::Addressing;
use solo5::args::{CidrError, Command, Ipv4Cidr, Opt, Options, Usage};

use crate::boot::Overrides;
use crate::log::SOURCE;

/// What petrel.hvt can be told.
pub static COMMAND: Command = Command {
    name: "petrel",
    about: "Petrel's control plane. What it is stands in its seal; these say otherwise.",
    options: &[
        Opt { long: "ipv4", short: None, value: "CIDR|dhcp", help: "Its address on net \"service\"." },
        Opt { long: "ipv4-gateway", short: None, value: "IP", help: "The gateway there." },
        Opt { long: "name", short: None, value: "NAME", help: "What the host is called." },
        Opt {
            long: "logs",
            short: Some('l'),
            value: "LEVEL",
            help: "What to log: quiet, error, warning, info (the default) or debug; also as *:LEVEL.",
        },
    ],
};

/// Reads the values: what replaces the seal's, and down to which level to log, if at all.
///
/// # Errors
/// When a value is not what its option takes.
pub fn read(options: &Options) -> Result<(Overrides, Option<Level>), Usage> {
    let overrides = Overrides {
        addressing: options.value("ipv4")?.map(|Ipv4(addressing)| addressing),
        gateway: options.value::<Ipv4Addr>("ipv4-gateway")?,
        name: options.value("name")?,
    };
    let mut threshold = Some(Level::Info);
    for text in options.all("logs").flat_map(|list| list.split(',')) {
        let (source, level) = text.rsplit_once(':').unwrap_or(("*", text));
        let level = level_named(level).ok_or_else(|| {
            options.error(alloc::format!(
                "option '--logs': invalid value '{text}', expected quiet, error, warning, info or debug"
            ))
        })?;
        // Other unikernels have other sources; a level for one of those changes nothing here.
        if source == "*" || source == SOURCE {
            threshold = level;
        }
    }
    Ok((overrides, threshold))
}

/// What `--ipv4` takes.
struct Ipv4(Addressing);

/// It is not that.
struct NeitherCidrNorDhcp(CidrError);

impl FromStr for Ipv4 {
    type Err = NeitherCidrNorDhcp;

    fn from_str(text: &str) -> Result<Self, NeitherCidrNorDhcp> {
        if text == "dhcp" {
            return Ok(Self(Addressing::Dhcp));
        }
        let cidr: Ipv4Cidr = text.parse().map_err(NeitherCidrNorDhcp)?;
        Ok(Self(Addressing::Static { ipv4: (cidr.address(), cidr.prefix_len()), gateway: None }))
    }
}

impl fmt::Display for NeitherCidrNorDhcp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, or dhcp", self.0)
    }
}

/// The level of this name; `Some(None)` is silence.
fn level_named(name: &str) -> Option<Option<Level>> {
    Some(match name {
        "quiet" | "-" => None,
        "error" => Some(Level::Error),
        "warning" => Some(Level::Warning),
        "info" => Some(Level::Info),
        "debug" => Some(Level::Debug),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use solo5::args::split;

    use super::*;

    fn parse(line: &str) -> Result<(Overrides, Option<Level>), Usage> {
        COMMAND.parse_words(split(line).unwrap()).and_then(|options| read(&options))
    }

    #[test]
    fn given_mirageos_arguments_then_they_override_the_seal() {
        let line = "--ipv4=10.0.0.9/24 --ipv4-gateway 10.0.0.1 --name beta -l debug";
        let (overrides, threshold) = parse(line).unwrap();
        let ipv4 = (Ipv4Addr::new(10, 0, 0, 9), 24);
        assert_eq!(overrides.addressing, Some(Addressing::Static { ipv4, gateway: None }));
        assert_eq!(overrides.gateway, Some(Ipv4Addr::new(10, 0, 0, 1)));
        assert_eq!(overrides.name.as_deref(), Some("beta"));
        assert_eq!(threshold, Some(Level::Debug));
    }

    #[test]
    fn an_address_may_be_left_to_dhcp() {
        assert_eq!(parse("--ipv4=dhcp").unwrap().0.addressing, Some(Addressing::Dhcp));
        let usage = parse("--ipv4=bootp").err().unwrap();
        assert!(format!("{usage}").contains("like 10.0.0.2/24, or dhcp"), "{usage}");
    }

    #[test]
    fn levels_are_taken_in_all_of_logs_forms() {
        for (line, expected) in [
            ("", Some(Level::Info)),
            ("-l quiet", None),
            ("-l *:error", Some(Level::Error)),
            ("--logs=*:debug,application:warning", Some(Level::Warning)),
            ("-l netif:debug", Some(Level::Info)),
            ("-l *:-", None),
        ] {
            assert_eq!(parse(line).unwrap().1, expected, "{line}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        for line in ["-l loud", "--ipv4 10.0.0.9", "--ipv4-gateway there", "--name a/b", "--nonsense"] {
            let usage = parse(line).err().unwrap();
            assert_eq!(usage.status(), solo5::Status::USAGE, "{line}");
            assert!(format!("{usage}").contains("petrel: "), "{usage}");
        }
    }
}
