//! A host's folder made by `petrel init`, and the program run against it.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use petrel_wire::seal::Seal;

use crate::solo5;

/// A folder of our own with what `petrel init` made in `site`.
pub struct Site {
    pub folder: tempfile::TempDir,
    /// Where the profile says that the control plane is.
    pub listener: TcpListener,
}

/// The program, with no profile of this machine's user in reach.
pub fn petrel() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_petrel"));
    command.env_clear();
    command
}

impl Site {
    /// A host `alpha` on loopback.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let site = Self { folder, listener };
        let output = site.init(&["--no-profile"]).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        site
    }

    /// The command that makes the site, with further arguments.
    pub fn init(&self, more: &[&str]) -> Command {
        let control_plane =
            [("service", solo5::NET), ("shim", solo5::NET), ("seal", solo5::BLOCK), ("state", solo5::BLOCK)];
        std::fs::write(self.path("petrel.hvt"), solo5::image(&control_plane, 0)).unwrap();
        std::fs::write(self.path("petrel-tender"), "").unwrap();
        let port = self.listener.local_addr().unwrap().port().to_string();
        let mut command = petrel();
        command.arg("init").arg(self.path("site")).args(["--host", "alpha", "--ipv4", "127.0.0.1/8"]);
        command.args(["--port", &port]).arg("--image").arg(self.path("petrel.hvt"));
        command.arg("--tender").arg(self.path("petrel-tender")).args(more);
        command
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The client with this site's profile.
    pub fn petrel(&self, arguments: &[&str]) -> Command {
        let mut command = petrel();
        command
            .arg("--profile")
            .arg(self.path("site/profile"))
            .args(arguments)
            .current_dir(self.folder.path());
        command
    }

    pub fn profile(&self) -> petrel::Profile {
        petrel::Profile::load(&self.path("site/profile")).unwrap()
    }

    pub fn seal(&self) -> Seal {
        Seal::decode(&std::fs::read(self.path("site/host/seal.img")).unwrap()).unwrap()
    }
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// The one line that a failing command says, and its exit code.
pub fn failure(command: &mut Command) -> (i32, String) {
    let output = command.output().unwrap();
    let said = stderr(&output);
    assert!(said.starts_with("petrel: "), "{said:?}");
    assert_eq!(said.lines().count(), 1, "{said:?}");
    assert_eq!(stdout(&output), "");
    (output.status.code().unwrap(), said)
}

/// All that is below a folder, relative to it and sorted.
pub fn tree(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            found.push(path.strip_prefix(folder).unwrap().to_str().unwrap().to_string());
            if path.is_dir() {
                open.push(path);
            }
        }
    }
    found.sort();
    found
}
