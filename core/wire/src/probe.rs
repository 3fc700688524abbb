//! What shows that a unikernel does its work.

use alloc::string::String;
use core::fmt;
use core::net::Ipv4Addr;
use core::ops::Deref;
use core::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::limits::PROBE_BYTES_MAX;

/// What shows that a unikernel does its work. As text: `console:TEXT`, `tcp:ADDRESS:PORT` or
/// `http:ADDRESS:PORT/PATH`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Probe {
    /// It wrote this to its console.
    Console(ConsoleText),
    /// It takes a TCP connection.
    Tcp {
        /// Where.
        address: Ipv4Addr,
        /// At which port.
        port: u16,
    },
    /// It answers an HTTP GET with a status of 200 to 399.
    Http {
        /// Where.
        address: Ipv4Addr,
        /// At which port.
        port: u16,
        /// For what.
        path: HttpPath,
    },
}

/// Why a text is not a [`Probe`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeError {
    /// It begins with none of the three words.
    Kind,
    /// What follows is no address with a port.
    Endpoint,
    /// The text or the path is empty, too long or has a character that it must not have.
    Text,
}

impl fmt::Display for ProbeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kind => f.write_str("expected console:TEXT, tcp:ADDRESS:PORT or http:ADDRESS:PORT/PATH"),
            Self::Endpoint => f.write_str("expected an IPv4 address and a port, as 10.0.0.10:80"),
            Self::Text => write!(
                f,
                "expected 1 to {PROBE_BYTES_MAX} characters: no control characters, in a path only visible ASCII"
            ),
        }
    }
}

impl core::error::Error for ProbeError {}

impl FromStr for Probe {
    type Err = ProbeError;

    fn from_str(text: &str) -> Result<Self, ProbeError> {
        let (kind, rest) = text.split_once(':').ok_or(ProbeError::Kind)?;
        match kind {
            "console" => rest.parse().map(Self::Console),
            "tcp" => endpoint(rest).map(|(address, port)| Self::Tcp { address, port }),
            "http" => {
                let (at, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
                let (address, port) = endpoint(at)?;
                let path = if path.is_empty() { "/" } else { path }.parse()?;
                Ok(Self::Http { address, port, path })
            }
            _ => Err(ProbeError::Kind),
        }
    }
}

fn endpoint(text: &str) -> Result<(Ipv4Addr, u16), ProbeError> {
    let (address, port) = text.split_once(':').ok_or(ProbeError::Endpoint)?;
    let port: u16 = port.parse().map_err(|_| ProbeError::Endpoint)?;
    let address = address.parse().map_err(|_| ProbeError::Endpoint)?;
    if port == 0 { Err(ProbeError::Endpoint) } else { Ok((address, port)) }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Console(text) => write!(f, "console:{}", &**text),
            Self::Tcp { address, port } => write!(f, "tcp:{address}:{port}"),
            Self::Http { address, port, path } => write!(f, "http:{address}:{port}{}", &**path),
        }
    }
}

fn check_text(text: &str) -> bool {
    (1..=PROBE_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// Nothing in it can end the request's line.
fn check_path(text: &str) -> bool {
    text.len() <= PROBE_BYTES_MAX && text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic())
}

macro_rules! probe_text {
    ($(#[$doc:meta])* $name:ident, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name(String);

        impl FromStr for $name {
            type Err = ProbeError;
            fn from_str(text: &str) -> Result<Self, ProbeError> {
                if $check(text) { Ok(Self(text.into())) } else { Err(ProbeError::Text) }
            }
        }

        impl Deref for $name {
            type Target = str;
            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    };
}

probe_text! {
    /// What a unikernel writes to its console, somewhere in a line.
    ConsoleText, check_text
}
probe_text! {
    /// The path of a URL, with its query.
    HttpPath, check_path
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn a_probe_is_read_as_it_is_shown() {
        for text in ["console:listening on: 80", "tcp:10.0.0.10:22", "http:10.0.0.10:8080/health?deep=1"] {
            assert_eq!(text.parse::<Probe>().unwrap().to_string(), text);
        }
        assert_eq!("http:10.0.0.10:80".parse::<Probe>().unwrap().to_string(), "http:10.0.0.10:80/");
    }

    #[test]
    fn what_is_no_probe_is_refused() {
        let cases = [
            ("", ProbeError::Kind),
            ("ping:10.0.0.1", ProbeError::Kind),
            ("console:", ProbeError::Text),
            ("console:a\nb", ProbeError::Text),
            ("tcp:10.0.0.10", ProbeError::Endpoint),
            ("tcp:10.0.0.10:0", ProbeError::Endpoint),
            ("tcp:web:80", ProbeError::Endpoint),
            ("http:10.0.0.10:80/a b", ProbeError::Text),
            ("http:10.0.0.10:80/\r\nHost:x", ProbeError::Text),
            ("http:10.0.0.10/", ProbeError::Endpoint),
        ];
        for (text, error) in cases {
            assert_eq!(text.parse::<Probe>(), Err(error), "{text:?}");
        }
    }

    #[test]
    fn a_path_that_ends_the_requests_line_does_not_decode() {
        let bytes = postcard::to_allocvec("/\r\n").unwrap();
        assert!(postcard::from_bytes::<HttpPath>(&bytes).is_err());
    }
}
