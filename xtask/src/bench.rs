//! `cargo xtask bench`: guest instructions per operation, and what they are compared with.
//!
//! The image measures and prints a line a row, `bench NAME MEDIAN MEAN`; this module makes a table
//! of them. It knows of rows what the image does not: what Linux takes for the same, and what was
//! aimed for. A row that it does not know is shown all the same.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::Result;
use clap::Args;

use crate::boot::{Run, Target};

/// `cargo xtask bench`.
#[derive(Args)]
pub struct Bench {
    #[command(flatten)]
    target: Target,
    /// Measure only rows whose names begin like this
    #[arg(long, value_name = "NAME")]
    row: Option<String>,
}

/// What is known of a row beforehand.
struct Known {
    name: &'static str,
    title: &'static str,
    /// The same on Linux 6.1 with vgem, counted in the same way on the same emulated machine.
    linux: Option<u64>,
    /// The row that has the same without our server; what it takes more is our own share.
    without: Option<&'static str>,
    aim: Option<Aim>,
}

/// What is aimed for; missing it is no failure.
#[derive(Clone, Copy)]
enum Aim {
    /// At most so many instructions of our own.
    Own(u64),
    /// At most so many hundredths of what Linux takes.
    OfLinux(u64),
}

/// Rows that have another one beside them, of the kernel's own steps: what they begin with, and what
/// they are. Their names go on with a number of pages, and those of the others with `-bare`.
const BESIDE: [(&str, &str); 3] = [
    ("userptr-alias", "register + release, aliased"),
    ("userptr-exclusive", "register + release, not aliased"),
    ("userptr-munmap", "munmap to return while held"),
];
const PAGES: [u32; 4] = [1, 16, 256, 4096];
/// So many hundredths of the kernel's own steps are aimed for.
const OF_BARE: u64 = 110;

/// A bare ioctl: into the kernel and back.
const IOCTL: u64 = 1_368;

/// All of them, in the table's order.
const ROWS: &[Known] = &[
    Known {
        name: "null-call",
        title: "null call (a scheme that answers 0)",
        linux: Some(IOCTL),
        without: None,
        aim: None,
    },
    Known {
        name: "gem-call",
        title: "GEM call without payload (SIZE)",
        linux: Some(IOCTL),
        without: Some("null-call"),
        aim: Some(Aim::Own(600)),
    },
    Known {
        name: "null-payload-call",
        title: "null call with 16 bytes",
        linux: Some(IOCTL),
        without: None,
        aim: None,
    },
    Known {
        name: "drm-call",
        title: "DRM call (GET_CAP, 16 bytes)",
        linux: Some(IOCTL),
        without: Some("null-payload-call"),
        aim: None,
    },
    Known {
        name: "create-close-4k",
        title: "create + close, 4 KiB",
        linux: Some(12_777),
        without: None,
        aim: None,
    },
    Known {
        name: "create-first-1m",
        title: "create a user's first buffer, 1 MiB",
        linux: None,
        without: None,
        aim: None,
    },
    Known {
        name: "cycle-64k",
        title: "create + map + touch + unmap + close, 64 KiB",
        linux: Some(350_232),
        without: None,
        aim: Some(Aim::OfLinux(50)),
    },
    Known {
        name: "flink-open-close",
        title: "flink + open + close",
        linux: Some(5_830),
        without: None,
        aim: None,
    },
    Known {
        name: "prime",
        title: "PRIME export + import + close",
        linux: Some(7_289),
        without: None,
        aim: None,
    },
    Known {
        name: "map-unmap-1m",
        title: "map + unmap, 1 MiB",
        linux: Some(1_364_533),
        without: None,
        aim: Some(Aim::OfLinux(20)),
    },
    Known {
        name: "map-touch-unmap-1m",
        title: "map + touch + unmap, 1 MiB",
        linux: Some(1_875_643),
        without: None,
        aim: None,
    },
];

impl Bench {
    /// Whether all measurements were taken.
    ///
    /// # Errors
    ///
    /// The run could not be made.
    pub fn run(&self) -> Result<bool> {
        let command_line = format!("bench={}", self.row.as_deref().unwrap_or("all"));
        let ended = self.target.run(&Run {
            processors: 1,
            command_line: &command_line,
            record: None,
            count_instructions: true,
            debugger: false,
            tests: false,
        })?;
        let figures = Figures::of(&ended.log);
        print!("\n{figures}");
        let missing: Vec<_> = self
            .expected()
            .into_iter()
            .filter(|name| !figures.has(name))
            .collect();
        for name in &missing {
            println!("FAILED: no measurement of {name}");
        }
        Ok(ended.well && missing.is_empty())
    }

    /// What the rows that must be there begin with.
    fn expected(&self) -> Vec<String> {
        if let Some(row) = &self.row {
            return vec![row.clone()];
        }
        let alone = ROWS.iter().map(|row| row.name.to_owned());
        let beside = beside().flat_map(|(_, _, pair)| pair);
        alone.chain(beside).collect()
    }
}

/// Medians by row. Shown as a table.
struct Figures(BTreeMap<String, u64>);

impl Figures {
    fn of(log: &[String]) -> Self {
        Self(log.iter().filter_map(|line| figure(line)).collect())
    }

    /// Whether there is a row whose name begins like this.
    fn has(&self, name: &str) -> bool {
        self.0.keys().any(|row| row.starts_with(name))
    }

    /// What the row takes beyond the one without our server.
    fn own(&self, row: &Known) -> Option<u64> {
        let without = self.0.get(row.without?)?;
        Some(self.0.get(row.name)?.saturating_sub(*without))
    }

    /// The table of rows beside which there are the kernel's own steps, where any was measured.
    fn write_beside(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let measured = beside().filter_map(|(title, pages, [name, bare])| {
            Some((title, pages, *self.0.get(&name)?, *self.0.get(&bare)?))
        });
        for (index, (title, pages, here, bare)) in measured.enumerate() {
            if index == 0 {
                let aim = OF_BARE as f64 / 100.0;
                writeln!(
                    f,
                    "\n| a client's own pages | pages | here | the kernel's own steps | ratio | at most {aim:.1} × |\n\
                     |---|---:|---:|---:|---:|---|"
                )?;
            }
            let ratio = here as f64 / bare as f64;
            let reached = u128::from(here) * 100 <= u128::from(bare) * u128::from(OF_BARE);
            let verdict = if reached { "reached" } else { "not reached" };
            let [here, bare] = [here, bare].map(thousands);
            writeln!(
                f,
                "| {title} | {pages} | {here} | {bare} | {ratio:.2} | {verdict} |"
            )?;
        }
        Ok(())
    }

    fn is_reached(&self, row: &Known) -> Option<bool> {
        match row.aim? {
            Aim::Own(most) => Some(self.own(row)? <= most),
            Aim::OfLinux(hundredths) => {
                let ours = u128::from(*self.0.get(row.name)?);
                Some(ours * 100 <= u128::from(row.linux?) * u128::from(hundredths))
            }
        }
    }
}

/// What each row of [`BESIDE`] is, how many pages it has, and its name and that of the one beside it.
fn beside() -> impl Iterator<Item = (&'static str, u32, [String; 2])> {
    let row = |(name, title), pages| {
        let name = format!("{name}-{pages}");
        let bare = format!("{name}-bare");
        (title, pages, [name, bare])
    };
    let all = BESIDE.into_iter();
    all.flat_map(move |kind| PAGES.into_iter().map(move |pages| row(kind, pages)))
}

/// The name and median of a machine's line.
fn figure(line: &str) -> Option<(String, u64)> {
    let mut words = line.strip_prefix("bench ")?.split(' ');
    Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| instructions per operation | here | of it gemd's | Linux 6.1, vgem | here / Linux | aim |\n\
             |---|---:|---:|---:|---:|---|"
        )?;
        for row in ROWS {
            let Some(&here) = self.0.get(row.name) else {
                continue;
            };
            write!(f, "| {} | {} |", row.title, thousands(here))?;
            let [own, linux] = [self.own(row), row.linux].map(|number| number.map(thousands));
            let ratio = row
                .linux
                .map(|linux| format!("{:.2}", here as f64 / linux as f64));
            for cell in [own, linux, ratio] {
                write!(f, " {} |", cell.unwrap_or_default())?;
            }
            let verdict = match self.is_reached(row) {
                Some(true) => ": reached",
                Some(false) => ": not reached",
                None => "",
            };
            let aim = row.aim.map(|aim| format!("{aim}{verdict}"));
            writeln!(f, " {} |", aim.unwrap_or_default())?;
        }
        self.write_beside(f)?;
        let known = |name: &str| {
            let mut pairs = beside().flat_map(|(_, _, pair)| pair);
            ROWS.iter().any(|row| row.name == name) || pairs.any(|row| row == name)
        };
        for (name, &here) in self.0.iter().filter(|(name, _)| !known(name)) {
            writeln!(f, "| {name} | {} | | | | |", thousands(here))?;
        }
        Ok(())
    }
}

impl fmt::Display for Aim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own(most) => write!(f, "gemd's at most {}", thousands(*most)),
            Self::OfLinux(hundredths) => {
                write!(f, "at most {:.1} × Linux", *hundredths as f64 / 100.0)
            }
        }
    }
}

/// With commas.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.char_indices() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(lines: &[&str]) -> Figures {
        let log: Vec<String> = lines.iter().map(|&line| line.to_owned()).collect();
        Figures::of(&log)
    }

    fn row(name: &str) -> &'static Known {
        ROWS.iter().find(|row| row.name == name).unwrap()
    }

    #[test]
    fn our_own_share_is_what_comes_on_top_of_the_same_without_us() {
        let figures = figures(&["bench null-call 7000 7001", "bench gem-call 7600 7777"]);
        assert_eq!(figures.own(row("gem-call")), Some(600));
        assert_eq!(figures.is_reached(row("gem-call")), Some(true));
        assert_eq!(figures.own(row("drm-call")), None, "not measured");
        assert_eq!(figures.is_reached(row("cycle-64k")), None);
    }

    #[test]
    fn a_share_of_what_linux_takes_is_reached_up_to_the_last_instruction() {
        let reached = |line| figures(&[line]).is_reached(row("cycle-64k"));
        assert_eq!(reached("bench cycle-64k 175116 175116"), Some(true));
        assert_eq!(reached("bench cycle-64k 175117 175117"), Some(false));
    }

    #[test]
    fn a_row_that_nothing_is_known_of_is_in_the_table() {
        let table = figures(&["a line", "bench", "bench x", "bench of-old 1234567 1"]).to_string();
        assert_eq!(table.lines().count(), 3);
        assert!(
            table.ends_with("| of-old | 1,234,567 | | | | |\n"),
            "{table}"
        );
    }

    #[test]
    fn rows_with_the_kernels_own_steps_beside_them_are_in_a_table_of_their_own() {
        let lines = [
            "bench userptr-alias-16 110 1",
            "bench userptr-alias-16-bare 100 1",
            "bench userptr-munmap-4096 1112 1",
            "bench userptr-munmap-4096-bare 1010 1",
            "bench userptr-alias-1 1 1",
        ];
        let table = figures(&lines).to_string();
        assert!(
            table.contains("| register + release, aliased | 16 | 110 | 100 | 1.10 | reached |")
        );
        let missed = "| munmap to return while held | 4096 | 1,112 | 1,010 | 1.10 | not reached |";
        assert!(table.contains(missed), "{table}");
        assert!(!table.contains("aliased | 1 |"), "nothing is beside it");
    }

    #[test]
    fn every_row_that_another_is_compared_with_is_there() {
        for row in ROWS {
            let without = row.without;
            assert!(without.is_none_or(|name| ROWS.iter().any(|other| other.name == name)));
        }
    }
}
