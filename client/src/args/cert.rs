//! `petrel cert`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use petrel_wire::operator::{Revocable, Rights, Serial};
use petrel_wire::{Label, Path};

use super::{Json, Limits, label};

/// What to do about certificates. Only `revoke` and `revoked` talk to a host.
#[derive(Debug, Subcommand)]
pub enum CertCommand {
    /// Make a key, and a request to have it certified
    ///
    /// Makes NAME-key.pem, which stays with its owner, and NAME.csr, which goes to who signs it.
    Request {
        /// Who asks: an operator's name, or the label of a CA
        #[arg(value_parser = label)]
        name: Label,
        /// Use the key in this file instead of making one
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
        /// The folder for the files; the current one when absent
        #[arg(long, value_name = "DIR", default_value = ".")]
        dir: PathBuf,
    },
    /// Sign the certificate of a CA, which may itself certify operators and CAs below its label
    Delegate(Delegate),
    /// Sign an operator's certificate
    Sign(Sign),
    /// Sign a certificate anew: all that it says stays, but for its number and its validity
    Renew(Renew),
    /// Have a host refuse certificates from now on, and end the sessions that they opened
    #[command(after_help = crate::json::REVOKE_FIELDS)]
    Revoke(Revoke),
    /// List what is revoked on a host
    #[command(after_help = crate::json::REVOKED_FIELDS)]
    Revoked(Json),
    /// Show what certificates say
    #[command(after_help = crate::json::CERT_FIELDS)]
    Show {
        /// The file with a certificate, or a chain of them; that of the profile when absent
        file: Option<PathBuf>,
        /// How to print it
        #[command(flatten)]
        json: Json,
    },
}

/// The CA that signs.
#[derive(Debug, Args)]
pub struct Authority {
    /// The CA's certificate, followed by those of the CAs above it
    #[arg(long, value_name = "FILE", default_value = "ca.pem")]
    pub ca: PathBuf,
    /// The CA's key; by default the file beside it that is called so with -key (ca-key.pem)
    #[arg(long, value_name = "FILE")]
    pub ca_key: Option<PathBuf>,
}

/// What `delegate` takes.
#[derive(Debug, Args)]
#[command(
    after_help = "A certificate's policy is albatross's: it sets every limit. So with one of them --unikernels, --mem and --cpu\n\
                  must be given; without --bridge no bridge may be used, without --volume-space no volume. With none of\n\
                  them the certificate has no policy, and limits nothing."
)]
pub struct Delegate {
    /// The label that all names below this CA will have in front
    #[arg(value_parser = label)]
    pub label: Label,
    /// The request, as `petrel cert request` or another program makes it (PKCS #10, PEM)
    #[arg(long, value_name = "FILE")]
    pub csr: PathBuf,
    /// The policy
    #[command(flatten)]
    pub limits: Limits,
    /// What its holders may do, of read, operate, delegate; what the CA itself may do when absent
    #[arg(long, value_name = "RIGHT,…", value_delimiter = ',')]
    pub rights: Vec<RightArg>,
    /// For how many days it is valid
    #[arg(long, value_name = "N", default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=36525))]
    pub days: u32,
    /// Who signs
    #[command(flatten)]
    pub authority: Authority,
    /// The file to make; the request's with .pem when absent
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// What `sign` takes.
#[derive(Debug, Args)]
pub struct Sign {
    /// The request, as `petrel cert request` or another program makes it (PKCS #10, PEM)
    #[arg(long, value_name = "FILE")]
    pub csr: PathBuf,
    /// What the operator is called; what the request says when absent
    #[arg(long, value_parser = label)]
    pub name: Option<Label>,
    /// What the operator may do, of read, operate, delegate; what the CA itself may do when absent
    #[arg(long, value_name = "RIGHT,…", value_delimiter = ',')]
    pub rights: Vec<RightArg>,
    /// For how many hours it is valid
    #[arg(long, value_name = "N", default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=876_600))]
    pub hours: u32,
    /// Who signs
    #[command(flatten)]
    pub authority: Authority,
    /// The file to make; the request's with .pem when absent
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// What `renew` takes.
#[derive(Debug, Args)]
pub struct Renew {
    /// The certificate; its file is replaced
    pub file: PathBuf,
    /// For how many hours it is valid; as long as before when absent
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=876_600))]
    pub hours: Option<u32>,
    /// Who signs
    #[command(flatten)]
    pub authority: Authority,
}

/// What `revoke` takes.
#[derive(Debug, Args)]
pub struct Revoke {
    /// A serial number in hexadecimal, or the file of a certificate: then all certificates for its key
    #[arg(value_name = "SERIAL|FILE", value_parser = revoked)]
    pub what: RevokedArg,
    /// Only certificates that the CA of this path, or one below it, has signed
    #[arg(long, default_value_t = Path::ROOT)]
    pub path: Path,
    /// How to print it
    #[command(flatten)]
    pub json: Json,
}

/// What is revoked, as it is given on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RevokedArg {
    /// All with this number.
    This(Revocable),
    /// All for the key of the certificate in this file.
    KeyIn(PathBuf),
}

/// A right on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RightArg {
    /// To see what there is
    Read,
    /// To change what there is
    Operate,
    /// To set policies and revoke certificates
    Delegate,
}

/// The rights that were given, if any were.
pub fn rights(given: &[RightArg]) -> Option<Rights> {
    let has = |right| given.contains(&right);
    let rights = Rights {
        read: has(RightArg::Read),
        operate: has(RightArg::Operate),
        delegate: has(RightArg::Delegate),
    };
    (!given.is_empty()).then_some(rights)
}

/// A text of hexadecimal digits, colons between them or not, is a serial number, all else a file.
fn revoked(text: &str) -> Result<RevokedArg, String> {
    let digits: String = text.chars().filter(|&c| c != ':').collect();
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(RevokedArg::KeyIn(text.into()));
    }
    let digits = digits.trim_start_matches('0');
    let padded = format!("{}{digits}", "0".repeat(digits.len() % 2));
    let bytes = (0..padded.len()).step_by(2).map(|at| u8::from_str_radix(&padded[at..at + 2], 16));
    let bytes: Vec<u8> = bytes.collect::<Result<_, _>>().map_err(|error| error.to_string())?;
    let serial =
        Serial::try_from(bytes).map_err(|error| format!("a serial number has at most {} bytes", error.max));
    serial.map(|serial| RevokedArg::This(Revocable::Serial(serial)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_digits_are_a_serial_number_and_all_else_is_a_file() {
        let serial = |bytes: &[u8]| Ok(RevokedArg::This(Revocable::Serial(bytes.try_into().unwrap())));
        assert_eq!(revoked("0a1B"), serial(&[0x0a, 0x1b]));
        assert_eq!(revoked("00:f1:1b"), serial(&[0xf1, 0x1b]));
        assert_eq!(revoked("00"), serial(&[]));
        assert_eq!(revoked("ada.pem"), Ok(RevokedArg::KeyIn("ada.pem".into())));
        assert_eq!(revoked("./abba"), Ok(RevokedArg::KeyIn("./abba".into())));
        assert!(revoked(&"ab".repeat(21)).is_err());
    }
}
