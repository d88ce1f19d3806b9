"""What crosses a socket: messages, proof, transfers, and what both sides must agree on."""
