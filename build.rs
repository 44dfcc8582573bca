//! Rebuilds the binary when a file of the page is added, changed or removed:
//! `include_dir!` reads the folder at compile time and Cargo cannot see that by itself.

fn main() {
    watch(std::path::Path::new("static"));
}

fn watch(dir: &std::path::Path) {
    println!("cargo:rerun-if-changed={}", dir.display());
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            watch(&path);
        } else {
            println!("cargo:rerun-if-changed={}", path.display());
        }
    }
}
