//! Errors of the system in the words of a message. Each library adds their number to them, which says nothing to most
//! people; where they do not say what helps, that is added instead.

use std::{
    borrow::Cow,
    fmt::{self, Display},
};

const BEGIN: &str = " (os error ";

/// What is shown, without the numbers of errors.
pub(super) struct Plain<T>(pub(super) T);

impl<T: Display> Display for Plain<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&plain(&self.0.to_string()))
    }
}

/// The same of a text.
pub(super) fn plain(text: &str) -> Cow<'_, str> {
    if !text.contains(BEGIN) {
        return text.into();
    }
    let mut parts = text.split(BEGIN);
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| !(c.is_ascii_digit() || c == '-')).unwrap_or(part.len());
        match (part[..end].parse(), part[end..].strip_prefix(')')) {
            (Ok(number), Some(rest)) => {
                if let Some(hint) = hint(number) {
                    plain.push_str(&format!(" ({hint})"));
                }
                plain.push_str(rest);
            }
            // It only looks like one.
            _ => plain.extend([BEGIN, part]),
        }
    }
    plain.into()
}

/// What helps against an error, where its words are not enough.
fn hint(number: i32) -> Option<&'static str> {
    #[cfg(unix)]
    {
        use rustix::io::Errno;

        let is = |errnos: &[Errno]| errnos.iter().any(|errno| errno.raw_os_error() == number);
        match () {
            () if is(&[Errno::ROFS]) => Some("mount its file system for writing, or choose another place"),
            () if is(&[Errno::NOSPC, Errno::DQUOT]) => Some("free some space, or choose another disk"),
            () if is(&[Errno::MFILE]) => {
                Some("raise the limit of open files, such as LimitNOFILE= of systemd or `ulimit -n`")
            }
            () => None,
        }
    }
    #[cfg(not(unix))]
    {
        let _ = number;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_errors_are_left_out() {
        for (text, expected) in [
            ("cannot read x: No such file or directory (os error 2)", "cannot read x: No such file or directory"),
            ("x: Is a directory (os error 21): waiting for it", "x: Is a directory: waiting for it"),
            ("Unknown error -1 (os error -1), twice (os error 5)", "Unknown error -1, twice"),
            ("a file called x (os error 2", "a file called x (os error 2"),
            ("a (os error two) (os error 2)", "a (os error two)"),
            ("plain", "plain"),
        ] {
            assert_eq!(plain(text), expected);
        }
    }

    #[cfg(unix)]
    #[test]
    fn some_have_what_helps() {
        for (errno, expected) in [
            (rustix::io::Errno::ROFS, "(mount its file system for writing, or choose another place)"),
            (rustix::io::Errno::NOSPC, "(free some space, or choose another disk)"),
        ] {
            let told = Plain(std::io::Error::from(errno)).to_string();
            assert!(told.ends_with(expected) && !told.contains("os error"), "{told}");
        }
    }
}
