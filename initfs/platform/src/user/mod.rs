//! Clients' own pages: taking them over, finding out where they lie, letting go of them.
//!
//! [`books`] knows which are whose and what is to be done; a [`worker`] thread does it, by moving
//! pages between address spaces ([`acquire`], [`space`]) after a look at what they are
//! ([`grants`]). Nothing here knows of objects, or of who maps the pages afterwards.

pub mod acquire;
pub mod books;
pub mod grants;
pub mod link;
mod machine;
mod space;
mod worker;
