//! The path as a whole, over fakes: what happens, what does not, and what the log says of both.

mod acquire;
mod approve;
mod change;
mod credential;
mod keep;
mod locate;
mod redeem;
mod world;
