//! Completions and manual pages, as shells and mandoc read them.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use super::{h3cast, output, text};

/// The script for a shell, in a file.
fn script(dir: &Path, shell: &str) {
    let printed = output(dir, &["completions", shell]);
    assert!(printed.status.success() && printed.stderr.is_empty(), "{shell}: {}", text(&printed.stderr));
    std::fs::write(dir.join(shell), printed.stdout).unwrap();
}

/// What a shell prints that runs these lines in this folder.
fn run(dir: &Path, shell: &[&str], lines: &str) -> String {
    let mut command = Command::new(shell[0]);
    command.args(&shell[1..]).arg("-c").arg(lines).current_dir(dir).env("HOME", dir).stdin(Stdio::null());
    let out = command.output().unwrap_or_else(|error| panic!("{}: {error}; `tests/run debian` installs it", shell[0]));
    assert!(out.status.success() && out.stderr.is_empty(), "{}: {}", shell[0], text(&out.stderr));
    text(&out.stdout)
}

#[test]
fn bash_completes_commands_flags_and_values() {
    let dir = tempfile::tempdir().unwrap();
    script(dir.path(), "bash");
    for (words, wanted) in [
        ("h3cast se", vec!["serve"]),
        ("h3cast publ", vec!["publish"]),
        ("h3cast serve --publish-t", vec!["--publish-token"]),
        ("h3cast open --browser f", vec!["firefox"]),
        ("h3cast completions power", vec!["powershell"]),
    ] {
        let word = words.split(' ').next_back().unwrap();
        // As bash calls it: the function's arguments are the command, the word and the one before.
        let lines = format!(
            ". ./bash; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
             _h3cast h3cast '{word}' \"${{COMP_WORDS[COMP_CWORD - 1]}}\"; printf '%s\\n' \"${{COMPREPLY[@]}}\"; complete -p h3cast >/dev/null"
        );
        let found = run(dir.path(), &["bash", "--norc"], &lines);
        assert_eq!(found.lines().collect::<Vec<_>>(), wanted, "{words}");
    }
}

#[test]
fn fish_zsh_and_powershell_have_scripts() {
    let dir = tempfile::tempdir().unwrap();
    for shell in ["fish", "zsh", "powershell"] {
        script(dir.path(), shell);
    }
    let fish = run(dir.path(), &["fish", "--no-config"], "source fish; complete --do-complete 'h3cast se'");
    assert!(fish.starts_with("serve\tStream feeds"), "{fish}");
    // Registered for the command, as from a folder of $fpath.
    let lines = "autoload -Uz compinit; compinit -u -D; source ./zsh; print -r -- $_comps[h3cast]; whence -w _h3cast";
    assert_eq!(run(dir.path(), &["zsh", "-f"], lines), "_h3cast\n_h3cast: function\n");
    let powershell = std::fs::read_to_string(dir.path().join("powershell")).unwrap();
    assert!(powershell.contains("Register-ArgumentCompleter") && powershell.contains("'serve'"), "{powershell}");
}

#[test]
fn manual_pages_cover_every_command_and_flag() {
    let dir = tempfile::tempdir().unwrap();
    let written = output(dir.path(), &["man", "new/pages"]);
    assert!(written.status.success() && written.stdout.is_empty(), "{}", text(&written.stderr));
    let pages = dir.path().join("new/pages");
    let help = text(&output(dir.path(), &["--help"]).stdout);
    let (_, commands) = help.split_once("Commands:\n").unwrap();
    let commands = commands.lines().take_while(|line| !line.trim().is_empty());
    let commands = commands.filter_map(|line| line.strip_prefix("  ").filter(|rest| !rest.starts_with(' ')));
    let names: Vec<_> = commands.map(|line| line.split(' ').next().unwrap()).filter(|name| *name != "help").collect();
    assert!(names.contains(&"serve") && names.contains(&"man"), "{names:?}");
    let mut files: Vec<_> = names.iter().map(|name| format!("h3cast-{name}.1")).collect();
    files.push("h3cast.1".into());
    let there = std::fs::read_dir(&pages).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut there: Vec<_> = there.collect();
    there.sort();
    files.sort();
    assert_eq!(there, files);
    for file in &files {
        let lint = Command::new("mandoc").args(["-T", "lint", "-W", "warning"]).arg(file).current_dir(&pages).output();
        let lint = lint.expect("mandoc; `tests/run debian` installs it");
        assert_eq!((text(&lint.stdout), lint.status.success()), (String::new(), true), "{file}");
    }
    for name in names {
        let help = text(&output(dir.path(), &[name, "--help"]).stdout);
        let file = pages.join(format!("h3cast-{name}.1"));
        let page = Command::new("mandoc").args(["-T", "ascii", "-O", "width=200"]).arg(file).output().unwrap();
        // Without the backspaces by which terminals of old print bold.
        let mut shown = String::new();
        for letter in text(&page.stdout).chars() {
            match letter {
                '\u{8}' => drop(shown.pop()),
                letter => shown.push(letter),
            }
        }
        for flag in help.split_whitespace().filter(|word| word.starts_with("--") && word.len() > 2) {
            let flag = flag.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '-').next().unwrap();
            assert!(shown.contains(flag), "{flag} is not in the page of {name}:\n{shown}");
        }
    }
}

/// Pages are the same wherever they are written.
#[test]
fn manual_pages_hold_nothing_of_the_environment() {
    let dir = tempfile::tempdir().unwrap();
    let written = h3cast(dir.path(), &["man", "pages"])
        .env("H3CAST_COUNT", "271828")
        .env("SOURCE_DATE_EPOCH", "86400")
        .output()
        .unwrap();
    assert!(written.status.success(), "{}", text(&written.stderr));
    let page = std::fs::read_to_string(dir.path().join("pages/h3cast-serve.1")).unwrap();
    assert!(page.contains("H3CAST_COUNT") && !page.contains("271828"));
    assert!(page.contains("\n.TH H3CAST-SERVE 1 1970-01-02 "), "{page:.200}");
}
