//! Clients' own pages: given back in one order on every path.

mod order;
mod world;
