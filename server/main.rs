//! The command `millrace`.

mod cli;

fn main() -> std::process::ExitCode {
    cli::run()
}
