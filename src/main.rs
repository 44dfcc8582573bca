//! The `h3cast` program.

/// Returns memory to the system when it is free again: after a surge of clients, the C library's allocator keeps most
/// of it, and a server near the limit of its memory would stay there.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    h3cast::cli::run()
}
