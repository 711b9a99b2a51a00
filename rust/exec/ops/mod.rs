//! What the stages of a plan do, op by op: methods of `Step` that each thread calls.

mod attention;
mod experts;
mod products;
mod recurrent;
mod rows;
