//! What only PostgreSQL can do, and every trap that it sets.

mod servers;
