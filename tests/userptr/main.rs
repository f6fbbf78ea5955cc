//! Clients' own pages: given back in one order on every path, and a state machine that a
//! reference model agrees with.

mod model;
mod order;
mod world;
