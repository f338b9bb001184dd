//! Tests in a user namespace, as a container engine without root runs.
