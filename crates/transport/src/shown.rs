//! Text of others as a terminal may show it: problems, reasons, headers, file names, and what a command
//! writes to standard error. An escape sequence in it would move the cursor, hide lines, set the title
//! or worse, and a very long one would push away what came before.

use std::fmt::{self, Display, Write};

/// Escapes what is not to be seen, on one line.
pub struct Shown<T>(pub T);

impl<T: Display> Display for Shown<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaping::new(f, false, LONGEST_LINE), "{}", self.0)
    }
}

/// The same, cut after so many characters.
pub struct Short<T>(pub T, pub usize);

impl<T: Display> Display for Short<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaping::new(f, false, self.1), "{}", self.0)
    }
}

/// The same for JSON, whose strings have escapes of their own. Newlines between its values stay.
pub fn json(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => shown.push(c),
            // White space: in a string it is always escaped.
            '\r' => shown.push(' '),
            c if is_hidden(c) => {
                shown.extend(c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")));
            }
            c => shown.push(c),
        }
    }
    shown
}

/// The same for a text of several lines. Those after the first are indented, so that none looks like
/// a line of its own.
pub struct Lines<T>(pub T);

impl<T: Display> Display for Lines<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaping::new(f, true, LONGEST_LINE), "{}", self.0)
    }
}

struct Escaping<'a, 'b> {
    out: &'a mut fmt::Formatter<'b>,
    lines: bool,
    /// The most characters of a line.
    longest: usize,
    /// A line begins here, and is not indented yet.
    begins: bool,
    /// Characters of this line so far.
    taken: usize,
    /// Lines before this one.
    ended: usize,
}

impl<'a, 'b> Escaping<'a, 'b> {
    fn new(out: &'a mut fmt::Formatter<'b>, lines: bool, longest: usize) -> Self {
        Self { out, lines, longest, begins: false, taken: 0, ended: 0 }
    }
}

/// The most characters of a line.
const LONGEST_LINE: usize = 1000;
/// The most lines: a backtrace has many.
const MOST_LINES: usize = 200;

impl Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // Nearly all there is, such as the ids of requests, of which each gets one.
        let is_plain = text.len() <= self.longest.saturating_sub(self.taken)
            && text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        if is_plain && !self.begins && self.ended < MOST_LINES {
            self.taken += text.len();
            return self.out.write_str(text);
        }
        for c in text.chars() {
            if self.ended >= MOST_LINES {
                return Ok(());
            }
            if c == '\n' && self.lines {
                (self.taken, self.ended) = (0, self.ended + 1);
                if self.ended == MOST_LINES {
                    return self.out.write_str("\n  …");
                }
            } else {
                self.taken += 1;
                if self.taken > self.longest {
                    if self.taken == self.longest + 1 {
                        self.out.write_char('…')?;
                    }
                    continue;
                }
            }
            if std::mem::take(&mut self.begins) && !matches!(c, ' ' | '\n') {
                self.out.write_str("  ")?;
            }
            match c {
                '\n' if self.lines => {
                    self.begins = true;
                    self.out.write_char('\n')?;
                }
                c if is_hidden(c) => write!(self.out, "{}", c.escape_default())?,
                c => self.out.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// Whether a character does something else than to be seen: control characters, separators of lines,
/// what turns the direction of the text around it, and what is invisible. The joiners U+200C and U+200D
/// are parts of words and of emoji.
fn is_hidden(c: char) -> bool {
    (c.is_control() && c != '\t')
        || matches!(
            c,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'
                | '\u{200e}'
                | '\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{1bca0}'..='\u{1bca3}'
                | '\u{1d173}'..='\u{1d17a}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_something_is_escaped() {
        for (text, one_line, several) in [
            ("plain\ttext, zażółć 漢字 👩‍💻", "plain\ttext, zażółć 漢字 👩‍💻", "plain\ttext, zażółć 漢字 👩‍💻"),
            ("a\u{1b}[2Jb\u{9b}1mc\u{7f}", "a\\u{1b}[2Jb\\u{9b}1mc\\u{7f}", "a\\u{1b}[2Jb\\u{9b}1mc\\u{7f}"),
            ("\r\u{7}\u{8}\0", "\\r\\u{7}\\u{8}\\u{0}", "\\r\\u{7}\\u{8}\\u{0}"),
            ("one\nh3cast: two", "one\\nh3cast: two", "one\n  h3cast: two"),
            ("one\n  two\n\nthree\n", "one\\n  two\\n\\nthree\\n", "one\n  two\n\n  three\n"),
            ("a\u{202e}b\u{2069}c\u{2028}", "a\\u{202e}b\\u{2069}c\\u{2028}", "a\\u{202e}b\\u{2069}c\\u{2028}"),
        ] {
            assert_eq!(Shown(text).to_string(), one_line);
            assert_eq!(Lines(text).to_string(), several);
        }
    }

    #[test]
    fn json_shows_what_it_escapes() {
        let value = serde_json::json!({ "feed": "a\u{1b}[2J\u{7f}\u{9b}1m\u{202e}\n漢字 👩\t" });
        let text = serde_json::to_string_pretty(&value).unwrap();
        let shown = json(&text);
        assert_eq!(shown, "{\n  \"feed\": \"a\\u001b[2J\\u007f\\u009b1m\\u202e\\n漢字 👩\\t\"\n}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
    }

    /// What it is given may be a server's, with any white space, and with characters that JSON escapes by two units.
    #[test]
    fn json_stays_the_same_json() {
        let text = "{\r\n\t\"a\u{e0041}\u{1d173}\":\r1}";
        let shown = json(text);
        assert_eq!(shown, "{ \n\t\"a\\udb40\\udc41\\ud834\\udd73\": 1}");
        let value = |text| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(value(&shown), value(text));
    }

    #[test]
    fn invisible_characters_are_escaped() {
        for c in "\u{ad}\u{61c}\u{180e}\u{200b}\u{200e}\u{200f}\u{2060}\u{feff}\u{fffb}\u{1d173}\u{e0041}".chars() {
            assert_eq!(Shown(c).to_string(), c.escape_unicode().to_string());
        }
    }

    #[test]
    fn a_long_text_is_cut() {
        let cut = "é".repeat(LONGEST_LINE) + "…";
        let long = "é".repeat(3_000_000);
        assert_eq!(Shown(&long).to_string(), cut);
        assert_eq!(Shown("é".repeat(LONGEST_LINE)).to_string(), "é".repeat(LONGEST_LINE));
        assert_eq!(Short("CN=\u{1b}[2Jx\n\u{9b}", 7).to_string(), "CN=\\u{1b}[2J…");
        // In pieces, of which some need no look at each character.
        for (most, expected) in [(8, "abcd-efg"), (7, "abcd-ef…"), (4, "abcd…"), (3, "abc…"), (0, "…")] {
            assert_eq!(Short(format_args!("{}-{}", "abcd", "efg"), most).to_string(), expected);
        }
        assert_eq!(Lines(format_args!("{}\n{}{}", "a", "b", "c")).to_string(), "a\n  bc");
        assert_eq!(Lines(format!("{long}\nb")).to_string(), format!("{cut}\n  b"));
        let lines = Lines("a\n".repeat(100_000)).to_string();
        assert_eq!(lines.lines().count(), MOST_LINES + 1);
        assert!(lines.ends_with("a\n  …"), "{lines}");
    }
}
