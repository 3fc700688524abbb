//! Frames, as each side reads what the other sent, and seals.
//!
//! The first byte says what is read, the rest is the stream.

use petrel_wire::{
    Blob, Digest,
    frame::{self, HEADER_BYTES},
    limits::FRAME_BYTES_MAX,
    operator::{ClientMessage, Hello, Policy, Refusal, Request, Response, ServerMessage, VolumeRequest},
    seal::Seal,
    shim::{self, FromShim, InstanceId, Op},
};
use serde::{Serialize, de::DeserializeOwned};

pub fn feed(bytes: &[u8]) {
    let Some((which, stream)) = bytes.split_first() else { return };
    match which % 5 {
        0 => read::<ClientMessage>(stream),
        1 => read::<ServerMessage>(stream),
        2 => read::<shim::Request>(stream),
        3 => read::<FromShim>(stream),
        _ => {
            let again = |seal: Seal| Seal::decode(&seal.encode().expect("it fits, as it did")) == Ok(seal);
            assert!(Seal::decode(stream).is_ok_and(again) || Seal::decode(stream).is_err());
        }
    }
}

/// Reads frames to the end, as a connection's reader does. What is understood is sent again and understood alike.
fn read<T: Serialize + DeserializeOwned + PartialEq>(mut stream: &[u8]) {
    while let Ok(Some((payload, taken))) = frame::split(stream) {
        assert!(payload.len() <= FRAME_BYTES_MAX && taken == HEADER_BYTES + payload.len());
        stream = &stream[taken..];
        let Ok(message) = frame::decode::<T>(payload) else { return };
        let mut sent = Vec::new();
        frame::encode(&message, &mut sent).expect("it fits a frame, as it did");
        assert!(sent.len() <= taken, "ours is the shortest way to say it");
        assert!(frame::decode::<T>(&sent[HEADER_BYTES..]).is_ok_and(|again| again == message));
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    let ask = |request| ClientMessage { id: 7, request };
    let answer = |response| ServerMessage { id: 7, response };
    let order = |op| shim::Request { id: 7, op };
    let name = || "acme:web".parse().expect("a name");
    let policy =
        Policy { memory_mib: Some(64), bridges: Some(vec![].try_into().expect("none")), ..Policy::default() };
    let data = || Blob::try_from(&b"bytes"[..]).expect("they are few");
    vec![
        stream(
            0,
            &[
                ask(Request::Hello(Hello { oldest: 1, newest: 1 })),
                ask(Request::Host),
                ask(Request::Info(name())),
            ],
        ),
        stream(0, &[ask(Request::PolicySet { path: ":".parse().expect("a path"), policy: policy.into() })]),
        stream(
            0,
            &[
                ask(Request::Volume(VolumeRequest::Push { name: name(), bytes: 512 })),
                ask(Request::ImageChunk(data())),
            ],
        ),
        stream(
            1,
            &[
                answer(Response::Refused(Refusal::AfterCycle(name()))),
                answer(Response::Console { wall_ms: 1, data: data_of() }),
            ],
        ),
        stream(
            2,
            &[
                order(Op::Hello { version: 1 }),
                order(Op::Kill(InstanceId(3))),
                order(Op::ImageChunk { digest: Digest([1; 32]), data: data() }),
            ],
        ),
        stream(
            3,
            &[FromShim::Event(shim::Event::Exited {
                instance: InstanceId(3),
                status: petrel_wire::ExitStatus::Code(1),
            })],
        ),
    ]
}

fn data_of() -> Blob<{ petrel_wire::limits::CONSOLE_BYTES_MAX }> {
    Blob::try_from(&b"line\n"[..]).expect("they are few")
}

fn stream<T: Serialize>(which: u8, messages: &[T]) -> Vec<u8> {
    let mut bytes = vec![which];
    messages.iter().for_each(|message| frame::encode(message, &mut bytes).expect("it fits"));
    bytes
}
