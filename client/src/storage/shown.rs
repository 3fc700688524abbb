//! Volumes and images, for people and as JSON.

use petrel_wire::operator::{StoredImage, Volume, VolumeState};
use serde_json::{Value, json};

use crate::{show, units};

/// What `volume create`, `push` and `resize` print.
pub const VOLUME_FIELDS: &str = "\
Fields of --json:
  name, bytes, disk_bytes (what it takes on the host's disk when that was last asked; null when it never was),
  state: creating|ready|removing|missing|orphan, user (the unikernel that has it, or null)";

/// What `volume ls` prints.
pub const VOLUMES_FIELDS: &str = "\
Prints with --json an array of objects with the fields
  name, bytes, disk_bytes (what it takes on the host's disk; null when that is not known),
  state: creating|ready|removing|missing|orphan, user (the unikernel that has it, or null)";

/// What `volume pull` prints.
pub const PULL_FIELDS: &str = "\
Fields of --json:
  name, file, bytes, consistent (whether the file is what the volume was at one moment)";

/// What `volume snapshot` prints.
pub const SNAPSHOT_FIELDS: &str = "\
Fields of --json: those of `petrel volume ls` of the new volume, and
  consistent (whether it is what the old one was at one moment)";

/// What `image push` prints.
pub const PUSH_FIELDS: &str = "\
Fields of --json:
  digest, bytes";

/// What `image ls` prints.
pub const IMAGES_FIELDS: &str = "\
Prints with --json an array of objects with the fields
  digest, bytes, users (how many unikernels are made of it, or can go back to it), names (the first of those)";

/// What `image gc` prints.
pub const COLLECTED_FIELDS: &str = "\
Fields of --json:
  images (how many were deleted), bytes (how many they took)";

/// What `get` prints.
pub const GET_FIELDS: &str = "\
Fields of --json:
  digest, bytes, file";

/// A volume as JSON.
pub fn volume_json(volume: &Volume) -> Value {
    json!({
        "name": &*volume.name,
        "bytes": volume.bytes,
        "disk_bytes": volume.disk_bytes,
        "state": state(volume.state),
        "user": volume.user.as_deref(),
    })
}

/// A volume on one line.
pub fn volume_line(volume: &Volume) -> String {
    format!("{} {}, {}\n", volume.name, state(volume.state), units::size(volume.bytes))
}

/// All volumes.
pub fn volumes(volumes: &[Volume]) -> String {
    let rows = volumes.iter().map(|volume| {
        vec![
            volume.name.to_string(),
            units::size(volume.bytes),
            volume.disk_bytes.map_or("?".into(), units::size),
            state(volume.state).into(),
            volume.user.as_deref().unwrap_or("-").into(),
        ]
    });
    show::table(&["NAME", "SIZE", "ON DISK", "STATE", "USED BY"], &rows.collect::<Vec<_>>())
}

/// An image as JSON.
pub fn image_json(image: &StoredImage) -> Value {
    let names: Vec<_> = image.names.iter().map(|name| &**name).collect();
    json!({ "digest": image.digest, "bytes": image.bytes, "users": image.users, "names": names })
}

/// All images. Digests are whole, since commands take them.
pub fn images(images: &[StoredImage]) -> String {
    let rows = images.iter().map(|image| {
        let mut users = image.names.iter().map(|name| name.to_string()).collect::<Vec<_>>().join(", ");
        match usize::try_from(image.users).unwrap_or(usize::MAX).saturating_sub(image.names.len()) {
            0 if users.is_empty() => users.push('-'),
            0 => {}
            more => users.push_str(&format!(" and {more} more")),
        }
        vec![format!("{:?}", image.digest), units::size(image.bytes), users]
    });
    show::table(&["DIGEST", "SIZE", "USED BY"], &rows.collect::<Vec<_>>())
}

/// How a volume is, in one word.
fn state(state: VolumeState) -> &'static str {
    match state {
        VolumeState::Creating => "creating",
        VolumeState::Ready => "ready",
        VolumeState::Removing => "removing",
        VolumeState::Missing => "missing",
        VolumeState::Orphan => "orphan",
    }
}

#[cfg(test)]
mod tests {
    use petrel_wire::Digest;

    use super::*;

    #[test]
    fn volumes_are_listed_with_what_is_known_of_them() {
        let volume = |name: &str, disk_bytes, state, user: Option<&str>| Volume {
            name: name.parse().unwrap(),
            bytes: 1 << 20,
            disk_bytes,
            state,
            user: user.map(|user| user.parse().unwrap()),
        };
        let all = [
            volume("acme:data", Some(4096), VolumeState::Ready, Some("acme:web")),
            volume("b", None, VolumeState::Missing, None),
        ];
        let expected = "\
NAME       SIZE     ON DISK  STATE    USED BY
acme:data  1.0 MiB  4.0 KiB  ready    acme:web
b          1.0 MiB  ?        missing  -
";
        assert_eq!(volumes(&all), expected);
    }

    #[test]
    fn users_that_are_not_named_are_counted() {
        let names = vec!["a".parse().unwrap(), "b".parse().unwrap()].try_into().unwrap();
        let image = StoredImage { digest: Digest([0xab; 32]), bytes: 1024, users: 5, names };
        let listed = images(&[image]);
        assert!(listed.ends_with("1.0 KiB  a, b and 3 more\n"), "{listed}");
        assert!(listed.contains(&format!("sha256:{}", "ab".repeat(32))), "{listed}");
    }
}
