//! What is on the screen: the last sample, how it is sorted and filtered, which part of it is
//! seen. Plain characters and no colours, so that it looks the same on every terminal; made for
//! 80 columns and 24 rows, and cut where there are fewer.

use std::cmp::Reverse;
use std::time::Duration;

use ratatui::Frame;
use ratatui::crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Style, Stylize};
use ratatui::text::Line;
use ratatui::widgets::{Paragraph, Row, Table};

use super::sample::{Client, Sample};
use crate::units::size;

/// What the user wants of the program.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Wish {
    Stay,
    Quit,
}

/// What is shown, and how.
#[derive(Debug, Default)]
pub struct View {
    pub sample: Option<Sample>,
    /// For how long the server has not answered, where that is too long.
    pub silence: Option<Duration>,
    sort: Column,
    reversed: bool,
    filter: String,
    /// Keys go into the filter.
    typing: bool,
    /// Lines above the first one on the screen.
    skipped: usize,
    /// Lines of clients that fit.
    page: usize,
}

/// By what clients are sorted.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Column {
    Client,
    Pid,
    Uid,
    Handles,
    Fds,
    Maps,
    #[default]
    Total,
    Shared,
    Purgeable,
}

const COLUMNS: [Column; 9] = [
    Column::Client,
    Column::Pid,
    Column::Uid,
    Column::Handles,
    Column::Fds,
    Column::Maps,
    Column::Total,
    Column::Shared,
    Column::Purgeable,
];

impl Column {
    fn title(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Pid => "pid",
            Self::Uid => "uid",
            Self::Handles => "handles",
            Self::Fds => "fds",
            Self::Maps => "maps",
            Self::Total => "total",
            Self::Shared => "shared",
            Self::Purgeable => "purge",
        }
    }

    fn width(self) -> u16 {
        match self {
            Self::Client | Self::Uid => 6,
            Self::Pid | Self::Handles => 7,
            Self::Fds | Self::Maps => 5,
            Self::Total | Self::Shared | Self::Purgeable => 9,
        }
    }

    fn of(self, client: &Client) -> u64 {
        match self {
            Self::Client => client.number,
            Self::Pid => client.pid,
            Self::Uid => client.uid,
            Self::Handles => client.handles,
            Self::Fds => client.fds,
            Self::Maps => client.maps,
            Self::Total => client.total,
            Self::Shared => client.shared,
            Self::Purgeable => client.purgeable,
        }
    }

    /// Whether people want to see the largest first.
    fn descends(self) -> bool {
        !matches!(self, Self::Client | Self::Pid | Self::Uid)
    }

    fn show(self, client: &Client) -> String {
        match self {
            Self::Total | Self::Shared | Self::Purgeable => size(self.of(client)),
            _ => self.of(client).to_string(),
        }
    }

    fn next(self, steps: usize) -> Self {
        let here = COLUMNS.iter().position(|&column| column == self);
        let there = (here.unwrap_or(0) + steps) % COLUMNS.len();
        COLUMNS.get(there).copied().unwrap_or_default()
    }
}

impl View {
    /// Does what a key means.
    pub fn handle(&mut self, event: &Event) -> Wish {
        let Event::Key(key) = event else {
            return Wish::Stay;
        };
        if key.kind == KeyEventKind::Release {
            return Wish::Stay;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return match key.code {
                KeyCode::Char('c' | 'd') => Wish::Quit,
                _ => Wish::Stay,
            };
        }
        if self.typing {
            self.type_filter(key);
            return Wish::Stay;
        }
        match key.code {
            KeyCode::Char('q') => return Wish::Quit,
            KeyCode::Char('s') => self.sort = self.sort.next(1),
            KeyCode::Char('S') => self.sort = self.sort.next(COLUMNS.len() - 1),
            KeyCode::Char('r') => self.reversed = !self.reversed,
            KeyCode::Char('/') => self.typing = true,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Down => self.skipped = self.skipped.saturating_add(1),
            KeyCode::Up => self.skipped = self.skipped.saturating_sub(1),
            KeyCode::PageDown => self.skipped = self.skipped.saturating_add(self.page),
            KeyCode::PageUp => self.skipped = self.skipped.saturating_sub(self.page),
            KeyCode::Home => self.skipped = 0,
            KeyCode::End => self.skipped = usize::MAX,
            _ => {}
        }
        Wish::Stay
    }

    fn type_filter(&mut self, key: &KeyEvent) {
        match key.code {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => {
                self.filter.pop();
            }
            KeyCode::Char(letter) => self.filter.push(letter),
            _ => {}
        }
        self.skipped = 0;
    }

    /// Draws all of it.
    pub fn draw(&mut self, frame: &mut Frame) {
        let rows = [
            Constraint::Length(4),
            Constraint::Min(0),
            Constraint::Length(1),
        ];
        let [head, body, foot] = Layout::vertical(rows).areas(frame.area());
        frame.render_widget(Paragraph::new(self.head(head.width)), head);
        frame.render_widget(Line::raw(self.foot()), foot);
        if self.sample.is_some() {
            // One line for the titles.
            self.page = usize::from(body.height.saturating_sub(1));
            let table = self.table();
            frame.render_widget(table, body);
        }
    }

    fn head(&self, width: u16) -> Vec<Line<'static>> {
        let Some(sample) = &self.sample else {
            return vec![Line::raw("asking the server ...")];
        };
        let count = |key| sample.stat(key);
        let totals = format!(
            "gemd: {} opens, {} objects, {} handles, {} fds, {} names",
            count("opens"),
            count("objects"),
            count("handles"),
            count("object-fds"),
            count("names"),
        );
        let all = bar(
            "all",
            count("memory-pages"),
            count("limit-memory-pages"),
            width,
        );
        let own = bar(
            &format!("uid {}", count("uid")),
            count("uid-memory-pages"),
            count("limit-memory-pages-per-uid"),
            width,
        );
        let last = match self.silence {
            Some(silence) => {
                let seconds = silence.as_secs();
                Line::raw(format!("the server has not answered for {seconds} s")).bold()
            }
            None => Line::default(),
        };
        vec![Line::raw(totals), Line::raw(all), Line::raw(own), last]
    }

    fn table(&mut self) -> Table<'static> {
        let clients = self.clients();
        let most = clients.len().saturating_sub(self.page);
        let skipped = self.skipped.min(most);
        let seen = clients.iter().skip(skipped).take(self.page);
        let rows: Vec<Row> = seen.map(|client| row(client)).collect();
        self.skipped = skipped;
        let titles = COLUMNS.map(|column| {
            // The one by which they are sorted.
            let mark = if column == self.sort { "*" } else { "" };
            let title = format!("{mark}{}", column.title());
            Line::raw(title).right_aligned()
        });
        let titles = titles.into_iter().chain([Line::raw(" node")]);
        let widths = COLUMNS.map(|column| Constraint::Length(column.width()));
        let widths = widths.into_iter().chain([Constraint::Length(8)]);
        Table::new(rows, widths)
            .column_spacing(1)
            .header(Row::new(titles).style(Style::new().reversed()))
    }

    /// The clients that are wanted, in order.
    fn clients(&self) -> Vec<&Client> {
        let all = self.sample.iter().flat_map(|sample| &sample.clients);
        let mut clients: Vec<_> = all.filter(|client| self.is_wanted(client)).collect();
        if self.sort.descends() != self.reversed {
            clients.sort_by_key(|client| (Reverse(self.sort.of(client)), client.number));
        } else {
            clients.sort_by_key(|client| (self.sort.of(client), client.number));
        }
        clients
    }

    fn is_wanted(&self, client: &Client) -> bool {
        let numbers = [client.number, client.pid, client.uid].map(|number| number.to_string());
        let texts = numbers.iter().chain([&client.node]);
        self.filter.is_empty() || texts.into_iter().any(|text| text.contains(&self.filter))
    }

    fn foot(&self) -> String {
        let filter = &self.filter;
        if self.typing {
            return format!(
                "filter: {filter}_   (client, pid, uid or node; Enter keeps, Esc clears)"
            );
        }
        let all = self
            .sample
            .as_ref()
            .map_or(0, |sample| sample.clients.len());
        let shown = match self.clients().len() {
            _ if filter.is_empty() => String::new(),
            shown => format!("   \"{filter}\": {shown} of {all}"),
        };
        format!("q quit  s/S sort  r reverse  / filter  arrows scroll{shown}")
    }
}

fn row(client: &Client) -> Row<'static> {
    let numbers = COLUMNS.map(|column| Line::raw(column.show(client)).right_aligned());
    let node = match client.node.as_str() {
        _ if client.revoked => "revoked",
        "renderD128" => "render",
        node => node,
    };
    Row::new(numbers.into_iter().chain([Line::raw(format!(" {node}"))]))
}

/// `all       [#####......]  1.5 GiB of 4.0 GiB`
fn bar(title: &str, pages: u64, limit: u64, width: u16) -> String {
    let bytes = |pages: u64| size(pages.saturating_mul(gem_client::PAGE_SIZE as u64));
    let numbers = format!("{} of {}", bytes(pages), bytes(limit));
    let room = usize::from(width).saturating_sub(40).clamp(10, 60);
    let full = u128::from(pages.min(limit)) * room as u128 / u128::from(limit.max(1));
    let full = "#".repeat(full as usize);
    format!("{title:<14} [{full:.<room$}] {numbers}")
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;

    /// A view of this many clients: the first one has the most memory.
    fn view(clients: u64) -> View {
        let client = |number| Client {
            number,
            pid: 1000 + number,
            uid: number % 2,
            node: "renderD128".to_owned(),
            total: (100 - number) << 12,
            ..Client::default()
        };
        View {
            sample: Some(Sample {
                stats: Default::default(),
                clients: (1..=clients).map(client).collect(),
            }),
            ..View::default()
        }
    }

    fn press(view: &mut View, keys: &[KeyCode]) {
        for &key in keys {
            let event = Event::Key(KeyEvent::new(key, KeyModifiers::NONE));
            assert_eq!(view.handle(&event), Wish::Stay);
        }
    }

    /// The numbers of the clients on a screen of this size.
    fn shown(view: &mut View, width: u16, height: u16) -> Vec<u64> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| view.draw(frame)).unwrap();
        let screen = terminal.backend().to_string();
        let lines = screen.lines().filter(|line| line.contains(" render"));
        let number = |line: &str| {
            line.trim_matches('"')
                .split_whitespace()
                .next()?
                .parse()
                .ok()
        };
        lines.filter_map(number).collect()
    }

    #[test]
    fn clients_are_sorted_and_filtered() {
        let mut view = view(5);
        assert_eq!(shown(&mut view, 80, 24), [1, 2, 3, 4, 5]);
        press(&mut view, &[KeyCode::Char('r')]);
        assert_eq!(shown(&mut view, 80, 24), [5, 4, 3, 2, 1]);
        // Backwards to the pid, of which the smallest comes first.
        press(&mut view, &[KeyCode::Char('r')]);
        press(&mut view, &[KeyCode::Char('S'); 5]);
        assert_eq!(shown(&mut view, 80, 24), [1, 2, 3, 4, 5]);
        press(&mut view, &[KeyCode::Char('s')]);
        assert_eq!(shown(&mut view, 80, 24), [2, 4, 1, 3, 5], "by user");
        press(&mut view, &[KeyCode::Char('/'), KeyCode::Char('q')]);
        assert!(shown(&mut view, 80, 24).is_empty());
        press(&mut view, &[KeyCode::Backspace, KeyCode::Char('1')]);
        press(&mut view, &[KeyCode::Char('0'), KeyCode::Char('0')]);
        press(&mut view, &[KeyCode::Char('4'), KeyCode::Enter]);
        assert_eq!(shown(&mut view, 80, 24), [4], "by pid");
        press(&mut view, &[KeyCode::Esc]);
        assert_eq!(shown(&mut view, 80, 24).len(), 5);
    }

    #[test]
    fn a_long_list_is_scrolled_from_end_to_end() {
        let mut view = view(50);
        let first = shown(&mut view, 80, 24);
        assert_eq!(first, (1..=18).collect::<Vec<_>>());
        press(&mut view, &[KeyCode::PageDown, KeyCode::Up]);
        assert_eq!(shown(&mut view, 80, 24), (18..=35).collect::<Vec<_>>());
        press(&mut view, &[KeyCode::End, KeyCode::Down]);
        let last: Vec<_> = (33..=50).collect();
        assert_eq!(shown(&mut view, 80, 24), last);
        press(
            &mut view,
            &[KeyCode::PageUp, KeyCode::PageUp, KeyCode::PageUp],
        );
        assert_eq!(shown(&mut view, 80, 24), first);
    }

    #[test]
    fn any_terminal_will_do() {
        for (width, height) in [(1, 1), (10, 3), (40, 8), (80, 24), (300, 100)] {
            let mut view = view(50);
            shown(&mut view, width, height);
            press(
                &mut view,
                &[KeyCode::PageDown, KeyCode::End, KeyCode::PageUp],
            );
            shown(&mut view, width, height);
        }
    }
}
