//! `top`: who holds how much, live.
//!
//! The main thread owns the screen and what is on it, and waits for one thing after the other:
//! a key, a new sample, the end. Whatever can block has a thread of its own: one asks the
//! server, one reads keys; so that `q` works while the server does not answer. Nothing is
//! drawn, and the terminal not touched, but by the main thread; and it is as it was when the
//! program ends, however that comes about.

mod sample;
mod view;

use std::io::{IsTerminal, stdout};
use std::process;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ratatui::DefaultTerminal;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::event::{self, Event};
use ratatui::crossterm::execute;

use sample::Sample;
use view::{View, Wish};

/// How long the server may take before the screen says so.
const PATIENCE: Duration = Duration::from_secs(3);

/// How often the screen says so.
const TICK: Duration = Duration::from_secs(1);

/// What the main thread is told.
enum Message {
    Sample(gem_client::Result<Sample>),
    Terminal(std::io::Result<Event>),
    /// Ctrl-C from elsewhere, the end of the session.
    Stop,
}

/// Shows who holds how much, and again after each `delay`, until somebody wants it to end.
pub fn run(delay: Duration) -> Result<()> {
    if !stdout().is_terminal() {
        bail!("top shows a screen and needs a terminal; for programs: gemctl clients --json");
    }
    let (sender, messages) = mpsc::channel();
    let stop = sender.clone();
    ctrlc::set_handler(move || {
        let _ = stop.send(Message::Stop);
    })
    .context("cannot listen for Ctrl-C")?;

    let mut screen = Screen::enter().context("cannot use this terminal")?;
    let samples = sender.clone();
    thread::spawn(move || ask_the_server(&samples, delay));
    thread::spawn(move || read_keys(&sender));

    let mut view = View::default();
    let mut last = Instant::now();
    loop {
        let message = messages.recv_timeout(TICK);
        match message {
            Ok(Message::Sample(sample)) => {
                last = Instant::now();
                view.sample = Some(sample?);
            }
            Ok(Message::Terminal(event)) => {
                if view.handle(&event.context("cannot read keys")?) == Wish::Quit {
                    return Ok(());
                }
            }
            Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
            Err(RecvTimeoutError::Timeout) => {}
        }
        let waited = last.elapsed().saturating_sub(delay);
        view.silence = (waited >= PATIENCE).then_some(waited);
        let drawn = screen.0.draw(|frame| view.draw(frame));
        drawn.context("cannot draw")?;
    }
}

/// Sends samples until the server fails or nobody wants them.
fn ask_the_server(samples: &Sender<Message>, delay: Duration) {
    loop {
        let sample = Sample::take();
        let failed = sample.is_err();
        if samples.send(Message::Sample(sample)).is_err() || failed {
            return;
        }
        thread::sleep(delay);
    }
}

/// Sends what the terminal has to say until that fails or nobody wants it.
fn read_keys(keys: &Sender<Message>) {
    loop {
        let event = event::read();
        let failed = event.is_err();
        if keys.send(Message::Terminal(event)).is_err() || failed {
            return;
        }
    }
}

/// The terminal while it is a screen. Dropping it makes it a terminal again; so does a panic, of
/// any thread, before its message is printed.
struct Screen(DefaultTerminal);

impl Screen {
    fn enter() -> std::io::Result<Self> {
        let hook = std::panic::take_hook();
        // Runs after ratatui's own hook, which leaves the screen.
        std::panic::set_hook(Box::new(move |panic| {
            let _ = execute!(stdout(), Show);
            hook(panic);
            // Another thread would go on drawing over the message.
            process::exit(101);
        }));
        Ok(Self(ratatui::try_init()?))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // What cannot be restored has nobody in front of it.
        let _ = self.0.show_cursor();
        let _ = ratatui::try_restore();
    }
}

#[cfg(test)]
#[path = "../../../../tests/terminal/mod.rs"]
mod terminal;

#[cfg(test)]
mod tests {
    use std::env;
    use std::process::Command;

    use super::Screen;
    use super::terminal::Terminal;

    /// Runs itself again, in a terminal where it panics on the screen.
    #[test]
    fn a_panic_leaves_the_terminal_as_it_was_and_its_message() {
        const ON_A_SCREEN: &str = "GEMCTL_TEST_ON_A_SCREEN";
        if env::var_os(ON_A_SCREEN).is_some() {
            let mut screen = Screen::enter().unwrap();
            screen.0.draw(|_| {}).unwrap();
            std::thread::spawn(|| panic!("a bug")).join().unwrap();
        }
        let mut again = Command::new(env::current_exe().unwrap());
        let (_, name) = concat!(module_path!(), "::").split_once("::").unwrap();
        again
            .arg(format!(
                "{name}a_panic_leaves_the_terminal_as_it_was_and_its_message"
            ))
            .args(["--exact", "--nocapture"])
            .env(ON_A_SCREEN, "1");
        let mut terminal = Terminal::new();
        let mut process = terminal.run(again);
        assert_eq!(process.wait().unwrap().code(), Some(101));
        terminal.wait_for("a bug");
        let seen = terminal.check_that_it_is_as_it_was();
        assert!(seen.contains("a bug"), "{seen}");
    }
}
