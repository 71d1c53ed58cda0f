//! What library users add.
