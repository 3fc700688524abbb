//! What a unikernel wrote, made harmless for a terminal.
//!
//! A unikernel's console is somebody else's bytes, and a terminal obeys control bytes: they could move the cursor,
//! rename the window, or make the terminal type. So where output goes to a terminal, control characters but newline
//! and tab are shown as `\xNN`, and so are bytes that are not UTF-8, among which an 8-bit terminal finds controls.

/// Escapes a stream of console bytes that comes in pieces.
#[derive(Default)]
pub struct Escaper {
    /// The start of a character whose rest has not come yet: at most three bytes.
    partial: Vec<u8>,
}

impl Escaper {
    /// The next bytes, escaped.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.partial.extend_from_slice(bytes);
        let input = std::mem::take(&mut self.partial);
        let mut out = Vec::with_capacity(input.len());
        let mut rest: &[u8] = &input;
        while !rest.is_empty() {
            match std::str::from_utf8(rest) {
                Ok(text) => {
                    escape_text(text, &mut out);
                    break;
                }
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    escape_text(std::str::from_utf8(valid).unwrap_or_default(), &mut out);
                    let Some(bad) = error.error_len() else {
                        self.partial = after.to_vec();
                        break;
                    };
                    after[..bad].iter().for_each(|byte| escape_byte(*byte, &mut out));
                    rest = &after[bad..];
                }
            }
        }
        out
    }

    /// What is left at the end of the stream.
    pub fn finish(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        std::mem::take(&mut self.partial).into_iter().for_each(|byte| escape_byte(byte, &mut out));
        out
    }
}

/// Puts the time before each line of a stream that comes in pieces.
#[derive(Default)]
pub struct Stamper {
    /// The last line has not ended yet.
    within_line: bool,
}

impl Stamper {
    /// The next bytes, which arrived at `time`.
    pub fn push(&mut self, bytes: &[u8], time: &str) -> Vec<u8> {
        let mut out = Vec::new();
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            if !self.within_line {
                out.extend_from_slice(time.as_bytes());
                out.extend_from_slice(b"  ");
            }
            out.extend_from_slice(line);
            self.within_line = !line.ends_with(b"\n");
        }
        out
    }
}

fn escape_text(text: &str, out: &mut Vec<u8>) {
    for character in text.chars() {
        let mut bytes = [0; 4];
        let bytes = character.encode_utf8(&mut bytes).as_bytes();
        if character.is_control() && !matches!(character, '\n' | '\t') {
            bytes.iter().for_each(|byte| escape_byte(*byte, out));
        } else {
            out.extend_from_slice(bytes);
        }
    }
}

fn escape_byte(byte: u8, out: &mut Vec<u8>) {
    out.extend_from_slice(format!("\\x{byte:02x}").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escaped(pieces: &[&[u8]]) -> String {
        let mut escaper = Escaper::default();
        let mut out: Vec<u8> = pieces.iter().flat_map(|piece| escaper.push(piece)).collect();
        out.extend(escaper.finish());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_time_is_put_before_each_line_and_only_there() {
        let mut stamper = Stamper::default();
        let mut out = stamper.push(b"one\ntw", "1");
        out.extend(stamper.push(b"o\n", "2"));
        out.extend(stamper.push(b"", "3"));
        out.extend(stamper.push(b"\nthree", "4"));
        assert_eq!(String::from_utf8(out).unwrap(), "1  one\n1  two\n4  \n4  three");
    }

    #[test]
    fn text_newlines_and_tabs_pass() {
        assert_eq!(escaped(&["a\tb\nä €\n".as_bytes()]), "a\tb\nä €\n");
    }

    #[test]
    fn what_could_drive_a_terminal_is_shown_instead() {
        assert_eq!(escaped(&[b"\x1b]0;owned\x07\r\x7f"]), "\\x1b]0;owned\\x07\\x0d\\x7f");
        assert_eq!(escaped(&[b"\x9b31m", "\u{9b}".as_bytes()]), "\\x9b31m\\xc2\\x9b");
    }

    #[test]
    fn a_character_may_come_in_pieces_and_one_that_never_ends_is_shown() {
        let euro = "€".as_bytes();
        assert_eq!(escaped(&[&euro[..1], &euro[1..2], &euro[2..]]), "€");
        assert_eq!(escaped(&[b"x\xe2\x82"]), "x\\xe2\\x82");
        assert_eq!(escaped(&[b"\xc2", b"\x9b"]), "\\xc2\\x9b");
    }
}
