//! Traces: what a kernel asked of gemd and what gemd answered, as lines of text.
//!
//! A trace is written while gemd serves ([`Writer`]), comes off a machine that has only a serial
//! port ([`serial`]), lies in a file, and is read to be replayed ([`read`]). This crate owns the
//! format. It does not know gemd: who records is gemd (`scheme/src/record.rs`), who replays are
//! its tests (`scheme/tests/replay.rs`). The recorded files are in `tests/traces/recorded`, one a
//! promise, and come from a real Redox kernel (`cargo xtask boot --record`).
//!
//! # The format
//!
//! A line a record, in the order in which things happened. Numbers are hexadecimal, but for
//! limits, uids, gids and errno.
//!
//! | line | what |
//! |---|---|
//! | `gemd-trace 1` | the first line |
//! | `limits 1=A 2=B …` | a server has started with these limits, by their numbers in `docs/wire.md` |
//! | `user-pages` | it can take over clients' own pages |
//! | `pid P UID GID` | from here on, the process P has these credentials |
//! | `pid P gone` | from here on, there is no process P |
//! | `> TAG P OPCODE FLAGS A0 … A5 [: PAYLOAD]` | an SQE and the payload as it came; zeros at the end are not written |
//! | `>` | the same SQE and payload as the last one |
//! | `< TAG RESULT [f FLAGS] [x EXTRA] [: PAYLOAD]` | a CQE, and the payload where gemd has changed it; a RESULT of `-E` is the errno E |
//! | `end` | the last line |
//!
//! The address of a payload means nothing to a reader and is written as 0; its length is in its
//! place. An answer stands where gemd came to it, which is before it is written. So a request
//! whose answer is not the next record has waited.
//!
//! A payload is a list of parts:
//!
//! | part | what |
//! |---|---|
//! | `"…"` | text; `\n`, `\t`, `\"` and `\\` as usual |
//! | `0a1b…` | bytes |
//! | `00*N` | N times the same byte |
//! | `@N` or `@N-M` | the text parts N to M of this trace, of those with at least [`REMEMBERED`](payload::REMEMBERED) bytes, counted from 0 |

#![no_std]

extern crate alloc;

pub mod payload;
pub mod serial;

mod read;
mod write;

use alloc::vec::Vec;

use syscall::schemev2::{Cqe, CqeOpcode, Sqe};

pub use read::{Error, read};
pub use write::Writer;

/// The first line.
pub const HEAD: &str = "gemd-trace 1";
/// Clients' own pages can be taken over.
const USER_PAGES: &str = "user-pages";
/// The same as what was asked last.
const AGAIN: &str = ">";
/// The last line.
pub const END: &str = "end";

/// The promises that are tested on a real kernel without being recorded, and why.
pub const UNRECORDED: &[(&str, &str)] = &[
    (
        "a_client_that_is_killed_amid_its_calls_harms_nobody",
        "a recording makes gemd so slow that its clients are gone before they are answered, with whole \
     pages lent, and that the kernel does not survive (docs/redox-integration.md); how many calls \
     they make is chance, too",
    ),
    (
        "clients_that_do_anything_and_are_killed_leave_nothing",
        "there is no end to what they do, and how much it is depends on the time",
    ),
    ("a_client_that_waits_for_a_dead_server_can_be_killed", ENDS),
    ("a_new_server_knows_nothing_of_the_old_one", ENDS),
    ("a_server_leaves_amid_its_own_work", ENDS),
    ("a_server_that_is_told_to_leave_answers_what_waits", ENDS),
    ("servers_come_and_go_amid_calls", ENDS),
    ("what_a_dead_servers_clients_have_mapped_stays_theirs", ENDS),
    ("a_claim_is_for_what_was_taken_over_and_once", OWN),
    ("a_forked_childs_copy_is_not_what_its_parent_registers", OWN),
    ("a_forked_child_shares_what_its_parent_has_registered", OWN),
    (
        "a_program_that_becomes_another_gives_back_what_it_has_registered",
        OWN,
    ),
    (
        "registered_memory_that_moves_is_the_same_and_is_told_of_when_it_is_unmapped",
        OWN,
    ),
    (
        "registered_memory_that_mremap_replaces_is_charged_until_its_file_closes",
        OWN,
    ),
    (
        "an_address_space_in_other_hands_gives_what_is_asked_for_and_nothing_else",
        OWN,
    ),
    (
        "a_client_killed_at_any_moment_of_a_registration_leaves_nothing",
        OWN,
    ),
    ("a_process_that_ends_leaves_no_registration", OWN),
    (
        "who_sends_files_without_end_keeps_nobody_from_registering",
        OWN,
    ),
    ("a_revoked_open_keeps_no_pages", OWN),
    (
        "an_unmapping_takes_all_pages_back_and_tells_who_did_it",
        OWN,
    ),
    ("closing_the_handle_leaves_the_memory_and_its_charge", OWN),
    ("memory_that_is_not_ordinary_is_refused_and_unharmed", OWN),
    (
        "memory_that_was_taken_back_is_registered_again_by_its_handle",
        OWN,
    ),
    (
        "registered_memory_is_named_and_neither_mapped_nor_exported",
        OWN,
    ),
    (
        "registered_memory_is_what_it_was_and_no_memory_of_the_servers",
        OWN,
    ),
    ("shared_memory_of_no_file_can_be_registered", OWN),
    ("six_thousand_pages_are_one_range", OWN),
    ("ten_thousand_ranges_of_one_client_come_and_go", OWN),
    (
        "threads_that_write_while_memory_is_registered_lose_nothing",
        OWN,
    ),
    ("users_have_so_many_pages_and_ranges_and_no_more", OWN),
    ("what_is_sent_that_is_no_address_space_is_refused", OWN),
    (
        "whatever_is_mapped_over_registered_memory_takes_it_back",
        OWN,
    ),
    (
        "a_short_machine_costs_what_nobody_needs_and_nothing_else",
        MACHINE,
    ),
    ("a_purged_object_is_purged_for_all_who_hold_it", MACHINE),
    (
        "every_open_is_told_that_memory_is_short_and_that_it_is_no_longer",
        MACHINE,
    ),
    ("what_is_mapped_is_never_purged", MACHINE),
    ("what_has_no_pages_is_not_charged_for_any", MACHINE),
    (
        "memory_that_runs_out_costs_what_nobody_needs_and_then_the_request",
        MACHINE,
    ),
    ("what_a_user_leaves_unused_takes_nobodys_memory", MACHINE),
];

const OWN: &str = "its clients send their address spaces, and a trace has no memory of theirs";

const ENDS: &str = "its servers end, and a trace is one server's";

/// Why a promise about memory that runs short is not recorded.
const MACHINE: &str = "when it is seen that the machine is short is the machine's";

/// Whether a CQE is no answer: the kernel is told that a file has become readable. Its tag is none.
pub fn is_unasked(cqe: &Cqe) -> bool {
    cqe.flags == CqeOpcode::SendFevent as u8
}

/// One record of a trace.
#[derive(Clone, Debug)]
pub enum Record {
    /// A server has started with these limits: numbers and values.
    Start(Vec<(u64, u64)>),
    /// The server can take over clients' own pages.
    UserPages,
    /// Who this process is, or that there is none.
    Process {
        /// Its number.
        pid: u64,
        /// Its uid and gid.
        who: Option<(u32, u32)>,
    },
    /// The kernel has asked.
    Asked {
        /// What. The payload's address is 0.
        sqe: Sqe,
        /// With which payload; `None` where there is none.
        payload: Option<Vec<u8>>,
    },
    /// gemd has answered.
    Answered {
        /// What.
        cqe: Cqe,
        /// What the payload has become; `None` where it is as it was.
        payload: Option<Vec<u8>>,
    },
}
