//! What is wrong in `shim.toml` is said before anything is done.

use std::fs;

use crate::support::{Site, inside};

#[test]
fn given_a_configuration_that_cannot_be_right_when_the_shim_starts_then_it_says_what_is_wrong() {
    inside(
        "configuration::given_a_configuration_that_cannot_be_right_when_the_shim_starts_then_it_says_what_is_wrong",
        || {
            let mut site = Site::up();
            site.kill_shim();
            fs::write(site.folder.join("junk"), "junk").unwrap();
            for (old, new, said) in [
                ("state_dir", "state_folder", "state_folder"),
                ("\"service\"]", "\"a/b\"]", "bridges"),
                ("shim-key.der", "nowhere.der", "nowhere.der: No such file"),
                ("shim-key.der", "junk", "key: expected PKCS #8 DER"),
                ("169.254.25.1:1026", "169.254.25.1", "listen"),
                ("path = \"monitor\"", "path = \"nowhere\"", "nowhere: No such file"),
                ("path = \"monitor\"", "path = \"/bin/true\"", "/bin/true --probe: not understood"),
            ] {
                let refusal = site.refusal(old, new);
                assert!(refusal.contains(said), "{refusal}");
                assert!(!refusal.contains("listening on"), "{refusal}");
            }
        },
    );
}

#[test]
fn given_root_when_the_shim_has_no_users_for_monitors_then_it_does_not_start() {
    inside(
        "configuration::given_root_when_the_shim_has_no_users_for_monitors_then_it_does_not_start",
        || {
            let mut site = Site::up();
            site.kill_shim();
            let users = "uids = { start = 300000, end = 301999 }";
            if !fs::read_to_string(site.folder.join("shim.toml")).unwrap().contains(users) {
                return; // this test runs in a namespace of one user
            }
            for bad in ["", "uids = { start = 0, end = 9999 }", "uids = { start = 300000, end = 301024 }"] {
                let refusal = site.refusal(users, bad);
                assert!(refusal.contains("uids: expected"), "{refusal}");
            }
        },
    );
}
