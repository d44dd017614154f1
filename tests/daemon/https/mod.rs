//! The API by https, asked by real clients.

mod certificates;
mod clients;
mod handshakes;
mod mistaken;
mod streams;
