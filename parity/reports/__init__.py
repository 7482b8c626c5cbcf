"""What a run found, written down: on the terminal, as JSON, HTML, JUnit XML and Markdown."""
