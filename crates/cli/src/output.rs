//! The one place that prints.

use std::io::{ErrorKind, IsTerminal, Write};

use tracing_subscriber::EnvFilter;

/// Writes a line of data to standard output. A closed pipe ends the program quietly, as it should
/// in `opabinia … | head`.
pub fn data(line: &str) {
    piece(line);
    piece("\n");
}

/// Writes a piece of data to standard output at once.
pub fn piece(text: &str) {
    let mut out = std::io::stdout().lock();
    if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        if error.kind() == ErrorKind::BrokenPipe {
            std::process::exit(0);
        }
        note(&format!("error: cannot write to standard output: {error}"));
        std::process::exit(1);
    }
}

/// Writes a line for people to standard error. Nobody is left to tell if that fails.
pub fn note(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Whether answers can be shown while they are written.
pub fn is_terminal() -> bool {
    std::io::stdout().is_terminal()
}

/// Sends the libraries' log to standard error, as `OPABINIA_LOG` asks.
pub fn start_log() {
    let filter = EnvFilter::try_from_env("OPABINIA_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .without_time()
        .with_target(std::env::var_os("OPABINIA_LOG").is_some())
        .with_writer(std::io::stderr);
    // A log that is already there is as good.
    let _ = log.try_init();
}

/// Bytes as people read them.
pub fn bytes(count: u64) -> String {
    let count = count as f64;
    match count {
        _ if count >= 1e9 => format!("{:.2} GB", count / 1e9),
        _ if count >= 1e6 => format!("{:.1} MB", count / 1e6),
        _ if count >= 1e3 => format!("{:.1} kB", count / 1e3),
        _ => format!("{count} B"),
    }
}

/// Floating-point operations as people read them.
pub fn flop(count: f64) -> String {
    match count {
        _ if count >= 1e12 => format!("{:.2} TFLOP", count / 1e12),
        _ if count >= 1e9 => format!("{:.2} GFLOP", count / 1e9),
        _ => format!("{:.1} MFLOP", count / 1e6),
    }
}

/// A short time as people read it.
pub fn seconds(seconds: f64) -> String {
    match seconds {
        _ if seconds >= 1.0 => format!("{seconds:.1} s"),
        _ => format!("{:.0} ms", 1e3 * seconds),
    }
}

/// Numbers of parameters as people read them.
pub fn count(count: u64) -> String {
    let count = count as f64;
    match count {
        _ if count >= 1e9 => format!("{:.2} B", count / 1e9),
        _ if count >= 1e6 => format!("{:.1} M", count / 1e6),
        _ if count >= 1e3 => format!("{:.1} k", count / 1e3),
        _ => format!("{count}"),
    }
}

/// A plain table: columns as wide as their widest cell.
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = header.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> = cells
            .zip(&widths)
            .map(|(cell, &width)| format!("{cell:<width$}"))
            .collect();
        padded.join("  ").trim_end().to_owned()
    };
    let mut lines = vec![line(&mut header.iter().copied())];
    lines.push(
        widths
            .iter()
            .map(|&width| "─".repeat(width))
            .collect::<Vec<_>>()
            .join("  "),
    );
    lines.extend(
        rows.iter()
            .map(|row| line(&mut row.iter().map(String::as_str))),
    );
    lines.join("\n")
}
