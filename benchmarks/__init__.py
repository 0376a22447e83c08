"""How fast a round is, beside stock TFF and beside a bare loop; see docs/performance.md."""
