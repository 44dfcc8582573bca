//! The `h3cast` program.

fn main() -> std::process::ExitCode {
    h3cast::cli::run()
}
