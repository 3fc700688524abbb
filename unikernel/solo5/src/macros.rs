//! The macros that make a program a guest.
//!
//! The `unsafe` attributes in their expansions are this crate's: rustc reports `unsafe_code` where an attribute
//! was written, so a guest that forbids it can still use them.

/// Declares the devices of a guest: `manifest! { net "service", block "data" }`, or `manifest! {}` for none.
///
/// Names are 1 to 67 ASCII letters and digits. A guest declares exactly one manifest; the tender must be given
/// exactly these devices.
#[macro_export]
macro_rules! manifest {
    ($($kind:ident $name:literal),* $(,)?) => {
        const _: () = {
            use $crate::__private::{Entry, Mft1Note, note_words};
            const ENTRIES: usize = 1 + <[&str]>::len(&[$($name),*]);
            const WORDS: usize = size_of::<Mft1Note<ENTRIES>>() / 4;
            const NOTE: [u32; WORDS] =
                note_words(Mft1Note::new([Entry::RESERVED_FIRST, $(Entry::$kind($name)),*]));
            #[cfg_attr(target_os = "solo5", unsafe(link_section = ".note.solo5.manifest"))]
            #[used]
            static MANIFEST: [u32; WORDS] = NOTE;
        };
    };
}

/// Names the function that a guest starts with: `main!(run)`.
///
/// It takes no argument and returns an [`Outcome`](crate::Outcome): nothing, a [`Status`](crate::Status), or a
/// `Result` with [`args::Usage`](crate::args::Usage) as its error. On a host it expands to a `main` that
/// refuses to run, so that a guest's crate compiles there too.
#[macro_export]
macro_rules! main {
    ($run:path) => {
        #[cfg(target_os = "solo5")]
        #[unsafe(no_mangle)]
        fn __solo5_main() -> ! {
            $crate::__private::finish($run())
        }

        #[cfg(not(target_os = "solo5"))]
        fn main() {
            // Names the guest's own code, so that a host's compiler checks it.
            let _never_called = || $crate::__private::finish($run());
            $crate::__private::eprintln!(
                "this program runs as a Solo5 hvt guest only: build it for x86_64-solo5-hvt"
            );
            $crate::__private::exit(1)
        }
    };
}
