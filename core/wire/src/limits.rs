//! Every bound of the protocol. A value over its bound is refused where it is parsed, so what lies behind
//! the edge may rely on them. The README of each program prints none of these: this file is the place.

/// The protocol between operator and control plane; see [`crate::operator::Hello`].
pub const OPERATOR_VERSION: u16 = 1;
/// The protocol between control plane and shim; both are installed together and must agree exactly.
pub const SHIM_VERSION: u16 = 1;
/// The layout of the seal.
pub const SEAL_VERSION: u16 = 1;
/// The layout of a sealed host.
pub const SEALED_HOST_VERSION: u16 = 1;
/// The layout of the journal on the control plane's block device "state".
pub const JOURNAL_VERSION: u16 = 1;
/// The layout of a state file.
pub const STATE_FILE_VERSION: u16 = 1;

/// The payload of one frame, in bytes. Fits one chunk of an image and its envelope.
pub const FRAME_BYTES_MAX: usize = 40 * 1024;
/// The image bytes that one frame carries.
pub const CHUNK_BYTES_MAX: usize = 32 * 1024;
/// The console bytes that one frame carries.
pub const CONSOLE_BYTES_MAX: usize = 4 * 1024;
/// The entries that one page of a listing carries.
pub const PAGE_ENTRIES_MAX: usize = 64;
/// The events that one frame carries.
pub const EVENTS_PAGE_MAX: usize = 16;
/// The unikernels of which one frame tells what they use.
pub const STATS_PAGE_MAX: usize = 10;

/// A whole name, labels and separators.
pub const NAME_BYTES_MAX: usize = 128;
/// Whoever did something: the common name of a certificate (X.520's bound).
pub const COMMON_NAME_BYTES_MAX: usize = 64;
/// One label of a name.
pub const LABEL_BYTES_MAX: usize = 63;
/// The labels of a name.
pub const LABELS_MAX: usize = 8;
/// A bridge's name: IFNAMSIZ without the NUL.
pub const BRIDGE_BYTES_MAX: usize = 15;
/// A device's name in a Solo5 manifest, without the NUL.
pub const DEVICE_BYTES_MAX: usize = 67;

/// The size of an image, in bytes.
pub const IMAGE_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// What is read of an image at once to learn its ABI and manifest.
pub const IMAGE_READ_BYTES_MAX: usize = 32 * 1024;
/// The least memory that a unikernel can be given, in MiB: the image is loaded at 1 MiB.
pub const MEMORY_MIB_MIN: u32 = 2;
/// The most memory that a Solo5 hvt guest can address, in MiB.
pub const MEMORY_MIB_MAX: u32 = 4096;
/// Network devices of a unikernel.
pub const NETS_MAX: usize = 16;
/// Block devices of a unikernel.
pub const BLOCKS_MAX: usize = 16;
/// Arguments of a unikernel.
pub const ARGS_MAX: usize = 128;
/// The arguments of a unikernel joined by spaces, with a NUL: Solo5's command line.
pub const CMDLINE_BYTES_MAX: usize = 8192;
/// CPUs that a unikernel may be bound to.
pub const CPUS_MAX: usize = 256;
/// The least size of the control plane's block device "state", in bytes.
pub const STATE_DEVICE_BYTES_MIN: u64 = 128 * 1024;
/// A state file, in bytes.
pub const STATE_FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// What the control plane may store beside a monitor in the shim's ledger.
pub const TAG_BYTES_MAX: usize = 16 * 1024;
/// Unikernels that one unikernel is started after.
pub const AFTER_MAX: usize = 8;
/// Exit codes of a restart policy.
pub const EXIT_CODES_MAX: usize = 32;
/// The text or the path of a probe, in bytes.
pub const PROBE_BYTES_MAX: usize = 256;
/// Generations of a unikernel that are kept, the current one included.
pub const GENERATIONS_MAX: usize = 8;
/// How long an update may wait for its unikernel, in seconds.
pub const WINDOW_S_MAX: u32 = 3600;

/// What an appliance says of itself at once, in bytes: its status, or the end of its log. Fits one frame.
pub const APPLIANCE_TEXT_BYTES_MAX: usize = 32 * 1024;

/// How many times more there is room for where the engine is measured alone, far beyond what a host can run.
const LARGER: usize = if cfg!(feature = "large") { 16 } else { 1 };
/// Unikernels on one host.
pub const UNIKERNELS_MAX: usize = 1024 * LARGER;
/// Images on one host.
pub const IMAGES_MAX: usize = 1024;
/// Volumes on one host, drafts included.
pub const VOLUMES_MAX: usize = 1024;
/// The size of a volume, in bytes: what ext4 can hold in one file.
pub const VOLUME_BYTES_MAX: u64 = 16 * 1024 * 1024 * 1024 * 1024;
/// A volume's size is a multiple of this, the block of a block device, in bytes.
pub const VOLUME_BLOCK_BYTES: u64 = 512;
/// Volumes that are pushed, pulled or copied, and images that are downloaded, at once on one host. Operators with a
/// scope get at most half of the places.
pub const TRANSFERS_MAX: usize = 16;
/// Entries of one page of the images.
pub const IMAGE_PAGE_MAX: usize = 32;
/// The unikernels that a page of the images names for each image.
pub const IMAGE_USERS_MAX: usize = 8;
/// Taps on one host.
pub const TAPS_MAX: usize = 4096 * LARGER;
/// Bridges that a host may name.
pub const BRIDGES_MAX: usize = 64;
/// Monitors (tenders) that a host may name.
pub const MONITORS_MAX: usize = 8;
/// Kinds of limits that a host can set.
pub const LIMITS_MAX: usize = 3;

/// Certificates that an operator presents: its own, and those of the CAs between it and the operators' CA.
/// webpki follows six of those.
pub const CHAIN_CERTIFICATES_MAX: usize = 7;
/// A certificate's serial number: RFC 5280, section 4.1.2.2.
pub const SERIAL_BYTES_MAX: usize = 20;
/// Policies that operators have set on one host. Those with a scope get at most half of the places, so that they
/// cannot keep those without from setting any; so with revocations.
pub const POLICIES_MAX: usize = 1024;
/// Certificates and keys that are revoked on one host.
pub const REVOCATIONS_MAX: usize = 4096;
/// The entries that one page of policies carries: each may name many CPUs and bridges.
pub const POLICY_PAGE_ENTRIES_MAX: usize = 8;

/// Sessions that the control plane holds at once. Operators with a scope get at most
/// half of the places, so that they cannot keep those without from coming in.
pub const SESSIONS_MAX: usize = 64;
/// Requests of one session that may be unanswered.
pub const REQUESTS_MAX: usize = 16;
/// Uploads under way on one host. Operators with a scope get at most half of the places.
pub const UPLOADS_MAX: usize = 16;
/// Console bytes kept of one unikernel.
pub const CONSOLE_HISTORY_BYTES: usize = 16 * 1024;
/// Consoles kept of unikernels that are no more.
pub const CONSOLES_DEAD_MAX: usize = 256;
/// Console bytes kept of all unikernels together that are no more.
pub const CONSOLES_DEAD_BYTES_MAX: usize = 1024 * 1024;
/// Events that are kept.
pub const EVENTS_MAX: usize = 2048;
/// Events among them that are about sessions: visitors do not push out what was done.
pub const EVENTS_OF_SESSIONS_MAX: usize = 512;
/// Kinds of events that one request can ask for.
pub const EVENT_KINDS_ASKED_MAX: usize = 32;
/// Bytes queued towards one session before its streams wait.
pub const SESSION_QUEUE_BYTES: usize = 64 * 1024;
/// Requests to the shim that may be unanswered.
pub const SHIM_REQUESTS_MAX: usize = 4096 * LARGER;
