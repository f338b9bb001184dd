//! Unix sockets: descriptors handed over by a supervisor, readiness, peers.
