//! A manifest, as `petrel apply` reads it.

use std::path::Path;

use petrel::manifest;

pub fn feed(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    // Files that it names are of no matter here: what is read of them is another target's.
    if !text.contains('/') {
        let _ = manifest::parse(Path::new("/nowhere/site.toml"), text);
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    let image = "image = \"sha256:".to_string() + &"5a".repeat(32) + "\"\n";
    let all = "mem = 48\ncpu = [0, 1]\nnet = [\"service=br0\"]\nblock = [\"data=acme:data\"]\narg = [\"--ipv4=10.0.0.1\"]\n\
               restart = \"on-failure\"\nexit-code = [1, 255]\nafter = [\"db\"]\nready = \"console:up\"\n\
               alive = \"tcp:10.0.0.1:80\"\nalive-every = 3\nalive-failures = 2\n";
    let two = format!("[unikernel.web]\n{image}{all}\n[unikernel.\"acme:db\"]\n{image}");
    let volumes = format!(
        "[volume.\"acme:data\"]\nsize = \"1G\"\n[volume.log]\nsize = \"512\"\n[unikernel.db]\n{image}block = [\"data=log\"]\n"
    );
    let cycle = format!("[unikernel.a]\n{image}after = [\"b\"]\n[unikernel.b]\n{image}after = [\"a\"]\n");
    [two, volumes, cycle].map(String::into_bytes).into()
}
