//! From the bytes of a request to the bytes of its response.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// Most bytes of a request's head; a longer one is refused.
pub const REQUEST_BYTES_MAX: usize = 8 << 10;

/// Most headers of a request; one with more is refused.
const HEADERS_MAX: usize = 64;

/// Most bytes of a response: there has to be room for them before a request is answered.
pub const RESPONSE_BYTES_MAX: usize = 2 << 10;

/// What becomes of the bytes that a client has sent so far.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// The request is not complete.
    More,
    /// The first `used` bytes were a request.
    Answer {
        /// Bytes of the request.
        used: usize,
        /// The whole response.
        response: Vec<u8>,
        /// Whether the connection ends with it.
        close: bool,
    },
}

/// What the page tells.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// Requests answered before this one.
    pub served: u64,
    /// Seconds since the start.
    pub uptime_s: u64,
}

/// Answers the request at the start of `bytes`, once it is complete.
pub fn step(bytes: &[u8], facts: Facts) -> Step {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(used)) => {
            let close = wants_close(&request);
            let response = Response::to(&request, facts);
            // A refused request may have a body, which nobody reads: the connection cannot go on behind it.
            let close = close || !matches!(response.status, Status::Ok | Status::NotFound);
            let with_body = request.method != Some("HEAD");
            Step::Answer { used, response: response.encode(close, with_body), close }
        }
        Ok(httparse::Status::Partial) if bytes.len() < REQUEST_BYTES_MAX => Step::More,
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            refuse(bytes, Status::TooLarge)
        }
        Err(_) => refuse(bytes, Status::BadRequest),
    }
}

fn refuse(bytes: &[u8], status: Status) -> Step {
    let response = Response { status, body: format!("{}\n", status.line()) };
    Step::Answer { used: bytes.len(), response: response.encode(true, true), close: true }
}

/// Whether the client does not want the connection to go on: HTTP/1.0, or "Connection: close".
fn wants_close(request: &httparse::Request<'_, '_>) -> bool {
    let says_close = |value: &[u8]| {
        value.split(|&byte| byte == b',').any(|token| token.trim_ascii().eq_ignore_ascii_case(b"close"))
    };
    request.version == Some(0)
        || request
            .headers
            .iter()
            .any(|header| header.name.eq_ignore_ascii_case("connection") && says_close(header.value))
}

#[derive(Clone, Copy)]
enum Status {
    Ok,
    BadRequest,
    NotFound,
    MethodNotAllowed,
    TooLarge,
}

impl Status {
    fn line(self) -> &'static str {
        match self {
            Self::Ok => "200 OK",
            Self::BadRequest => "400 Bad Request",
            Self::NotFound => "404 Not Found",
            Self::MethodNotAllowed => "405 Method Not Allowed",
            Self::TooLarge => "431 Request Header Fields Too Large",
        }
    }
}

struct Response {
    status: Status,
    body: String,
}

impl Response {
    fn to(request: &httparse::Request<'_, '_>, facts: Facts) -> Self {
        let status = match (request.method, request.path) {
            (Some("GET" | "HEAD"), Some("/" | "/index.html")) => Status::Ok,
            (Some("GET" | "HEAD"), _) => Status::NotFound,
            _ => Status::MethodNotAllowed,
        };
        let body = match status {
            Status::Ok => page(facts),
            refused => format!("{}\n", refused.line()),
        };
        Self { status, body }
    }

    fn encode(&self, close: bool, with_body: bool) -> Vec<u8> {
        let status = self.status.line();
        let kind = if matches!(self.status, Status::Ok) { "text/html" } else { "text/plain" };
        let allow = if matches!(self.status, Status::MethodNotAllowed) { "Allow: GET, HEAD\r\n" } else { "" };
        let connection = if close { "Connection: close\r\n" } else { "" };
        let length = self.body.len();
        let body = if with_body { self.body.as_str() } else { "" };
        format!(
            "HTTP/1.1 {status}\r\nServer: petrel-web\r\nContent-Type: {kind}; charset=utf-8\r\n\
             Content-Length: {length}\r\n{allow}{connection}\r\n{body}"
        )
        .into_bytes()
    }
}

fn page(Facts { served, uptime_s }: Facts) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<title>A unikernel</title>\n<h1>Hello from a Solo5 unikernel in Rust</h1>\n\
         <p>Up for {uptime_s} s, {served} requests served before this one.</p>\n</html>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const FACTS: Facts = Facts { served: 3, uptime_s: 7 };

    fn answer(request: &[u8]) -> (usize, String, bool) {
        match step(request, FACTS) {
            Step::Answer { used, response, close } => (used, String::from_utf8(response).unwrap(), close),
            Step::More => panic!("{request:?} is taken to be incomplete"),
        }
    }

    fn body(response: &str) -> &str {
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
        assert!(response.len() <= RESPONSE_BYTES_MAX);
        assert!(body.is_empty() || body.len() == length.parse::<usize>().unwrap(), "{response}");
        body
    }

    #[test]
    fn a_get_is_answered_with_the_page_and_the_connection_goes_on() {
        let request = b"GET / HTTP/1.1\r\nHost: web\r\n\r\n";
        let (used, response, close) = answer(request);
        assert_eq!((used, close), (request.len(), false));
        assert!(response.starts_with("HTTP/1.1 200 OK\r\n"));
        assert!(body(&response).contains("Up for 7 s, 3 requests"));
    }

    #[test]
    fn the_page_fits_whatever_it_tells() {
        let facts = Facts { served: u64::MAX, uptime_s: u64::MAX };
        let Step::Answer { response, .. } = step(b"GET / HTTP/1.0\r\n\r\n", facts) else { panic!() };
        assert!(response.len() <= RESPONSE_BYTES_MAX);
    }

    #[test]
    fn a_head_has_the_length_and_no_body() {
        let (_, response, close) = answer(b"HEAD / HTTP/1.1\r\n\r\n");
        assert!(!close && body(&response).is_empty() && !response.contains("Content-Length: 0\r\n"));
    }

    #[test]
    fn a_request_that_comes_in_pieces_is_waited_for() {
        let request = b"GET / HTTP/1.1\r\nHost: web\r\n\r\n";
        for len in 0..request.len() {
            assert_eq!(step(&request[..len], FACTS), Step::More, "{len} bytes");
        }
    }

    #[test]
    fn the_second_of_two_requests_stays_for_the_next_step() {
        let (used, response, _) = answer(b"GET / HTTP/1.1\r\n\r\nGET /x HTTP/1.1\r\n\r\n");
        assert_eq!(used, 18);
        assert!(response.starts_with("HTTP/1.1 200"));
    }

    #[test]
    fn a_client_that_wants_the_connection_closed_gets_it_closed() {
        for request in [
            "GET / HTTP/1.0\r\n\r\n",
            "GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
            "GET / HTTP/1.1\r\nconnection: te, Close\r\n\r\n",
        ] {
            let (_, response, close) = answer(request.as_bytes());
            assert!(close && response.contains("\r\nConnection: close\r\n"), "{request}");
        }
    }

    #[test]
    fn what_cannot_be_served_is_refused_with_the_reason() {
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(HEADERS_MAX + 1));
        let long = format!("GET /{}", "x".repeat(REQUEST_BYTES_MAX));
        for (request, status, closes) in [
            ("GET /nowhere HTTP/1.1\r\n\r\n", "404", false),
            ("POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", "405", true),
            ("\x16\x03\x01\x02\x00\x01", "400", true),
            (&many, "431", true),
            (&long, "431", true),
        ] {
            let (_, response, close) = answer(request.as_bytes());
            assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{request:.40}: {response}");
            assert_eq!(close, closes, "{request:.40}");
            body(&response);
        }
    }
}
