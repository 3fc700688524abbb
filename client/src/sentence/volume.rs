//! Why something was not done with a volume.

use petrel_wire::operator::VolumeRefusal;

use super::{Sentence, say};
use crate::units;

/// The sentence for a refusal about volumes.
pub(super) fn volume(reason: &VolumeRefusal) -> Sentence {
    match reason {
        VolumeRefusal::Unknown(volume) => say(
            format!("there is no volume \"{volume}\""),
            "the name of one that is listed",
            "see `petrel volume ls` for what there is, or make it with `petrel volume create`",
        ),
        VolumeRefusal::Taken(volume) => say(
            format!("there is a volume \"{volume}\" already"),
            "a name that is free on this host",
            "choose another name, or `petrel volume rm` that one first",
        ),
        VolumeRefusal::InUse { volume, user } => in_use(volume, user.as_deref()),
        VolumeRefusal::Busy(volume) => say(
            format!("the volume \"{volume}\" is being made, pushed, resized or removed"),
            "a volume that nobody is changing",
            "try again when that is done",
        ),
        VolumeRefusal::Missing(volume) => say(
            format!("the file of the volume \"{volume}\" is missing on the host"),
            "the file that the volume was made as",
            "put it back into the folder of volumes, or `petrel volume rm` it and make it anew",
        ),
        VolumeRefusal::Orphan(volume) => say(
            format!("the host has a file \"{volume}\" among its volumes, but no record of such a volume"),
            "a volume that was made by `petrel volume create`",
            "`petrel volume rm` it, or use another name",
        ),
        VolumeRefusal::Changed(volume) => say(
            format!("the volume \"{volume}\" was changed or removed while it was read"),
            "the same volume from beginning to end",
            "try again",
        ),
        VolumeRefusal::Size { asked, multiple, max } => say(
            format!("a volume cannot have {asked} bytes"),
            format!("a multiple of {multiple} bytes, from {multiple} to {max} ({})", units::size(*max)),
            "give another size",
        ),
        VolumeRefusal::TooSmall { bytes, offered } => say(
            format!("{offered} bytes do not fit into the volume, which has {bytes}"),
            "a file that is no larger than the volume",
            format!("`petrel volume resize` it to at least {} bytes first", offered.next_multiple_of(512)),
        ),
        VolumeRefusal::Space { asked, taken, max } => say(
            format!(
                "the host gives volumes {max} bytes ({}); {taken} are taken, and {asked} more are too many",
                units::size(*max)
            ),
            format!("at most {} more", max.saturating_sub(*taken)),
            "give a smaller size, or remove a volume that is not needed; a push needs the volume's size once more",
        ),
    }
}

fn in_use(volume: &str, user: Option<&str>) -> Sentence {
    let (whom, advice) = match user {
        Some(user) => (
            format!("the unikernel \"{user}\""),
            format!(
                "choose another volume, make a copy with `petrel volume snapshot`, or destroy \"{user}\" first"
            ),
        ),
        None => ("a monitor on the host that is not ours".into(), "choose another volume".into()),
    };
    say(format!("the volume \"{volume}\" belongs to {whom}"), "a volume that no unikernel uses", advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arithmetic_of_space_is_shown() {
        let space = volume(&VolumeRefusal::Space { asked: 2048, taken: 3072, max: 4096 });
        assert!(space.wrong.contains("4096 bytes (4.0 KiB); 3072 are taken, and 2048 more"), "{space}");
        assert_eq!(space.expected, "at most 1024 more");
    }

    #[test]
    fn who_has_a_volume_is_named() {
        let name = |text: &str| text.parse().unwrap();
        let used = volume(&VolumeRefusal::InUse { volume: name("data"), user: Some(name("acme:web")) });
        assert!(used.wrong.ends_with("belongs to the unikernel \"acme:web\""), "{used}");
    }
}
