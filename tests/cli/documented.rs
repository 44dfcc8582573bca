//! What the documents and `--help` say, compared with the program.

use std::{collections::BTreeSet, path::Path, process::Stdio};

use super::{Running, h3cast, output, text};

#[test]
fn every_flag_has_an_environment_variable() {
    let dir = tempfile::tempdir().unwrap();
    let child = h3cast(dir.path(), &[])
        .env("H3CAST_LISTEN", "127.0.0.1:0,[::1]:0")
        .env("H3CAST_HTTP", "off")
        .env("H3CAST_COUNT", "2")
        .env("H3CAST_INTERVAL", "1ms")
        .env("H3CAST_CERTS", "elsewhere")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let server = Running::ready(child);
    assert!(server.url.starts_with("https://127.0.0.1:"), "{}", server.url);
    assert!(server.announced.contains("https://[::1]:"), "{}", server.announced);
    assert!(!server.announced.contains("http://"), "{}", server.announced);
    let got = output(dir.path(), &["get", "--certs", "elsewhere", &format!("{}stream", server.url)]);
    assert_eq!(text(&got.stdout), "data chunk #0\ndata chunk #1\n");
    let help = text(&output(dir.path(), &["help", "serve-all"]).stdout);
    for flag in help.lines().map(str::trim).filter(|line| line.starts_with("--")) {
        let name = flag.trim_start_matches("--").split([' ', '[']).next().unwrap();
        // What one run is for is no setting.
        assert!(
            name == "check" || help.contains(&format!("H3CAST_{}", name.to_uppercase().replace('-', "_"))),
            "{name}"
        );
    }
}

/// docs/commands.md has every flag of every command, and the documents for users have none that does not exist.
#[test]
fn every_flag_is_documented() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let commands = ["serve-all", "get", "publish", "feeds", "bench", "token", "health", "cert", "open", "reload"];
    let helps = commands.map(|command| text(&output(Path::new("."), &["help", command]).stdout));
    let document = prose(&root.join("docs/commands.md"));
    let mut known = BTreeSet::new();
    for line in helps.iter().flat_map(|help| help.lines()).filter(|line| line.trim_start().starts_with('-')) {
        let words = line.split([' ', ',', '[']).filter(|word| !word.is_empty()).take(2);
        for flag in words.filter(|word| flags(word).next() == Some(*word)) {
            assert!(flags(&document).any(|it| it == flag), "docs/commands.md lacks {flag}");
            known.insert(flag.to_owned());
        }
    }
    assert!(known.len() > 100, "{known:?}");
    for name in ["README.md", "docs/commands.md", "docs/sources.md", "docs/protocol.md", "docs/troubleshooting.md"] {
        let lost: Vec<_> =
            flags(&prose(&root.join(name))).filter(|it| !known.contains(*it)).map(String::from).collect();
        assert!(lost.is_empty(), "{name}: {lost:?}");
    }
}

/// What looks like a flag in a document.
fn flags(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|c: char| !c.is_ascii_lowercase() && c != '-');
    words.filter(|word| word.starts_with("--") && word.len() > 3 && !word.ends_with('-'))
}

/// docs/security.md has one row for each flag under *Limits*, with its variable and its default, and names every
/// setting of `Limits`, every reason for a refusal, and no metric that there is not.
#[test]
fn every_limit_is_documented() {
    let document = include_str!("../../docs/security.md");
    let help = text(&output(Path::new("."), &["help", "serve-all"]).stdout);
    let (_, limits) = help.split_once("\nLimits:\n").expect("a heading");
    // Up to the next heading.
    let limits = limits.lines().take_while(|line| line.is_empty() || line.starts_with(' ')).collect::<Vec<_>>();
    let limits = limits.join("\n");
    let mut flags: Vec<_> = limits.split("\n      --").collect();
    flags[0] = flags[0].trim_start().trim_start_matches("--");
    let rows: Vec<Vec<_>> = (document.lines().filter(|line| line.starts_with("| `--")))
        .map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`')).collect())
        .collect();
    for flag in &flags {
        let words = flag.split_whitespace().collect::<Vec<_>>().join(" ");
        let name = format!("--{}", words.split(' ').next().unwrap());
        let part = |begin: &str, end: char| {
            let (_, rest) = words.split_once(begin).unwrap_or_else(|| panic!("{name} has no {begin}"));
            rest.split(end).next().unwrap().to_owned()
        };
        let row = rows.iter().find(|row| row[0] == name).unwrap_or_else(|| panic!("no row for {name}"));
        assert_eq!((row[1], row[4]), (&*part("[env: ", '='), &*part("[default: ", ']')), "{name}");
        assert_eq!(row.len(), 7, "{name}");
    }
    assert_eq!(flags.len(), rows.len(), "a row for each flag, and no other");

    let settings = include_str!("../../crates/transport/src/limits.rs").split("    pub fn ").skip(1);
    for setting in settings.map(|rest| rest.split('(').next().unwrap()) {
        assert!(document.contains(&format!("`Limits::{setting}`")), "Limits::{setting}");
    }
    for reason in h3cast::admission::Refusal::ALL {
        assert!(document.contains(&format!("`{}`", reason.as_str())), "the reason {}", reason.as_str());
    }
    // Its table of metrics is compared with what is exported by tests/foreign/test_metrics.py.
    let metrics = include_str!("../../docs/operations.md");
    let named = document.split('`').filter(|word| word.starts_with("h3cast_"));
    for metric in named.map(|word| word.split('{').next().unwrap()) {
        let is_there = ["`", "{"].iter().any(|end| metrics.contains(&format!("`{metric}{end}")));
        assert!(is_there, "{metric}");
    }
}

/// What the documents say to run on the internet, and in a file: a server would start with it.
#[test]
fn what_the_documents_start_on_the_internet_can_be_started() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tokens.txt"), "read=* publish=* name=alice a-token-of-16-characters\n").unwrap();
    let recipes = include_str!("../../docs/recipes.md");
    let (_, command) = recipes.split_once("\nh3cast serve 'chat.*=publish' --listen 0.0.0.0:443").expect("the command");
    let command = command.split("\n```").next().unwrap().replace("\\\n", " ");
    let words = command.split_whitespace();
    let arguments: Vec<_> = ["serve", "chat.*=publish", "--listen", "0.0.0.0:443"].into_iter().chain(words).collect();
    let checked = output(dir.path(), &[&arguments[..], &["--check"]].concat());
    assert_eq!((checked.status.code(), text(&checked.stdout)), (Some(0), "ok\n".into()), "{}", text(&checked.stderr));

    let operations = include_str!("../../docs/operations.md");
    let (_, settings) = operations.split_once("\n```toml\n").expect("the settings");
    let settings = settings.split("\n```").next().unwrap().replace("/etc/h3cast/tokens", "tokens.txt");
    std::fs::write(dir.path().join("h3cast.toml"), settings).unwrap();
    let checked = output(dir.path(), &["serve", "--config", "h3cast.toml", "--check"]);
    assert_eq!(checked.status.code(), Some(0), "{}", text(&checked.stderr));
}

/// The code that the documents show is that of the crate's documentation, which `cargo test --doc` compiles.
#[test]
fn the_code_shown_is_compiled() {
    let compiled: Vec<_> = include_str!("../../src/lib.rs")
        .lines()
        .filter_map(|line| line.strip_prefix("//!"))
        .map(|line| line.strip_prefix(' ').unwrap_or(line))
        .filter(|line| !line.starts_with("# "))
        .collect();
    let compiled = compiled.join("\n");
    for document in [include_str!("../../README.md"), include_str!("../../docs/library.md")] {
        let (_, code) = document.split_once("\n```rust\n").expect("code");
        let code = code.split("\n```").next().unwrap();
        assert!(compiled.contains(code), "src/lib.rs lacks:\n{code}");
    }
}

/// Links to files and headings of this repository, in the documents and in each other.
#[test]
fn every_link_leads_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let crates = ["feed", "proto", "transport"].map(|name| format!("crates/{name}"));
    let mut documents: Vec<_> = ["", "docs", "docs/decisions", "docs/upstream", "certs", "fuzz", "benches/peers"]
        .into_iter()
        .map(String::from)
        .chain(crates)
        .flat_map(|folder| std::fs::read_dir(root.join(folder)).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "md"))
        .collect();
    documents.sort();
    let mut lost = Vec::new();
    for document in &documents {
        let text = prose(document);
        for target in text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            if file.contains("://") {
                continue;
            }
            let path = if file.is_empty() { document.clone() } else { document.parent().unwrap().join(file) };
            let leads = path.exists() && (heading.is_empty() || headings(&prose(&path)).any(|it| it == heading));
            if !leads {
                lost.push(format!("{}: {target}", document.display()));
            }
        }
    }
    assert!(lost.is_empty(), "{}", lost.join("\n"));
}

/// Who looks for a guide begins at docs/README.md.
#[test]
fn the_index_has_every_guide() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let index = prose(&docs.join("README.md"));
    let names = std::fs::read_dir(&docs).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let lost: Vec<_> = names
        .filter(|name| name.ends_with(".md") && name != "README.md" && !index.contains(&format!("]({name})")))
        .collect();
    assert!(lost.is_empty(), "{lost:?}");
}

/// A document without its blocks of code.
fn prose(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    text.split("\n```").step_by(2).map(|part| part.split_once('\n').map_or(part, |(_, rest)| rest)).collect()
}

/// The names of a document's headings, as they are in links to them.
fn headings(text: &str) -> impl Iterator<Item = String> {
    text.lines().filter(|line| line.starts_with('#')).map(|line| {
        let line = line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
        line.chars().filter(|c| c.is_alphanumeric() || "-_".contains(*c)).collect()
    })
}
