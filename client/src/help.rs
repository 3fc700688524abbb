//! What `--help` and the manual pages show beside the arguments.

use std::path::Path;

use clap::{Command, CommandFactory};

use crate::args::Cli;
use crate::failure::Failure;

/// Examples, by command. Each is a command line that is understood: a test holds them to that.
const EXAMPLES: &[(&str, &[&str])] = &[
    (
        "init",
        &[
            "petrel init site --host alpha --ipv4 192.0.2.10/24 --bridge service",
            "petrel init site --host alpha --ipv4 dhcp --appliance",
        ],
    ),
    ("inspect", &["petrel inspect web.hvt"]),
    (
        "create",
        &[
            "petrel create hello hello.hvt --arg world --wait",
            "petrel create acme:web web.hvt --net service=br0 --arg=--ipv4=192.0.2.20/24 --restart on-failure",
            "petrel create db db.hvt --mem 256 --cpu 1 --block data=acme:data --ready console:listening",
        ],
    ),
    (
        "console",
        &["petrel console web -f", "petrel console web --since 15m --times", "petrel console web --tail 20"],
    ),
    ("events", &["petrel events -f", "petrel events --since 1h --name acme --kind exited"]),
    ("stats", &["petrel stats", "petrel stats acme -f --interval 5"]),
    ("restart", &["petrel restart web", "petrel restart web --mem 64 --arg=--ipv4=192.0.2.21/24"]),
    ("update", &["petrel update web new.hvt --window 10", "petrel update web --mem 64"]),
    ("rollback", &["petrel rollback web", "petrel rollback web 3"]),
    ("apply", &["petrel apply site.toml --dry-run", "petrel apply site.toml --prune"]),
    ("diff", &["petrel diff site.toml"]),
    ("get", &["petrel get web --output web.hvt"]),
    ("volume create", &["petrel volume create acme:data 1G"]),
    ("volume push", &["petrel volume push acme:data data.img"]),
    ("volume pull", &["petrel volume pull acme:data data.img"]),
    ("volume snapshot", &["petrel volume snapshot acme:data acme:data-monday"]),
    ("volume resize", &["petrel volume resize acme:data 2G"]),
    ("appliance log", &["petrel appliance log"]),
    ("appliance sign", &["petrel appliance sign site out/appliance/petrel.efi new.efi"]),
    ("appliance upgrade", &["petrel appliance upgrade new.efi"]),
    ("seal", &["petrel seal site alpha.img --uplink service=52:54:00:12:34:56"]),
    ("image push", &["petrel image push web.hvt"]),
    ("policy set", &["petrel policy set acme --unikernels 10 --mem 512 --cpu 0 --cpu 1 --bridge service"]),
    ("policy ls", &["petrel policy ls acme"]),
    ("cert request", &["petrel cert request olga"]),
    (
        "cert delegate",
        &[
            "petrel cert delegate acme --csr acme.csr --ca ca.pem --unikernels 10 --mem 512 --cpu 0 --bridge service",
        ],
    ),
    ("cert sign", &["petrel cert sign --csr olga.csr --ca acme.pem --hours 24 --rights read,operate"]),
    ("cert renew", &["petrel cert renew olga.pem --ca acme.pem"]),
    ("cert revoke", &["petrel cert revoke olga.pem", "petrel cert revoke 5a:03:77 --path acme"]),
    ("state export", &["petrel state export alpha.state"]),
    ("state import", &["petrel state import alpha.state"]),
    ("completions", &["petrel completions bash > ~/.local/share/bash-completion/completions/petrel"]),
    ("man", &["petrel man ~/.local/share/man/man1"]),
];

/// The commands, with their examples.
pub fn command() -> Command {
    with_examples(Cli::command(), "")
}

fn with_examples(command: Command, above: &str) -> Command {
    let command = command.mut_subcommands(|sub| {
        let path = format!("{above} {}", sub.get_name());
        with_examples(sub, path.trim_start())
    });
    let Some((_, lines)) = EXAMPLES.iter().find(|(path, _)| *path == above) else { return command };
    let mut help = format!("Examples:\n  {}", lines.join("\n  "));
    if let Some(rest) = command.get_after_help() {
        help = format!("{help}\n\n{rest}");
    }
    command.after_help(help)
}

/// `petrel man`: writes a page for each command.
pub fn man(folder: &Path) -> Result<u8, Failure> {
    let written = std::fs::create_dir_all(folder).and_then(|()| clap_mangen::generate_to(command(), folder));
    written.map(|()| 0).map_err(|error| {
        Failure::local(
            format!("the manual pages cannot be written to {} ({error})", folder.display()),
            "a folder that can be written to",
            "name another one, or correct its owner and mode",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All commands that there are, each with its path.
    fn all(command: &Command, above: &str) -> Vec<(String, Command)> {
        let below = command.get_subcommands().filter(|sub| sub.get_name() != "help");
        let below = below.flat_map(|sub| all(sub, format!("{above} {}", sub.get_name()).trim_start()));
        std::iter::once((above.to_string(), command.clone())).chain(below).collect()
    }

    #[test]
    fn each_command_says_what_it_does_and_what_each_of_its_arguments_means() {
        let all = all(&command(), "");
        assert!(all.len() > 40, "{}", all.len());
        for (path, command) in all {
            assert!(command.get_about().is_some(), "`petrel {path}` does not say what it does");
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "`petrel {path}` does not say what {argument} means");
            }
        }
    }

    #[test]
    fn examples_are_of_commands_that_there_are_and_are_understood() {
        let all = all(&command(), "");
        for (path, lines) in EXAMPLES {
            assert!(all.iter().any(|(other, _)| other == path), "there is no command {path}");
            for line in *lines {
                assert!(line.starts_with(&format!("petrel {path}")), "{line}");
                // What follows is the shell's.
                let words = line.split(" > ").next().unwrap_or_default().split(' ');
                let understood = command().try_get_matches_from(words);
                assert!(understood.is_ok(), "{line}: {}", understood.unwrap_err());
            }
        }
    }

    #[test]
    fn help_shows_the_examples_before_the_fields() {
        let mut command = command();
        let create = command.find_subcommand_mut("create").unwrap().render_long_help().to_string();
        let (examples, fields) = (create.find("petrel create hello"), create.find("Fields of --json"));
        assert!(examples.is_some() && examples < fields, "{create}");
    }

    #[test]
    fn there_is_a_manual_page_for_each_command() {
        let folder = tempfile::tempdir().unwrap();
        man(folder.path()).ok().unwrap();
        for (path, _) in all(&command(), "") {
            let page = format!("petrel {path}").trim_end().replace(' ', "-") + ".1";
            let text = std::fs::read_to_string(folder.path().join(&page)).unwrap_or_default();
            assert!(text.contains(".SH SYNOPSIS"), "{page} is missing");
        }
    }
}
